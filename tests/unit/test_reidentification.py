"""Whether two sightings show the same."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.anomaly import check_anomaly_threshold, score_against
from domain.embedding import Baseline, Embedding
from domain.errors import InvalidEmbedding, InvalidThreshold
from domain.reidentification import match

angles = st.floats(min_value=-np.pi, max_value=np.pi)


def at(angle: float) -> Embedding:
    return Embedding.from_encoder(np.array([np.cos(angle), np.sin(angle)]))


@given(angles, angles, st.floats(min_value=-1.0, max_value=1.0))
def test_same_from_the_threshold_on_and_symmetric(one: float, other: float, limit: float) -> None:
    result = match(at(one), at(other), threshold=limit)
    assert result.similarity == pytest.approx(math.cos(one - other), abs=1e-6)
    assert result.same_entity is (result.similarity >= limit)
    assert match(at(other), at(one), threshold=limit) == result


@given(angles)
def test_everything_is_the_same_as_itself(angle: float) -> None:
    assert match(at(angle), at(angle)).same_entity


def test_085_unless_said_otherwise() -> None:
    assert match(at(0.0), at(math.acos(0.86))).same_entity
    assert not match(at(0.0), at(math.acos(0.84))).same_entity
    assert match(at(0.0), at(math.acos(0.84)), threshold=0.8).same_entity


@pytest.mark.parametrize("threshold", [1.01, -1.01, math.nan, math.inf])
def test_a_threshold_that_is_no_cosine(threshold: float) -> None:
    with pytest.raises(InvalidThreshold, match="from -1 to 1"):
        match(at(0.0), at(0.0), threshold=threshold)


@pytest.mark.parametrize("threshold", [1.01, -0.01, math.nan])
def test_a_threshold_that_is_no_anomaly_score(threshold: float) -> None:
    with pytest.raises(InvalidThreshold, match="from 0 to 1"):
        check_anomaly_threshold(threshold)


def test_an_anomaly_is_above_its_threshold_and_not_at_it() -> None:
    baseline = Baseline.from_numbers([1.0, 0.0], dimension=2)
    right_angle = at(math.pi / 2)
    assert score_against(baseline, right_angle).over_threshold is None
    assert score_against(baseline, right_angle, threshold=0.9).over_threshold is True
    assert score_against(baseline, right_angle, threshold=1.0).over_threshold is False


@pytest.mark.parametrize(
    ("numbers", "code", "detail"),
    [
        ([1.0], "embedding_wrong_length", "embedding_b has 1 numbers.*exactly 2"),
        ([1.0, math.nan], "embedding_not_finite", r"embedding_b\[1\] is nan"),
        ([0.0, 0.0], "embedding_zero", "embedding_b is all zeros"),
    ],
)
def test_embeddings_that_no_image_has(numbers: list[float], code: str, detail: str) -> None:
    with pytest.raises(InvalidEmbedding, match=detail) as caught:
        Embedding.from_numbers(numbers, dimension=2, name="embedding_b")
    assert caught.value.code == code


def test_an_embedding_that_was_sent_is_normalised() -> None:
    sent = Embedding.from_numbers([3e200, 4e200], dimension=2, name="embedding_a")
    assert sent.vector == pytest.approx([0.6, 0.8])
