"""Whether two sightings show the same person or vehicle."""

from dataclasses import dataclass
from typing import Final

from domain.embedding import Embedding
from domain.errors import InvalidThreshold

SAME_ENTITY_THRESHOLD: Final = 0.85
"""Smallest cosine at which two sightings count as the same, unless the client sets another."""


@dataclass(frozen=True, slots=True)
class Match:
    """Two sightings compared.

    Attributes:
        similarity: cosine in [-1, 1].
        threshold: smallest cosine at which they count as the same.
    """

    similarity: float
    threshold: float

    @property
    def same_entity(self) -> bool:
        """Whether the similarity reaches the threshold."""
        return self.similarity >= self.threshold


def check_match_threshold(threshold: float) -> None:
    """A cosine in [-1, 1].

    Raises:
        InvalidThreshold: it is outside of that range or not a number.
    """
    if not -1.0 <= threshold <= 1.0:  # false for NaN as well
        raise InvalidThreshold(
            f"threshold is {threshold:g}; it is a cosine and must be from -1 to 1."
        )


def match(one: Embedding, other: Embedding, *, threshold: float = SAME_ENTITY_THRESHOLD) -> Match:
    """Verification by a threshold on the cosine of two embeddings.

    Source: the standard verification protocol, e.g. Liu et al. 2017, SphereFace, arXiv:1704.08063,
    section 4.1. The default is this service's own; the right one depends on the model and the
    cameras.

    Raises:
        InvalidThreshold: as `check_match_threshold` says.
    """
    check_match_threshold(threshold)
    return Match(similarity=one.cosine(other), threshold=threshold)
