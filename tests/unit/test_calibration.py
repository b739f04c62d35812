"""Thresholds from examples, against distributions whose true threshold is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.calibration import Calibration, calibrate, fewest_negatives, share_interval
from domain.errors import InvalidExamples

_SIMULATIONS = 400
_LEAST_COVERAGE = 0.95 - 3.5 * (0.95 * 0.05 / _SIMULATIONS) ** 0.5
"""An interval of 95 % misses this only once in some thousand runs of the simulation."""


def _holds(calibration: Calibration, truth: float) -> bool:
    low, high = calibration.interval.low, calibration.interval.high
    return (low is None or low <= truth) and (high is None or truth <= high)


@pytest.mark.parametrize("count", [40, 200, 1000])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_interval_holds_the_true_threshold_as_often_as_it_says(count: int, rate: float) -> None:
    random = np.random.default_rng(count)
    truth = 1.0 - rate  # of the uniform distribution
    held = sum(
        _holds(calibrate(random.random(count), false_alarms=rate), truth)
        for _ in range(_SIMULATIONS)
    )
    assert held / _SIMULATIONS >= _LEAST_COVERAGE


@pytest.mark.parametrize("things", [12, 30])
def test_pairs_that_share_things_do_not_pretend_to_be_independent(things: int) -> None:
    """Each thing has its own level, so that all its pairs are high or low together."""
    random = np.random.default_rng(things)
    rate = 0.1
    groups = np.array([(a, b) for a in range(things) for b in range(a)])

    def pairs() -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        level = random.normal(size=things)
        noise = random.normal(size=len(groups))
        return np.asarray(level[groups[:, 0]] + level[groups[:, 1]] + noise)

    truth = float(np.quantile(np.sqrt(3.0) * random.normal(size=2_000_000), 1.0 - rate))
    held = naive = 0
    for _ in range(_SIMULATIONS):
        values = pairs()
        held += _holds(calibrate(values, false_alarms=rate, groups=groups), truth)
        naive += _holds(calibrate(values, false_alarms=rate), truth)
    assert held / _SIMULATIONS >= 0.9
    assert naive < held


def test_too_few_examples_have_no_upper_end() -> None:
    least = fewest_negatives(0.01, 0.95)
    assert least == 368
    values = np.linspace(0.0, 1.0, least - 1)
    assert calibrate(values, false_alarms=0.01).interval.high is None
    values = np.linspace(0.0, 1.0, least)
    assert calibrate(values, false_alarms=0.01).interval.high == 1.0


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=200),
    st.floats(0.001, 0.5),
)
def test_at_most_the_wanted_share_exceeds_the_threshold(values: list[float], rate: float) -> None:
    found = calibrate(values, false_alarms=rate)
    assert sum(value > found.threshold for value in values) <= rate * len(values) + 1e-6
    assert found.threshold in values
    low, high = found.interval.low, found.interval.high
    assert low is None or low <= found.threshold
    assert high is None or high >= found.threshold


def test_what_is_found_of_the_positives() -> None:
    found = calibrate(np.arange(100.0), [98.0, 99.5, 120.0], false_alarms=0.05)
    assert found.threshold == 94.0
    assert found.detection == 1.0
    assert found.positives == 3
    assert calibrate([0.1, 0.2], false_alarms=0.5).detection is None


def test_the_interval_of_a_share_is_clopper_and_pearsons() -> None:
    # scipy.stats.binomtest(8, 10).proportion_ci(0.95, "exact")
    interval = share_interval(8, 10, 0.95)
    assert interval.low == pytest.approx(0.44390, abs=1e-5)
    assert interval.high == pytest.approx(0.97479, abs=1e-5)
    assert share_interval(0, 5, 0.95).low == 0.0
    assert share_interval(5, 5, 0.95).high == 1.0


@pytest.mark.parametrize(
    ("negatives", "rate", "confidence", "named"),
    [
        ([], 0.1, 0.95, "0 examples"),
        ([float("nan")], 0.1, 0.95, "negatives[0] is nan"),
        ([1.0], 0.0, 0.95, "false alarms is 0;"),
        ([1.0], 0.7, 0.95, "false alarms is 0.7;"),
        ([1.0], 0.1, 1.0, "confidence is 1;"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    negatives: list[float], rate: float, confidence: float, named: str
) -> None:
    with pytest.raises(InvalidExamples) as refused:
        calibrate(negatives, false_alarms=rate, confidence=confidence)
    assert named in refused.value.detail
