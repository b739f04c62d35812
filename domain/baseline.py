"""How a scene usually looks: the mean of its frames, and how they spread around it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from domain.counts import check_frame_count
from domain.embedding import Embedding
from domain.errors import InvalidFrames
from domain.limits import FEWEST_FRAMES_FOR_A_THRESHOLD

SMALLEST_THRESHOLD: Final = 0.01
"""The smallest threshold that is suggested.

Another backend or precision may change the embedding of the same image by this much (only a cosine
above 0.99 is promised). With a smaller threshold, that change would count as an anomaly.
"""

_DEVIATIONS: Final = 3.0
"""How far out the threshold lies, in standard normal deviations. As in Shewhart's control charts:
one false alarm in 741 frames."""

_LEAST_RESULTANT: Final = 1e-6
"""If the mean is shorter than this, its direction is only float32's rounding errors."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Cosines of the frames and their mean.

    Attributes:
        mean: equals the frames' mean resultant length R, the usual measure of concentration on a
            sphere: 1 if all are the same (Mardia & Jupp 2000, Directional Statistics, section
            9.2; 1 - R is the spherical variance, and here the frames' mean anomaly score).
        deviation: sample standard deviation; None for a single frame.
        lowest: that of the frame farthest from the mean.
        highest: that of the closest frame.
    """

    mean: float
    deviation: float | None
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class SceneBaseline:
    """How a scene usually looks.

    Attributes:
        embedding: the mean direction of the frames.
        count: how many frames.
        spread: how they spread around the mean.
        suggested_threshold: anomaly score above which a frame is unlike these; None if there are
            too few frames to tell.
    """

    embedding: Embedding
    count: int
    spread: Spread
    suggested_threshold: float | None


def baseline_of(frames: Sequence[Embedding]) -> SceneBaseline:
    """The frames' mean direction, their spread, and a threshold for unusual frames.

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
    """The score that one more normal frame exceeds about as rarely as a three-sigma limit.

    The score 1 - cosine is half the squared distance of two unit vectors. Such distances from a
    model are distributed about as a multiple of chi-squared (Box 1954; so for control limits:
    Nomikos & MacGregor 1995, Technometrics 37(1), pages 41-59), whose cube root is about normal
    (Wilson & Hilferty 1931). Of n cube roots with mean m and standard deviation s, the upper
    prediction bound for one more is

        m + t s sqrt(1 + 1/n)

    with t Student's quantile for n - 1 degrees of freedom (Hahn & Meeker 1991, Statistical
    Intervals, section 4.7): the fewer frames, the more room. The bound cubed is the threshold.

    The scores are each frame's against the mean of the others: against a mean that holds the
    frame itself, they would be too low.

    Args:
        vectors: float64 ``[n, dimension]``, unit rows.

    Returns:
        A score in [`SMALLEST_THRESHOLD`, 1], or None for fewer than
        `FEWEST_FRAMES_FOR_A_THRESHOLD` frames.
    """
    count = len(vectors)
    if count < FEWEST_FRAMES_FOR_A_THRESHOLD:
        return None
    roots = np.cbrt(scores_against_the_others(vectors))
    room = _student_quantile(_DEVIATIONS, count - 1) * math.sqrt(1.0 + 1.0 / count)
    bound = float(roots.mean() + room * roots.std(ddof=1))
    return min(max(bound**3, SMALLEST_THRESHOLD), 1.0)


def _student_quantile(z: float, freedom: int) -> float:
    """Student's quantile at the probability of the standard normal quantile ``z``.

    Source: Abramowitz & Stegun 1964, 26.7.5, four terms; for z = 3 within 3 % at 4 degrees of
    freedom and within 0.1 % from 9 on.
    """
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def scores_against_the_others(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
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
