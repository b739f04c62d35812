"""A checkpoint in the one form that the encoders take, whatever layout it was read from."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters.checkpoints.tensors import Tensor
from adapters.images.preprocessing import MEAN, STD
from adapters.tokenizer import CONTEXT_LENGTH, VOCABULARY_SIZE
from domain.limits import IMAGE_SIZE

_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "": {"quick_gelu": False, "custom_text": False},
    "vision_cfg": {"image_size": 224, "head_width": 64, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "mlp_ratio": 4.0},
}
"""What OpenCLIP assumes where a configuration says nothing. Some layouts say it all the same."""


class InvalidCheckpoint(Exception):
    """The checkpoint is missing, damaged or not one this service can serve; says which and why."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights and architecture of both towers.

    Attributes:
        model: the name to show, e.g. ``clip-vit-large-patch14``.
        architecture: OpenCLIP's ``model_cfg``.
        weights: OpenCLIP's state dict.
    """

    model: str
    architecture: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @property
    def embedding_dimension(self) -> int:
        """Floats per embedding."""
        return int(self.architecture["embed_dim"])

    @property
    def logit_scale(self) -> float:
        """The multiplier of cosines in a classification: exp of the stored parameter."""
        return math.exp(float(self.weights["logit_scale"].array()))

    @property
    def files(self) -> set[Path]:
        """The files that the weights lie in; none for those that came from a pickle."""
        return set().union(*(tensor.files for tensor in self.weights.values()))

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that identify the embeddings this checkpoint makes.

        SHA-256 over architecture, preprocessing and every weight in float32, in an order and
        naming that do not depend on the layout it was read from.
        """
        digest = hashlib.sha256()
        preprocessing = {"size": IMAGE_SIZE, "mean": MEAN, "std": STD, "resize": "bicubic"}
        described = [_without_defaults(self.architecture), preprocessing]
        digest.update(json.dumps(described, sort_keys=True).encode())
        for name in sorted(self.weights):
            values = np.ascontiguousarray(self.weights[name].array())
            digest.update(f"{name} {values.shape}".encode())
            digest.update(values.data)
        return digest.hexdigest()[:16]


def check_servable(architecture: Mapping[str, Any], *, origin: str) -> None:
    """Refuse an architecture whose inputs differ from what this service prepares.

    Raises:
        InvalidCheckpoint: says what differs.
    """
    vision = architecture["vision_cfg"]
    text = architecture["text_cfg"]
    image_size = vision.get("image_size", 224)
    if image_size not in (IMAGE_SIZE, [IMAGE_SIZE, IMAGE_SIZE]):
        raise InvalidCheckpoint(
            f"{origin}: its image tower takes images of {image_size} pixels; "
            f"this service prepares {IMAGE_SIZE} x {IMAGE_SIZE}."
        )
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise InvalidCheckpoint(
            f"{origin}: its text tower needs a tokenizer of its own; "
            "this service has CLIP's byte-pair tokenizer only."
        )
    for key, default, needed in (
        ("context_length", 77, CONTEXT_LENGTH),
        ("vocab_size", 49408, VOCABULARY_SIZE),
    ):
        if text.get(key, default) != needed:
            raise InvalidCheckpoint(
                f"{origin}: its text tower has {key} {text[key]}; CLIP's is {needed}."
            )


def architecture_name(architecture: Mapping[str, Any]) -> str:
    """``clip-vit-large-patch14`` for the architecture that is usually called so."""
    vision = architecture["vision_cfg"]
    patch = vision.get("patch_size")
    if isinstance(vision.get("layers"), int) and patch is not None:
        shape = (vision["width"], vision["layers"])
        sizes = {(768, 12): "base", (1024, 24): "large", (1280, 32): "huge"}
        size = sizes.get(shape, f"w{shape[0]}-l{shape[1]}")
        return f"clip-vit-{size}-patch{patch}"
    return f"clip-{vision.get('timm_model_name', 'resnet')}"


def _without_defaults(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture with all that goes without saying left out, for a stable fingerprint."""
    stripped: dict[str, Any] = {}
    for name, value in architecture.items():
        if isinstance(value, Mapping):
            usual = _DEFAULTS.get(name, {})
            stripped[name] = {k: v for k, v in value.items() if k not in usual or v != usual[k]}
        elif name not in _DEFAULTS[""] or value != _DEFAULTS[""][name]:
            stripped[name] = value
    return stripped
