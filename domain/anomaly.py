"""How far a scene has moved from its baseline."""

from dataclasses import dataclass

from domain.embedding import Baseline, Embedding


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A scene compared with its baseline.

    Attributes:
        score: in [0, 1]; 0 is "as always", 1 "nothing in common".
        similarity: cosine in [-1, 1].
    """

    score: float
    similarity: float


def score_against(baseline: Baseline, embedding: Embedding) -> Anomaly:
    """clamp(1 - cosine, 0, 1), the contract's anomaly score. A zero baseline scores 1."""
    similarity = baseline.cosine(embedding)
    return Anomaly(score=min(max(1.0 - similarity, 0.0), 1.0), similarity=similarity)
