"""Zero-shot classification: which label's text lies nearest to the image."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from domain.embedding import Embedding
from domain.errors import InvalidScore


class Score(StrEnum):
    """How cosines become probabilities."""

    SOFTMAX = "softmax"
    """Which label fits best: the labels compete, and their scores sum to 1."""
    SIGMOID = "sigmoid"
    """Whether each label fits, independently of the others; for models with a logit bias."""

    @classmethod
    def named(cls, name: str) -> "Score":
        """The score called ``name``.

        Raises:
            InvalidScore: there is no score of that name.
        """
        try:
            return cls(name)
        except ValueError:
            raise InvalidScore(
                f"score {name[:100]!r} is not known; it must be one of {', '.join(cls)}."
            ) from None


@dataclass(frozen=True, slots=True)
class Classification:
    """Scores of one image.

    Attributes:
        scores: label → probability, in the order the labels were given.
        top_label: the label with the highest score (the earlier one on a tie).
    """

    scores: dict[str, float]
    top_label: str


def classify(
    image: Embedding,
    labels: Mapping[str, Embedding],
    *,
    logit_scale: float,
    logit_bias: float | None = None,
    score: Score = Score.SOFTMAX,
) -> Classification:
    """softmax(logit_scale x cosine) over the labels, or sigmoid(logit_scale x cosine + logit_bias).

    Sources: Radford et al. 2021, arXiv:2103.00020, figure 3 and section 3.1.2; Zhai et al. 2023,
    arXiv:2303.15343, algorithm 1.

    Args:
        image: the image's embedding.
        labels: at least one label with its text embedding.
        logit_scale: the multiplier itself (exp of the checkpoint's ``logit_scale``), about 100.
        logit_bias: the checkpoint's, about -10 to -17; None if it was trained without one.
        score: which of the two.

    Raises:
        InvalidScore: the sigmoid, and there is no logit bias (code ``no_logit_bias``).
    """
    check_score(score, logit_bias)
    cosines = np.array([image.cosine(text) for text in labels.values()], dtype=np.float64)
    logits = logit_scale * cosines
    # A bias shifts all labels alike, and so changes no softmax.
    probabilities = (
        _softmax(logits) if score is Score.SOFTMAX else _sigmoid(logits + (logit_bias or 0.0))
    )
    names = list(labels)
    return Classification(
        scores=dict(zip(names, probabilities.tolist(), strict=True)),
        top_label=names[int(logits.argmax())],
    )


def check_score(score: Score, logit_bias: float | None) -> None:
    """Refuse the sigmoid for a model that was trained without it.

    Raises:
        InvalidScore: there is no logit bias (code ``no_logit_bias``).
    """
    if score is Score.SIGMOID and logit_bias is None:
        raise InvalidScore(
            "score is 'sigmoid', and the loaded model has no logit bias: it was trained with a "
            "softmax. Use 'softmax', or a SigLIP model.",
            code="no_logit_bias",
        )


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    # The largest logit is subtracted so that exp cannot overflow; the quotient is unchanged.
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    # exp is only taken of numbers that are not positive, so that it cannot overflow.
    weights = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, weights) / (1.0 + weights)
