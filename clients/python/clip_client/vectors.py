"""Embeddings and the two things that are computed with them without asking the server."""

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from clip_client.errors import FingerprintMismatch, InvalidInput


class Embedding(list[float]):
    """A unit vector that remembers which checkpoint it came from.

    It is a list of floats and goes wherever one does: JSON, NumPy, a vector database.

    Attributes:
        fingerprint: the checkpoint's ``X-Model-Fingerprint``; keep it beside the vector, for
            embeddings with different fingerprints must never be compared. None if it is not known.
    """

    def __init__(self, numbers: Sequence[float], *, fingerprint: str | None = None) -> None:
        super().__init__(numbers)
        self.fingerprint = fingerprint


class NumberArray(Protocol):
    """A NumPy array, without NumPy: one-dimensional ones are vectors, others are images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> Any:
        """Type of the elements."""

    def tolist(self) -> Any:
        """The elements as Python's own numbers, nested."""

    def tobytes(self) -> bytes:
        """The elements' bytes in C order."""


Vector: TypeAlias = Sequence[float] | NumberArray
"""An `Embedding`, any other sequence of numbers, or a one-dimensional array."""


def is_vector(candidate: object) -> bool:
    """Whether it is meant as an embedding (else as an image)."""
    if isinstance(candidate, str | bytes | bytearray | memoryview):
        return False
    shape = getattr(candidate, "shape", None)
    if shape is not None:
        return len(shape) == 1
    return isinstance(candidate, Sequence)


def numbers_of(vector: Vector) -> list[float]:
    """The components as floats.

    Raises:
        InvalidInput: it has none, or one that is no finite number.
    """
    elements = vector if isinstance(vector, Sequence) else vector.tolist()
    try:
        numbers = [float(element) for element in elements]
    except (TypeError, ValueError):
        raise InvalidInput(f"an embedding holds numbers only; this is {_kind(vector)}.") from None
    if not numbers:
        raise InvalidInput("the embedding is empty.")
    for place, number in enumerate(numbers):
        if not math.isfinite(number):
            raise InvalidInput(f"the embedding's component {place} is {number}; it must be finite.")
    return numbers


def fingerprint_of(vectors: Sequence[object]) -> str | None:
    """The checkpoint that the embeddings among these came from, as far as they remember.

    Raises:
        FingerprintMismatch: they came from different ones.
    """
    known = dict.fromkeys(
        vector.fingerprint
        for vector in vectors
        if isinstance(vector, Embedding) and vector.fingerprint is not None
    )
    if len(known) > 1:
        raise FingerprintMismatch(
            f"these embeddings come from different checkpoints ({', '.join(known)}); "
            "embed the images again with one of them."
        )
    return next(iter(known), None)


def cosine_similarity(a: Vector, b: Vector) -> float:
    """Cosine of the angle between two vectors, in [-1, 1]; 0 if one of them is zero.

    Raises:
        InvalidInput: their lengths differ, or one holds something that is no finite number.
        FingerprintMismatch: they come from different checkpoints.
    """
    fingerprint_of([a, b])
    left, right = _units([a, b])
    return min(max(math.fsum(x * y for x, y in zip(left, right, strict=True)), -1.0), 1.0)


def average_embedding(embeddings: Sequence[Vector]) -> Embedding:
    """Average on the sphere: each vector at length one, their mean, at length one again.

    This is how CLIP averages prompts (Radford et al. 2021, arXiv:2103.00020, section 3.1.4) and
    what the server's ``/baseline`` does with frames.

    Raises:
        InvalidInput: there are none, their lengths differ, they cancel out, or one holds something
            that is no finite number.
        FingerprintMismatch: they come from different checkpoints.
    """
    fingerprint = fingerprint_of(embeddings)
    units = _units(embeddings)
    (mean,) = _units([[math.fsum(column) / len(units) for column in zip(*units, strict=True)]])
    if not any(mean):
        raise InvalidInput("the embeddings cancel out; their average has no direction.")
    return Embedding(mean, fingerprint=fingerprint)


def _units(vectors: Sequence[Vector]) -> list[list[float]]:
    """Each vector at length one; the zero vector as it is."""
    all_numbers = [numbers_of(vector) for vector in vectors]
    lengths = sorted({len(numbers) for numbers in all_numbers})
    if len(lengths) != 1:
        raise InvalidInput(
            "embeddings of one length are needed; "
            f"these have {' and '.join(map(str, lengths))} numbers."
            if lengths
            else "no embeddings were given."
        )
    units = []
    for numbers in all_numbers:
        # hypot scales before it squares, so that long and short vectors neither over- nor
        # underflow.
        norm = math.hypot(*numbers) or 1.0
        units.append([number / norm for number in numbers])
    return units


def _kind(candidate: object) -> str:
    return type(candidate).__name__
