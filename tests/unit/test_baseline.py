"""What a scene usually looks like, how its frames scatter, and which score is unlike them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from domain.anomaly import score_against
from domain.baseline import SMALLEST_THRESHOLD, baseline_of
from domain.embedding import Baseline, Embedding, mean_embedding
from domain.errors import InvalidFrames
from domain.limits import FEWEST_FRAMES_FOR_A_THRESHOLD

# Directions within a right angle of each other, so that their mean is never near zero.
frames = st.lists(
    arrays(np.float64, 6, elements=st.floats(0.0, 1.0)).filter(lambda v: v.max() > 0.1),
    min_size=1,
    max_size=30,
).map(lambda rows: [Embedding.from_encoder(row) for row in rows])


def scene(scatter: float, count: int, *, seed: int = 1, dimension: int = 64) -> list[Embedding]:
    """Frames of one scene: a fixed direction and noise of that size around it."""
    usual = np.random.default_rng(0).standard_normal(dimension)
    noise = np.random.default_rng(seed).standard_normal((count, dimension))
    return [Embedding.from_encoder(usual + scatter * row) for row in noise]


def score(baseline: Embedding, frame: Embedding) -> float:
    reference = Baseline.from_numbers(baseline.vector.tolist(), dimension=baseline.dimension)
    return score_against(reference, frame).score


@given(frames)
def test_the_baseline_is_the_renormalised_mean(given_frames: list[Embedding]) -> None:
    result = baseline_of(given_frames)
    assert result.count == len(given_frames)
    expected = mean_embedding(given_frames).vector
    assert result.embedding.vector == pytest.approx(expected, abs=1e-6)


@given(frames)
def test_spread_is_of_the_cosines_and_its_mean_the_resultant_length(
    given_frames: list[Embedding],
) -> None:
    result = baseline_of(given_frames)
    cosines = [result.embedding.cosine(frame) for frame in given_frames]
    spread = result.spread
    assert spread.lowest == pytest.approx(min(cosines), abs=1e-6)
    assert spread.highest == pytest.approx(max(cosines), abs=1e-6)
    stacked = np.stack([frame.vector for frame in given_frames])
    assert spread.mean == pytest.approx(float(np.linalg.norm(stacked.mean(axis=0))), abs=1e-5)
    if len(given_frames) == 1:
        assert spread.deviation is None
    else:
        assert spread.deviation == pytest.approx(float(np.std(cosines, ddof=1)), abs=1e-5)


@given(frames, st.randoms())
def test_order_of_frames_changes_nothing(given_frames: list[Embedding], random: object) -> None:
    shuffled = list(given_frames)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = baseline_of(given_frames), baseline_of(shuffled)
    assert one.embedding.vector == pytest.approx(other.embedding.vector, abs=1e-6)
    if one.suggested_threshold is not None:
        assert one.suggested_threshold == pytest.approx(other.suggested_threshold, abs=1e-6)


@given(frames)
def test_a_threshold_is_a_score_and_none_of_few_frames(given_frames: list[Embedding]) -> None:
    threshold = baseline_of(given_frames).suggested_threshold
    if len(given_frames) < FEWEST_FRAMES_FOR_A_THRESHOLD:
        assert threshold is None
    else:
        assert threshold is not None
        assert SMALLEST_THRESHOLD <= threshold <= 1.0


@given(frames)
def test_the_threshold_is_never_below_the_average_frame(given_frames: list[Embedding]) -> None:
    result = baseline_of(given_frames)
    if result.suggested_threshold is not None:
        scores = [score(result.embedding, frame) for frame in given_frames]
        assert result.suggested_threshold >= np.mean(scores) - 1e-6


def test_the_threshold_follows_its_formula() -> None:
    vectors = np.stack([frame.vector for frame in scene(0.3, 12)]).astype(np.float64)
    left_out = []
    for place in range(len(vectors)):
        others = np.delete(vectors, place, axis=0).mean(axis=0)
        left_out.append(1 - vectors[place] @ others / np.linalg.norm(others))
    roots = np.cbrt(left_out)
    quantile = 3.8496  # Student's, 11 degrees of freedom, probability 0.99865 (scipy 1.17)
    expected = (roots.mean() + quantile * roots.std(ddof=1) * np.sqrt(1 + 1 / 12)) ** 3
    assert baseline_of(scene(0.3, 12)).suggested_threshold == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("scatter", [0.1, 0.3])
@pytest.mark.parametrize(("count", "tolerated"), [(5, 0.02), (20, 0.01), (200, 0.01)])
def test_new_normal_frames_are_rarely_over_it(scatter: float, count: int, tolerated: float) -> None:
    over = []
    for seed in range(1, 21):
        baseline = baseline_of(scene(scatter, count, seed=seed))
        assert baseline.suggested_threshold is not None
        over += [
            score(baseline.embedding, frame) > baseline.suggested_threshold
            for frame in scene(scatter, 50, seed=1000 + seed)
        ]
    assert np.mean(over) <= tolerated


def test_another_scene_is_over_it() -> None:
    baseline = baseline_of(scene(0.2, 10))
    other = np.random.default_rng(9).standard_normal(64)
    assert baseline.suggested_threshold is not None
    assert score(baseline.embedding, Embedding.from_encoder(other)) > baseline.suggested_threshold


def test_more_scatter_means_a_higher_threshold() -> None:
    thresholds = [
        baseline_of(scene(scatter, 30)).suggested_threshold or 0 for scatter in (0.1, 0.3)
    ]
    assert SMALLEST_THRESHOLD < thresholds[0] < thresholds[1]


def test_frames_that_are_all_the_same_are_not_over_their_own_threshold() -> None:
    result = baseline_of(scene(0.0, 10))
    assert result.suggested_threshold == SMALLEST_THRESHOLD
    assert result.spread.mean == pytest.approx(1.0)
    assert score(result.embedding, scene(0.0, 1)[0]) < SMALLEST_THRESHOLD


def test_one_frame_far_off_among_many_alike_raises_the_threshold() -> None:
    alike = scene(0.01, 400)
    outlier = Embedding.from_encoder(np.random.default_rng(9).standard_normal(64))
    without, having = (
        baseline_of(frames).suggested_threshold for frames in (alike, [*alike, outlier])
    )
    assert without is not None
    assert having is not None
    assert having >= without


@pytest.mark.parametrize(
    ("rows", "code", "detail"),
    [
        ([], "no_frames", "1 to 1000"),
        ([[1.0, 0.0]] * 1001, "too_many_frames", "1001 frames.*at most 1000"),
        ([[1.0, 0.0], [-1.0, 0.0]], "frames_cancel_out", "2 frames cancel out"),
        ([[1.0, 1e-9], [-1.0, 1e-9]], "frames_cancel_out", "no direction"),
    ],
)
def test_frames_that_have_no_baseline(rows: list[list[float]], code: str, detail: str) -> None:
    with pytest.raises(InvalidFrames, match=detail) as caught:
        baseline_of([Embedding.from_encoder(np.array(row)) for row in rows])
    assert caught.value.code == code
