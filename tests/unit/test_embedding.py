"""The unit vector, the cosine, and the baseline that a client sends."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from domain.embedding import Baseline, Embedding, mean_embedding
from domain.errors import EncoderFault, InvalidBaseline

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
vectors = arrays(np.float64, 8, elements=finite).filter(lambda v: bool(np.any(v != 0)))


def embedding(*components: float) -> Embedding:
    return Embedding.from_encoder(np.array(components, dtype=np.float32))


@given(vectors)
def test_every_finite_vector_but_zero_becomes_a_unit_vector(raw: np.ndarray) -> None:
    vector = Embedding.from_encoder(raw).vector
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_an_embedding(bad: float) -> None:
    with pytest.raises(EncoderFault):
        embedding(1.0, bad)


def test_zero_is_never_an_embedding() -> None:
    with pytest.raises(EncoderFault):
        embedding(0.0, 0.0)


def test_an_embedding_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        embedding(1.0, 0.0).vector[0] = 2.0


@given(vectors, vectors)
def test_cosine_is_bounded_and_symmetric(a: np.ndarray, b: np.ndarray) -> None:
    one, other = Embedding.from_encoder(a), Embedding.from_encoder(b)
    assert -1.0 <= one.cosine(other) <= 1.0
    assert one.cosine(other) == other.cosine(one)


@given(vectors, st.floats(min_value=1e-3, max_value=1e3))
def test_cosine_does_not_depend_on_length(raw: np.ndarray, scale: float) -> None:
    reference = embedding(1, 2, 3, 4, 5, 6, 7, 8)
    with np.errstate(over="ignore"):
        scaled = raw * scale
    if not np.isfinite(scaled).all() or not scaled.any():
        return
    shrunk = Embedding.from_encoder(scaled).cosine(reference)
    assert shrunk == pytest.approx(Embedding.from_encoder(raw).cosine(reference), abs=1e-5)


def test_cosines_that_are_known() -> None:
    assert embedding(1, 0).cosine(embedding(5, 0)) == 1.0
    assert embedding(1, 0).cosine(embedding(0, 2)) == 0.0
    assert embedding(1, 0).cosine(embedding(-3, 0)) == -1.0


def test_mean_lies_between() -> None:
    mean = mean_embedding([embedding(1, 0), embedding(0, 1)])
    assert mean.vector == pytest.approx([math.sqrt(0.5)] * 2)


def test_opposite_embeddings_have_no_mean() -> None:
    with pytest.raises(EncoderFault):
        mean_embedding([embedding(1, 0), embedding(-1, 0)])


def test_zero_baseline_is_similar_to_nothing() -> None:
    assert Baseline.from_numbers([0.0, 0.0], dimension=2).cosine(embedding(1, 0)) == 0.0


def test_baseline_is_normalised() -> None:
    huge = Baseline.from_numbers([1e308, 0.0], dimension=2)
    tiny = Baseline.from_numbers([5e-324, 0.0], dimension=2)
    assert huge.cosine(embedding(1, 0)) == tiny.cosine(embedding(1, 0)) == 1.0


def test_baseline_of_the_wrong_length_names_both_lengths() -> None:
    with pytest.raises(InvalidBaseline, match=r"3 numbers.*exactly 2") as caught:
        Baseline.from_numbers([1.0, 2.0, 3.0], dimension=2)
    assert caught.value.code == "baseline_wrong_length"


def test_baseline_that_is_not_finite_names_the_place() -> None:
    with pytest.raises(InvalidBaseline, match=r"baseline_embedding\[1\] is inf") as caught:
        Baseline.from_numbers([1.0, math.inf], dimension=2)
    assert caught.value.code == "baseline_not_finite"
