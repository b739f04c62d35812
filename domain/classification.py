"""Zero-shot classification: which label's text lies nearest to the image."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from domain.embedding import Embedding


@dataclass(frozen=True, slots=True)
class Classification:
    """Scores of one image.

    Attributes:
        scores: label → probability, in the order the labels were given; they sum to 1.
        top_label: the label with the highest score (the earlier one on a tie).
    """

    scores: dict[str, float]
    top_label: str


def classify(
    image: Embedding, labels: Mapping[str, Embedding], *, logit_scale: float
) -> Classification:
    """softmax(logit_scale x cosine) over the labels.

    Source: Radford et al. 2021, arXiv:2103.00020, figure 3 and section 3.1.2.

    Args:
        image: the image's embedding.
        labels: at least one label with its text embedding.
        logit_scale: the multiplier itself (exp of the checkpoint's ``logit_scale``), about 100.
    """
    cosines = np.array([image.cosine(text) for text in labels.values()], dtype=np.float64)
    logits = logit_scale * cosines
    # The largest logit is subtracted so that exp cannot overflow; the quotient is unchanged.
    weights = np.exp(logits - logits.max())
    probabilities = weights / weights.sum()
    names = list(labels)
    return Classification(
        scores=dict(zip(names, probabilities.tolist(), strict=True)),
        top_label=names[int(probabilities.argmax())],
    )
