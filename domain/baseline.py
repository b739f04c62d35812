"""What a scene usually looks like: the mean of its frames, and how they lie around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from domain.counts import check_frame_count
from domain.embedding import Embedding
from domain.errors import InvalidFrames

FEWEST_FRAMES_FOR_A_THRESHOLD: Final = 5
"""Frames below which nothing is suggested.

In simulations of normal scenes, 5 frames gave a threshold that 2 to 4 in 100 new normal frames
exceeded, 10 gave 1 to 2 in 100, 20 fewer than 1; 3 gave up to 10, and 2 frames say nothing about
how far frames scatter.
"""

SMALLEST_THRESHOLD: Final = 0.01
"""Anomaly score below which nothing is suggested.

Another backend or precision may move the embedding of the very same image by that much (their
cosine is only promised to be above 0.99), so that a smaller one would call that an anomaly.
"""

_DEVIATIONS: Final = 3.0
"""How far out in the scores' distribution: three standard normal deviations, as in Shewhart's
control charts; one false alarm in 741 frames if the distribution were known exactly."""

_LEAST_RESULTANT: Final = 1e-6
"""Length of the mean below which its direction is nothing but float32's rounding errors."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Cosines of the frames and their mean.

    Attributes:
        mean: equals the frames' mean resultant length R, the usual measure of concentration on a
            sphere: 1 if all are the same (Mardia & Jupp 2000, Directional Statistics, section
            9.2; 1 - R is the spherical variance, and here the frames' mean anomaly score).
        deviation: sample standard deviation; None for a single frame.
        lowest: the frame farthest off.
        highest: the frame closest.
    """

    mean: float
    deviation: float | None
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class SceneBaseline:
    """A scene as it usually looks.

    Attributes:
        embedding: the mean direction of the frames.
        count: how many frames.
        spread: how they lie around it.
        suggested_threshold: anomaly score above which a frame is unlike these; None where there
            are too few to tell.
    """

    embedding: Embedding
    count: int
    spread: Spread
    suggested_threshold: float | None


def baseline_of(frames: Sequence[Embedding]) -> SceneBaseline:
    """The frames' mean direction, their spread, and a threshold for what is unlike them.

    Source of the mean direction: Mardia & Jupp 2000, section 9.2.1. The threshold is
    `_suggested_threshold`'s.

    Args:
        frames: 1 to `MAX_FRAMES` embeddings.

    Raises:
        InvalidFrames: none, too many, or they cancel out, so that their mean has no direction.
    """
    check_frame_count(len(frames))
    vectors = np.stack([frame.vector for frame in frames]).astype(np.float64)
    mean = vectors.mean(axis=0)
    if np.linalg.norm(mean) < _LEAST_RESULTANT:
        raise InvalidFrames(
            f"the {len(frames)} frames cancel out: their mean has no direction, so they cannot be "
            "one scene.",
            code="frames_cancel_out",
        )
    direction = Embedding.from_encoder(mean)
    cosines = np.clip(vectors @ direction.vector, -1.0, 1.0)
    return SceneBaseline(
        embedding=direction,
        count=len(frames),
        spread=Spread(
            mean=float(cosines.mean()),
            deviation=float(cosines.std(ddof=1)) if len(frames) > 1 else None,
            lowest=float(cosines.min()),
            highest=float(cosines.max()),
        ),
        suggested_threshold=_suggested_threshold(vectors),
    )


def _suggested_threshold(vectors: NDArray[np.float64]) -> float | None:
    """Three deviations out in the distribution of a new normal frame's anomaly score.

    The score 1 - cosine is half the squared distance of two unit vectors. Squared distances from
    a model are distributed about as g x chi-squared with h degrees of freedom, matched to their
    mean m and variance v by g = v / 2m, h = 2m^2 / v (Box 1954; for control limits: Nomikos &
    MacGregor 1995, Technometrics 37(1), pages 41-59). The quantile at z standard normal
    deviations of that is, by Wilson & Hilferty 1931,

        m (1 - c^2 + z c)^3   with   c = sqrt(v) / 3m.

    m and v are those of each frame's score against the mean of the others: against a mean that
    holds the frame itself, scores would be too low.

    Args:
        vectors: float64 ``[n, dimension]``, unit rows.

    Returns:
        A score in [`SMALLEST_THRESHOLD`, 1], or None for fewer than
        `FEWEST_FRAMES_FOR_A_THRESHOLD` frames.
    """
    if len(vectors) < FEWEST_FRAMES_FOR_A_THRESHOLD:
        return None
    scores = _scores_against_the_others(vectors)
    mean = float(scores.mean())
    if mean == 0.0:
        return SMALLEST_THRESHOLD
    # Beyond z / 2 (one frame far off among many alike) the approximation would fall again.
    relative = min(float(scores.std(ddof=1)) / (3.0 * mean), _DEVIATIONS / 2.0)
    quantile = mean * (1.0 - relative**2 + _DEVIATIONS * relative) ** 3
    return min(max(quantile, SMALLEST_THRESHOLD), 1.0)


def _scores_against_the_others(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Anomaly score of each row against the mean of all other rows; float64 ``[n]`` in [0, 1]."""
    total = vectors.sum(axis=0)
    own = np.einsum("nd,nd->n", vectors, vectors)
    towards_total = vectors @ total
    # |total - row| and row . (total - row), without forming n sums of n - 1 rows.
    lengths = np.sqrt(np.maximum(total @ total - 2.0 * towards_total + own, 0.0))
    cosines = np.zeros_like(lengths)
    np.divide(towards_total - own, lengths, out=cosines, where=lengths > _LEAST_RESULTANT)
    scores: NDArray[np.float64] = np.clip(1.0 - cosines, 0.0, 1.0)
    return scores
