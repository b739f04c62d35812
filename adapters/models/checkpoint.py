"""A checkpoint in the one form that encoders take; the readers of all layouts return it."""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters.models.preprocessing import CLIPS_OWN, Preprocessing
from adapters.models.tensors import Tensor
from adapters.models.tokenizer import CONTEXT_LENGTH, VOCABULARY_SIZE
from domain.limits import IMAGE_SIZE

_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "": {"quick_gelu": False, "custom_text": False},
    "vision_cfg": {"image_size": 224, "head_width": 64, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "mlp_ratio": 4.0},
}
"""What OpenCLIP assumes where a configuration says nothing. Some layouts say it explicitly."""

_LARGEST: Final[Mapping[str, float]] = {
    "layers": 1000,
    "width": 16384,
    "heads": 1024,
    "head_width": 16384,
    "patch_size": IMAGE_SIZE,
    "mlp_ratio": 100,
}
"""Limits by the setting's name, far above any CLIP's values."""

_LARGEST_NUMBER: Final = 65536
"""The limit of any other setting; the vocabulary has 49,408 tokens."""

_LARGEST_DESCRIPTION: Final = 1024 * 1024
"""Bytes that a file describing a checkpoint may have; real ones have a few thousand."""

_LARGEST_LOGIT_SCALE: Final = 1000.0
"""CLIP's own is clipped at 100."""


_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
"""How every Git LFS pointer begins (git-lfs, docs/spec.md)."""


class InvalidCheckpoint(Exception):
    """The checkpoint is missing, damaged or cannot be served; the message says which and why."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights and architecture of both towers.

    Attributes:
        model: the name to show, e.g. ``clip-vit-large-patch14``.
        architecture: OpenCLIP's ``model_cfg``.
        weights: OpenCLIP's state dict.
        preprocessing: how a picture becomes the image tower's input.
    """

    model: str
    architecture: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    preprocessing: Preprocessing = CLIPS_OWN

    @property
    def embedding_dimension(self) -> int:
        """Floats per embedding."""
        return int(self.architecture["embed_dim"])

    @property
    def logit_scale(self) -> float:
        """The multiplier of cosines in a classification: exp of the stored parameter.

        Raises:
            InvalidCheckpoint: it is not a number that scores can be computed with.
        """
        stored = self.weights["logit_scale"].array()
        with np.errstate(over="ignore"):
            scale = np.exp(stored.astype(np.float64)).item() if stored.size == 1 else math.nan
        if not 0.0 < scale <= _LARGEST_LOGIT_SCALE:
            raise InvalidCheckpoint(
                f"{self.model}: its logit scale is {scale:g}, of {stored.size} numbers; it must be "
                f"one, above 0 and at most {_LARGEST_LOGIT_SCALE:g}."
            )
        return float(scale)

    @property
    def files(self) -> set[Path]:
        """The files that hold the weights; empty if the weights came from a pickle."""
        return set().union(*(tensor.files for tensor in self.weights.values()))

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that identify this checkpoint's embeddings.

        SHA-256 over architecture, preprocessing and every weight in float32, in an order and
        naming that do not depend on the layout it was read from.

        Raises:
            InvalidCheckpoint: a weight is not finite; every embedding would be NaN.
        """
        digest = hashlib.sha256()
        described = [_without_defaults(self.architecture), self.preprocessing.identity]
        digest.update(json.dumps(described, sort_keys=True).encode())
        for name in sorted(self.weights):
            values = np.ascontiguousarray(self.weights[name].array())
            if not np.isfinite(values).all():
                raise InvalidCheckpoint(f"{self.model}: its tensor {name} has NaN or infinity.")
            digest.update(f"{name} {values.shape}".encode())
            digest.update(values.data)
        return digest.hexdigest()[:16]


def read_description(path: Path) -> Any:
    """The content of a JSON file beside the weights.

    Raises:
        InvalidCheckpoint: it cannot be read, is not JSON, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_DESCRIPTION + 1)
    except OSError as failure:
        raise unreadable(path, failure) from failure
    check_not_a_pointer(path, content)
    try:
        if len(content) > _LARGEST_DESCRIPTION:
            raise ValueError(f"it has more than {_LARGEST_DESCRIPTION} bytes")
        return json.loads(content)
    except (ValueError, RecursionError) as malformed:  # the latter if it is nested too deeply
        raise InvalidCheckpoint(f"{path} is not valid JSON: {malformed}") from malformed


def unreadable(path: Path, failure: OSError) -> InvalidCheckpoint:
    """The error for a file or directory of a checkpoint that cannot be read."""
    if isinstance(failure, FileNotFoundError):
        return InvalidCheckpoint(f"{path} does not exist.")
    advice = ""
    if isinstance(failure, PermissionError):
        user = f"user {os.geteuid()}" if hasattr(os, "geteuid") else "the user"
        advice = (
            f" Allow {user}, which this process runs as, to read it and to enter the directories "
            "above it."
        )
    return InvalidCheckpoint(f"{path} cannot be read: {failure.strerror or failure}.{advice}")


def check_not_a_pointer(path: Path, beginning: bytes) -> None:
    """Refuse a Git LFS pointer, which a clone without Git LFS has instead of a large file.

    Args:
        path: of the file.
        beginning: its first bytes.

    Raises:
        InvalidCheckpoint: it is a Git LFS pointer.
    """
    if beginning.startswith(_LFS_POINTER):
        raise InvalidCheckpoint(
            f"{path} is a Git LFS pointer, not the file itself. Install git-lfs and run "
            f"`git lfs pull` in {path.parent}, or download the file."
        )


def check_servable(architecture: Mapping[str, Any], *, origin: str) -> None:
    """Refuse an architecture whose inputs differ from those that this service produces.

    Sizes that no machine has memory for, and anything that would be downloaded, are refused too,
    since the checkpoint may come from an untrusted source.

    Raises:
        InvalidCheckpoint: says what differs.
    """
    _check_numbers(architecture, origin=origin)
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
    timm = str(vision.get("timm_model_name") or "")
    if vision.get("timm_model_pretrained") or not re.fullmatch(r"[\w.]*", timm):
        raise InvalidCheckpoint(
            f"{origin}: its image tower would be fetched from a hub (timm_model_name {timm!r}); "
            "all weights must lie in the checkpoint."
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
    """The architecture's usual name, such as ``clip-vit-large-patch14``."""
    vision = architecture["vision_cfg"]
    patch = vision.get("patch_size")
    if isinstance(vision.get("layers"), int) and patch is not None:
        shape = (vision["width"], vision["layers"])
        sizes = {(768, 12): "base", (1024, 24): "large", (1280, 32): "huge"}
        size = sizes.get(shape, f"w{shape[0]}-l{shape[1]}")
        return f"clip-vit-{size}-patch{patch}"
    return f"clip-{vision.get('timm_model_name', 'resnet')}"


def _check_numbers(settings: Mapping[str, Any], *, origin: str) -> None:
    """Refuse sizes that are not numbers or are absurd, before memory is allocated for them."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            _check_numbers(value, origin=origin)
            continue
        if isinstance(value, list) and (not value or key in _LARGEST) and key != "layers":
            raise InvalidCheckpoint(f"{origin}: {key} is {str(value)[:40]}, not a number.")
        for number in value if isinstance(value, list) else [value]:
            _check_number(key, number, origin=origin)


def _check_number(key: str, number: object, *, origin: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float):
        if key in _LARGEST:
            raise InvalidCheckpoint(f"{origin}: {key} is {str(number)[:40]!r}, not a number.")
        return
    largest = _LARGEST.get(key, _LARGEST_NUMBER)
    large_enough = number > 0 if key in _LARGEST else number >= -largest
    if not (large_enough and number <= largest):  # true for NaN as well
        raise InvalidCheckpoint(
            f"{origin}: {key} is {str(number)[:40]}; it must be above 0 and at most {largest}."
        )


def _without_defaults(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture without settings that equal OpenCLIP's defaults: a stable fingerprint."""
    stripped: dict[str, Any] = {}
    for name, value in architecture.items():
        if isinstance(value, Mapping):
            usual = _DEFAULTS.get(name, {})
            stripped[name] = {k: v for k, v in value.items() if k not in usual or v != usual[k]}
        elif name not in _DEFAULTS[""] or value != _DEFAULTS[""][name]:
            stripped[name] = value
    return stripped
