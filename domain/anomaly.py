"""How far a scene has moved from its baseline."""

from dataclasses import dataclass

from domain.embedding import Baseline, Embedding
from domain.errors import InvalidThreshold


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A scene compared with its baseline.

    Attributes:
        score: in [0, 1]; 0 is "as always", 1 "nothing in common".
        similarity: cosine in [-1, 1].
        over_threshold: whether the score is above the threshold; None without a threshold.
    """

    score: float
    similarity: float
    over_threshold: bool | None = None


def check_anomaly_threshold(threshold: float) -> None:
    """An anomaly score in [0, 1].

    Raises:
        InvalidThreshold: it is outside of that range or not a number.
    """
    if not 0.0 <= threshold <= 1.0:  # false for NaN as well
        raise InvalidThreshold(
            f"threshold is {threshold:g}; it is an anomaly score and must be from 0 to 1."
        )


def score_against(
    baseline: Baseline, embedding: Embedding, *, threshold: float | None = None
) -> Anomaly:
    """clamp(1 - cosine, 0, 1), the contract's anomaly score. A zero baseline scores 1.

    Args:
        baseline: how the scene usually looks.
        embedding: how it looks now.
        threshold: the score above which it is an anomaly; None: do not decide.
    """
    similarity = baseline.cosine(embedding)
    score = min(max(1.0 - similarity, 0.0), 1.0)
    return Anomaly(
        score=score,
        similarity=similarity,
        over_threshold=None if threshold is None else score > threshold,
    )
