"""What holds for all embeddings, whatever is sent."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from domain.anomaly import score_against
from domain.baseline import SMALLEST_THRESHOLD, baseline_of
from domain.classification import classify
from domain.embedding import Baseline, Embedding, mean_embedding
from domain.errors import EncoderFault, InvalidFrames, InvalidInput
from domain.limits import MAX_LABELS

DIMENSION = 8

Numbers = NDArray[np.float64]

numbers = arrays(
    np.float64, DIMENSION, elements=st.floats(-1.0, 1.0, allow_subnormal=False)
).filter(lambda vector: np.abs(vector).max() > 1e-6)
embeddings = numbers.map(Embedding.from_encoder)
scales = st.floats(-30, 30).map(lambda power: 10.0**power)
logit_scales = st.floats(0.0, 100.0)
labelled = st.dictionaries(st.text(min_size=1), embeddings, min_size=1, max_size=MAX_LABELS)


@given(embeddings, embeddings)
def test_cosine_is_symmetric_and_bounded(a: Embedding, b: Embedding) -> None:
    assert -1.0 <= a.cosine(b) <= 1.0
    assert a.cosine(b) == b.cosine(a)
    assert a.cosine(a) == pytest.approx(1.0, abs=1e-6)


@given(st.lists(st.floats(), max_size=DIMENSION + 1))
def test_any_numbers_make_a_unit_vector_or_an_error(sent: list[float]) -> None:
    try:
        embedding = Embedding.from_numbers(sent, dimension=DIMENSION, name="embedding_a")
    except InvalidInput as invalid:
        assert "embedding_a" in invalid.detail  # noqa: PT017 - either is right
        assert len(sent) != DIMENSION or not np.isfinite(sent).all() or not any(sent)
    else:
        assert np.linalg.norm(embedding.vector.astype(np.float64)) == pytest.approx(1.0, abs=1e-6)
        assert np.isfinite(embedding.vector).all()


@given(numbers, scales)
def test_length_does_not_matter(vector: Numbers, scale: float) -> None:
    long = Embedding.from_numbers(list(vector * scale), dimension=DIMENSION, name="a")
    short = Embedding.from_numbers(list(vector), dimension=DIMENSION, name="a")
    np.testing.assert_allclose(long.vector, short.vector, atol=1e-6)


@given(numbers, embeddings, scales)
def test_a_baselines_length_does_not_matter(vector: Numbers, seen: Embedding, scale: float) -> None:
    scaled = score_against(Baseline.from_numbers(list(vector * scale), dimension=DIMENSION), seen)
    plain = score_against(Baseline.from_numbers(list(vector), dimension=DIMENSION), seen)
    assert scaled.score == pytest.approx(plain.score, abs=1e-5)


@given(embeddings, embeddings, embeddings)
def test_the_anomaly_falls_as_the_cosine_rises(
    usual: Embedding, one: Embedding, other: Embedding
) -> None:
    baseline = Baseline(usual)
    near, far = sorted(
        (score_against(baseline, one), score_against(baseline, other)),
        key=lambda anomaly: -anomaly.similarity,
    )
    assert 0.0 <= near.score <= far.score <= 1.0
    assert near.similarity >= far.similarity


@given(embeddings, embeddings, st.floats(0.0, 1.0))
def test_a_threshold_only_divides(usual: Embedding, seen: Embedding, threshold: float) -> None:
    anomaly = score_against(Baseline(usual), seen, threshold=threshold)
    assert anomaly.over_threshold == (anomaly.score > threshold)
    assert anomaly.score == score_against(Baseline(usual), seen).score


@given(embeddings)
def test_a_zero_baseline_is_like_nothing(seen: Embedding) -> None:
    anomaly = score_against(Baseline.from_numbers([0.0] * DIMENSION, dimension=DIMENSION), seen)
    assert (anomaly.score, anomaly.similarity) == (1.0, 0.0)


@given(embeddings, labelled, logit_scales)
def test_scores_are_probabilities_in_the_order_of_the_cosines(
    image: Embedding, labels: dict[str, Embedding], scale: float
) -> None:
    result = classify(image, labels, logit_scale=scale)
    assert list(result.scores) == list(labels)
    assert sum(result.scores.values()) == pytest.approx(1.0, abs=1e-9)
    assert all(0.0 <= score <= 1.0 for score in result.scores.values())
    by_cosine = sorted(labels, key=lambda label: image.cosine(labels[label]))
    for lower, higher in itertools.pairwise(by_cosine):
        assert result.scores[lower] <= result.scores[higher]
    assert result.scores[result.top_label] == max(result.scores.values())


@given(embeddings, labelled, logit_scales, st.randoms(use_true_random=False))
def test_the_order_of_labels_does_not_matter(
    image: Embedding, labels: dict[str, Embedding], scale: float, rng: random.Random
) -> None:
    names = list(labels)
    rng.shuffle(names)
    plain = classify(image, labels, logit_scale=scale).scores
    shuffled = classify(image, {name: labels[name] for name in names}, logit_scale=scale).scores
    for name in names:
        assert shuffled[name] == pytest.approx(plain[name], abs=1e-9)


@given(st.lists(embeddings, min_size=1, max_size=7), st.randoms(use_true_random=False))
def test_an_ensembles_mean_has_length_one_in_any_order(
    prompts: list[Embedding], rng: random.Random
) -> None:
    try:
        mean = mean_embedding(prompts)
    except EncoderFault:  # only prompts that cancel out to the last bit have none
        assert not np.stack([prompt.vector for prompt in prompts]).astype(np.float64).sum(0).any()
        return
    assert np.linalg.norm(mean.vector.astype(np.float64)) == pytest.approx(1.0, abs=1e-6)
    total = np.stack([prompt.vector for prompt in prompts]).astype(np.float64).sum(axis=0)
    assume(np.linalg.norm(total) > 1e-3)  # nearer to nothing, rounding decides the direction
    rng.shuffle(prompts)
    np.testing.assert_allclose(mean_embedding(prompts).vector, mean.vector, atol=1e-6)


@given(st.lists(embeddings, min_size=1, max_size=12))
def test_a_scenes_baseline_is_finite_and_in_range(frames: list[Embedding]) -> None:
    try:
        scene = baseline_of(frames)
    except InvalidFrames as invalid:
        assert invalid.code == "frames_cancel_out"  # noqa: PT017 - either is right
        return
    spread = scene.spread
    assert scene.count == len(frames)
    assert -1.0 <= spread.lowest <= spread.mean + 1e-9
    assert spread.mean <= spread.highest + 1e-9 <= 1.0 + 1e-9
    assert (spread.deviation is None) == (len(frames) == 1)
    assert (scene.suggested_threshold is None) == (len(frames) < 5)
    if scene.suggested_threshold is not None:
        assert SMALLEST_THRESHOLD <= scene.suggested_threshold <= 1.0


@given(embeddings, st.integers(5, 12))
def test_frames_that_are_all_the_same_are_their_own_baseline(frame: Embedding, count: int) -> None:
    scene = baseline_of([frame] * count)
    np.testing.assert_allclose(scene.embedding.vector, frame.vector, atol=1e-6)
    assert scene.suggested_threshold == SMALLEST_THRESHOLD
