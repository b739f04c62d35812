"""Anomaly scores and classification."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.anomaly import score_against
from domain.classification import Score, classify
from domain.embedding import Baseline, Embedding
from domain.errors import InvalidScore

angles = st.floats(min_value=-np.pi, max_value=np.pi)


def at(angle: float) -> Embedding:
    return Embedding.from_encoder(np.array([np.cos(angle), np.sin(angle)]))


@given(angles)
def test_anomaly_is_one_minus_cosine_clamped(angle: float) -> None:
    anomaly = score_against(Baseline.from_numbers([1.0, 0.0], dimension=2), at(angle))
    assert anomaly.similarity == pytest.approx(np.cos(angle), abs=1e-6)
    assert anomaly.score == min(max(1.0 - anomaly.similarity, 0.0), 1.0)
    assert 0.0 <= anomaly.score <= 1.0


@given(angles, angles)
def test_anomaly_grows_as_similarity_falls(one: float, other: float) -> None:
    baseline = Baseline.from_numbers([1.0, 0.0], dimension=2)
    a, b = score_against(baseline, at(one)), score_against(baseline, at(other))
    if a.similarity < b.similarity:
        assert a.score >= b.score


def test_zero_baseline_scores_one() -> None:
    anomaly = score_against(Baseline.from_numbers([0.0, 0.0], dimension=2), at(0.3))
    assert (anomaly.score, anomaly.similarity) == (1.0, 0.0)


@given(st.lists(angles, min_size=1, max_size=20), st.floats(min_value=0.1, max_value=100.0))
def test_scores_sum_to_one(label_angles: list[float], logit_scale: float) -> None:
    labels = {str(place): at(angle) for place, angle in enumerate(label_angles)}
    result = classify(at(0.0), labels, logit_scale=logit_scale)
    assert sum(result.scores.values()) == pytest.approx(1.0)
    assert result.scores[result.top_label] == max(result.scores.values())
    assert list(result.scores) == list(labels)


@given(st.permutations(list(range(6))))
def test_order_of_labels_changes_nothing(order: list[int]) -> None:
    labels = {str(place): at(place / 3) for place in range(6)}
    expected = classify(at(0.4), labels, logit_scale=100.0)
    shuffled = classify(
        at(0.4), {str(place): labels[str(place)] for place in order}, logit_scale=100.0
    )
    assert shuffled.top_label == expected.top_label
    assert shuffled.scores == pytest.approx(expected.scores)


@given(
    st.lists(angles, min_size=1, max_size=20),
    st.floats(min_value=0.1, max_value=1000.0),
    st.floats(min_value=-1000.0, max_value=1000.0),
)
def test_each_sigmoid_stands_alone(
    label_angles: list[float], logit_scale: float, logit_bias: float
) -> None:
    labels = {str(place): at(angle) for place, angle in enumerate(label_angles)}
    options = {"logit_scale": logit_scale, "logit_bias": logit_bias}
    together = classify(at(0.0), labels, score=Score.SIGMOID, **options)
    for label, text in labels.items():
        alone = classify(at(0.0), {label: text}, score=Score.SIGMOID, **options).scores[label]
        assert together.scores[label] == alone
        logit = logit_scale * at(0.0).cosine(text) + logit_bias
        with np.errstate(over="ignore"):
            assert alone == pytest.approx(float(1 / (1 + np.exp(-logit))), abs=1e-12)
    assert together.top_label == classify(at(0.0), labels, logit_scale=logit_scale).top_label


def test_a_sigmoid_needs_a_bias() -> None:
    with pytest.raises(InvalidScore, match="no logit bias") as caught:
        classify(at(0.0), {"a": at(0.1)}, logit_scale=100.0, score=Score.SIGMOID)
    assert caught.value.code == "no_logit_bias"


def test_logit_scale_sharpens() -> None:
    labels = {"near": at(0.1), "far": at(0.5)}
    flat = classify(at(0.0), labels, logit_scale=1.0)
    sharp = classify(at(0.0), labels, logit_scale=100.0)
    assert flat.scores["near"] == pytest.approx(0.529, abs=1e-3)
    assert sharp.scores["near"] > 0.9999
