"""A checkpoint in the form that encoders use; the readers of all layouts return it."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters.models import preprocessing, tokenization
from adapters.models.architecture import (
    Family,
    architecture_name,
    family_of,
    image_size_of,
    without_defaults,
)
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.preprocessing import Preprocessing
from adapters.models.tensors import Tensor
from adapters.models.tokenization import Tokenization

_LARGEST_LOGIT_SCALE: Final = 1000.0
"""CLIP's own is clipped at 100."""


@dataclass(frozen=True, slots=True)
class Described:
    """All of a checkpoint except its weights; see `Checkpoint`."""

    architecture: Mapping[str, Any]
    preprocessing: Preprocessing
    tokenization: Tokenization

    @property
    def embedding_dimension(self) -> int:
        """Floats per embedding."""
        return int(self.architecture["embed_dim"])

    def with_weights(
        self, weights: Mapping[str, Tensor], *, model: str | None = None
    ) -> "Checkpoint":
        """The complete checkpoint.

        Args:
            weights: OpenCLIP's state dict.
            model: the name to show; None: from the architecture.
        """
        name = model or architecture_name(self.architecture)
        return Checkpoint(name, self.architecture, weights, self.preprocessing, self.tokenization)


def check_size(
    preprocessing: Preprocessing, architecture: Mapping[str, Any], *, origin: str
) -> None:
    """Refuse a checkpoint whose preprocessing does not match its image tower's input size.

    Raises:
        InvalidCheckpoint: says both sizes.
    """
    made, taken = preprocessing.image_input.size, image_size_of(architecture)
    if made != taken:
        raise InvalidCheckpoint(
            f"{origin} says that images are made {made} x {made} pixels large, but the image tower "
            f"takes {taken} x {taken}."
        )


@dataclass(frozen=True)
class Checkpoint:
    """Weights and architecture of both towers.

    Attributes:
        model: the name to show, e.g. ``clip-vit-large-patch14``.
        architecture: OpenCLIP's ``model_cfg``.
        weights: OpenCLIP's state dict.
        preprocessing: how a picture becomes the image tower's input.
        tokenization: how a text becomes the text tower's input.
    """

    model: str
    architecture: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    preprocessing: Preprocessing = preprocessing.CLIPS_OWN
    tokenization: Tokenization = tokenization.CLIPS_OWN

    @property
    def family(self) -> Family:
        """The family of its towers."""
        return family_of(self.architecture)

    @property
    def embedding_dimension(self) -> int:
        """Floats per embedding."""
        return int(self.architecture["embed_dim"])

    @property
    def logit_scale(self) -> float:
        """The multiplier of cosines in a classification: exp of the stored parameter.

        Raises:
            InvalidCheckpoint: it is not a usable number.
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
    def logit_bias(self) -> float | None:
        """Added to a scaled cosine before the sigmoid; None: trained without one.

        Raises:
            InvalidCheckpoint: it is not one number.
        """
        if (tensor := self.weights.get("logit_bias")) is None:
            return None
        stored = tensor.array()
        if stored.size != 1 or not np.isfinite(stored).all():
            raise InvalidCheckpoint(
                f"{self.model}: its logit bias must be one finite number; it has {stored.size}."
            )
        return float(stored.item())

    @property
    def files(self) -> set[Path]:
        """The weights files; empty if the weights came from a pickle."""
        return set().union(*(tensor.files for tensor in self.weights.values()))

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that identify this checkpoint's embeddings.

        SHA-256 over architecture, preprocessing, tokenizer and every weight in float32, in an order
        and with names that do not depend on the checkpoint's layout.

        Raises:
            InvalidCheckpoint: a weight is not finite; every embedding would be NaN.
        """
        digest = hashlib.sha256()
        described = [without_defaults(self.architecture), self.preprocessing.identity]
        if not self.tokenization.is_clips:
            described.append(self.tokenization.identity)
        digest.update(json.dumps(described, sort_keys=True).encode())
        for name in sorted(self.weights):
            values = np.ascontiguousarray(self.weights[name].array())
            if not np.isfinite(values).all():
                raise InvalidCheckpoint(f"{self.model}: its tensor {name} has NaN or infinity.")
            digest.update(f"{name} {values.shape}".encode())
            digest.update(values.data)
        return digest.hexdigest()[:16]
