"""The embedding: a vector of length one, and the cosine between two of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from domain.errors import EncoderFault, InvalidBaseline, InvalidEmbedding
from domain.limits import SMALLEST_COSINE

Vector: TypeAlias = NDArray[np.float32]
"""One-dimensional float32 array."""

_SAFE_LENGTHS: Final = (1e-140, 1e140)
"""Between these lengths, squares of components do not over- or underflow much in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A point on the unit sphere, as a CLIP tower returns it.

    Attributes:
        vector: float32 ``[dimension]`` with L2 norm 1 (to float32 precision), not writeable.
    """

    vector: Vector

    @classmethod
    def from_encoder(cls, raw: NDArray[np.floating]) -> Self:
        """Normalise an encoder's output. This is the service's only L2 normalisation.

        Args:
            raw: ``[dimension]``, any float dtype, any length but zero.

        Raises:
            EncoderFault: a number is not finite, or the vector is zero and so has no direction.
        """
        unit = _unit(raw)
        if unit is None:
            raise EncoderFault("the encoder returned a vector that is zero or not finite")
        return cls(unit)

    @classmethod
    def from_numbers(cls, numbers: Sequence[float], *, dimension: int, name: str) -> Self:
        """Check and normalise an embedding that a client sent.

        Args:
            numbers: the components; any length but zero is normalised away.
            dimension: how many there must be.
            name: the client's name for it.

        Raises:
            InvalidEmbedding: wrong count, a number that is NaN or infinite, or all are zero.
        """
        components = _checked(
            numbers, dimension=dimension, name=name, kind="embedding", error=InvalidEmbedding
        )
        unit = _unit(components)
        if unit is None:
            raise InvalidEmbedding(
                f"{name} is all zeros and so has no direction; no image has such an embedding.",
                code="embedding_zero",
            )
        return cls(unit)

    @property
    def dimension(self) -> int:
        """Number of components."""
        return int(self.vector.shape[0])

    def cosine(self, other: "Embedding") -> float:
        """Cosine of the angle to ``other``, in [-1, 1]: the dot product of two unit vectors."""
        return _clamp(float(np.dot(self.vector, other.vector)), -1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A reference embedding from a client, to compare images with.

    Unlike an `Embedding` it may be the zero vector, which is similar to nothing.

    Attributes:
        direction: the unit vector, or None for the zero vector.
    """

    direction: Embedding | None

    @classmethod
    def from_numbers(cls, numbers: Sequence[float], *, dimension: int) -> Self:
        """Check and normalise a client's numbers.

        Args:
            numbers: the components; any length but zero is normalised away.
            dimension: how many there must be.

        Raises:
            InvalidBaseline: wrong count, or a number that is NaN or infinite.
        """
        components = _checked(
            numbers,
            dimension=dimension,
            name="baseline_embedding",
            kind="baseline",
            error=InvalidBaseline,
        )
        unit = _unit(components)
        return cls(None if unit is None else Embedding(unit))

    def cosine(self, embedding: Embedding) -> float:
        """Cosine in [-1, 1]; 0 for the zero baseline."""
        return 0.0 if self.direction is None else self.direction.cosine(embedding)


def mean_embedding(embeddings: Sequence[Embedding]) -> Embedding:
    """Average on the sphere: the arithmetic mean, renormalised.

    This is how CLIP ensembles prompts (Radford et al. 2021, arXiv:2103.00020, section 3.1.4).

    Raises:
        EncoderFault: the embeddings cancel out, so that their mean has no direction.
    """
    stacked = np.stack([embedding.vector for embedding in embeddings])
    return Embedding.from_encoder(stacked.astype(np.float64).mean(axis=0))


def _checked(
    numbers: Sequence[float],
    *,
    dimension: int,
    name: str,
    kind: str,
    error: type[InvalidEmbedding],
) -> NDArray[np.float64]:
    """The numbers as float64 ``[dimension]``; the code of an error begins with ``kind``."""
    if len(numbers) != dimension:
        raise error(
            f"{name} has {len(numbers)} numbers; it must have exactly {dimension}.",
            code=f"{kind}_wrong_length",
        )
    components = np.asarray(numbers, dtype=np.float64)
    if not np.isfinite(components).all():
        position = int(np.flatnonzero(~np.isfinite(components))[0])
        raise error(
            f"{name}[{position}] is {components[position]}; every number must be finite.",
            code=f"{kind}_not_finite",
        )
    return components


def smallest_cosine(these: Sequence[Embedding], those: Sequence[Embedding]) -> float:
    """The smallest cosine between two encoders' embeddings of the same inputs."""
    return min(one.cosine(other) for one, other in zip(these, those, strict=True))


def agrees(these: Sequence[Embedding], those: Sequence[Embedding]) -> bool:
    """Whether two encoders' embeddings of the same inputs differ by no more than rounding.

    The smallest cosine must be above `SMALLEST_COSINE`; an equal one is too low.
    """
    return smallest_cosine(these, those) > SMALLEST_COSINE


def _unit(raw: NDArray[np.floating]) -> Vector | None:
    """``raw`` scaled to length one in float32; None when zero or not finite."""
    wide = np.asarray(raw, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        length = math.sqrt(wide @ wide)
    if not _SAFE_LENGTHS[0] < length < _SAFE_LENGTHS[1]:  # nor is NaN
        largest = float(np.max(np.abs(wide), initial=0.0))
        if not math.isfinite(largest) or largest == 0.0:
            return None
        # The squares have over- or underflown: smaller numbers have the same direction.
        wide = wide / largest
        length = math.sqrt(wide @ wide)
    unit = (wide / length).astype(np.float32)
    unit.flags.writeable = False
    return unit


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
