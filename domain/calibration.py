"""A threshold from examples: where to put it for a wanted rate of false alarms, and how sure it is.

Two groups of examples are compared by one number each: *negatives*, which must not raise an alarm,
and *positives*, which should. The threshold is the value that negatives exceed at the wanted rate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from domain.errors import InvalidExamples

DEFAULT_CONFIDENCE: Final = 0.95
"""How often an interval should contain the true value."""

MAX_NEGATIVES: Final = 2_000_000
"""Negatives of one calibration: all pairs of 2,000 pictures."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval.

    Attributes:
        low: lower end; None if there are too few examples.
        high: upper end; None in the same case.
    """

    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold and how well it is known.

    Attributes:
        threshold: the value that a share ``false_alarms`` of the negatives exceeds.
        interval: of the threshold.
        false_alarms: the wanted rate, between 0 and 1.
        confidence: of both intervals.
        negatives: how many there are.
        independent_negatives: the equivalent number of independent negatives, if they depend on
            each other, as pairs that share a picture do; otherwise equal to ``negatives``.
        fewest_negatives: with fewer independent negatives, the interval has no upper end.
        detection: share of the positives above the threshold; None without positives.
        detection_interval: of that share, as if positives were independent; None without positives.
        positives: how many there are.
    """

    threshold: float
    interval: Interval
    false_alarms: float
    confidence: float
    negatives: int
    independent_negatives: int
    fewest_negatives: int
    detection: float | None
    detection_interval: Interval | None
    positives: int


def calibrate(
    negatives: Sequence[float] | NDArray[np.float64],
    positives: Sequence[float] | NDArray[np.float64] = (),
    *,
    false_alarms: float,
    confidence: float = DEFAULT_CONFIDENCE,
    groups: Sequence[tuple[int, ...]] | NDArray[np.int64] | None = None,
) -> Calibration:
    """Find the threshold that a wanted share of the negatives exceeds, with its interval.

    For independent negatives the interval is that of order statistics, which needs no assumption
    about their distribution (Hahn & Meeker 1991, Statistical Intervals, section 5.2). If they share
    things, their number is first reduced to an effective number: the variance of the share above
    the threshold is estimated by leaving out one thing at a time (jackknife), and the binomial is
    used with the effective number (Korn & Graubard 1998, Survey Methodology 24(2); the step from
    the share to the threshold is Woodruff's, 1952, JASA 47).

    Args:
        negatives: a number for each example that must not raise an alarm; the larger, the nearer
            to an alarm.
        positives: a number for each example that should.
        false_alarms: the wanted share of negatives above the threshold, in (0, 0.5].
        confidence: of the intervals, in [0.5, 1).
        groups: for each negative the things that it came from, such as the two people of a pair,
            int64 ``[n, k]``; None if all are independent.

    Raises:
        InvalidExamples: no negatives, too many, a number that is not finite, or a rate or
            confidence out of its range.
    """
    values = _checked("negatives", negatives)
    hits = _checked("positives", positives)
    if not 0.0 < false_alarms <= 0.5:
        raise InvalidExamples(
            f"the rate of false alarms is {false_alarms:g}; it must be above 0 and at most 0.5.",
            code="false_alarm_rate_out_of_range",
        )
    if not 0.5 <= confidence < 1.0:
        raise InvalidExamples(
            f"the confidence is {confidence:g}; it must be at least 0.5 and below 1.",
            code="confidence_out_of_range",
        )
    if not 1 <= len(values) <= MAX_NEGATIVES:
        raise InvalidExamples(
            f"there are {len(values)} examples that must not raise an alarm; 1 to {MAX_NEGATIVES} "
            "are needed.",
            code="wrong_number_of_examples",
        )
    ordered = np.sort(values)
    threshold = _quantile(ordered, 1.0 - false_alarms)
    worth: int = len(values)
    if groups is not None:
        worth = _independent(values > threshold, np.asarray(groups, dtype=np.int64))
    detection = detection_interval = None
    if len(hits):
        above = int(np.count_nonzero(hits > threshold))
        detection = above / len(hits)
        detection_interval = share_interval(above, len(hits), confidence)
    return Calibration(
        threshold=threshold,
        interval=_threshold_interval(ordered, worth, false_alarms, confidence),
        false_alarms=false_alarms,
        confidence=confidence,
        negatives=len(values),
        independent_negatives=worth,
        fewest_negatives=fewest_negatives(false_alarms, confidence),
        detection=detection,
        detection_interval=detection_interval,
        positives=len(hits),
    )


def fewest_negatives(false_alarms: float, confidence: float) -> int:
    """Fewest independent negatives with which the threshold's interval has an upper end.

    The largest of n negatives exceeds the true threshold unless all n lie below it, which happens
    with probability (1 - rate)^n. That must be at most half of 1 - confidence.
    """
    fewest: int = math.ceil(math.log((1.0 - confidence) / 2.0) / math.log1p(-false_alarms))
    return fewest


def share_interval(above: int, count: int, confidence: float) -> Interval:
    """Interval of a share, given that ``above`` of ``count`` were seen (Clopper & Pearson 1934)."""
    tail = (1.0 - confidence) / 2.0
    # P(X >= above) grows with the share, P(X <= above) falls.
    low = 0.0 if above == 0 else _solve(lambda p: _at_least(above, count, p) - tail)
    high = 1.0 if above == count else _solve(lambda p: tail - 1.0 + _at_least(above + 1, count, p))
    return Interval(low, high)


def histogram(
    values: NDArray[np.float64], low: float, high: float, bins: int
) -> NDArray[np.float64]:
    """Share of ``values`` in each of ``bins`` equal parts of [low, high], float64 ``[bins]``."""
    counts, _ = np.histogram(values, bins=bins, range=(low, high))
    return counts / max(len(values), 1)


def _checked(name: str, numbers: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(numbers, dtype=np.float64)
    if not np.isfinite(values).all():
        place = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InvalidExamples(
            f"{name}[{place}] is {values[place]}; every number must be finite.",
            code="example_not_finite",
        )
    return values


def _quantile(ordered: NDArray[np.float64], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed.

    Hyndman & Fan 1996, definition 1: always one of the values, so that the share above it is at
    most the wanted one.
    """
    place = math.ceil(share * len(ordered) - 1e-9) - 1
    return float(ordered[min(max(place, 0), len(ordered) - 1)])


def _threshold_interval(
    ordered: NDArray[np.float64], worth: int, false_alarms: float, confidence: float
) -> Interval:
    """Order statistics that enclose the true quantile with the given confidence.

    Among ``worth`` values, the number below the quantile is binomial. The r-th smallest is a lower
    end if P(X < r) is at most half of 1 - confidence. The s-th smallest is an upper end if P(X >=
    s) is. If values depend on each other, the ranks are scaled to all of them.
    """
    tail = (1.0 - confidence) / 2.0
    below = 1.0 - false_alarms
    cumulative = np.cumsum(_binomial(worth, below))  # P(X <= k) for k = 0..worth
    # The r-th smallest lies above the quantile only if fewer than r values lie below it.
    low_rank = int(np.searchsorted(cumulative, tail, side="right"))  # the largest such r
    # The s-th smallest lies below the quantile only if at least s values do.
    high_rank = int(np.searchsorted(cumulative, 1.0 - tail, side="left")) + 1
    return Interval(
        low=None if low_rank < 1 else _at_rank(ordered, low_rank, worth),
        high=None if high_rank > worth else _at_rank(ordered, high_rank, worth),
    )


def _at_rank(ordered: NDArray[np.float64], rank: int, worth: int) -> float:
    if worth == len(ordered):
        return float(ordered[rank - 1])
    return _quantile(ordered, rank / worth)


def _independent(above: NDArray[np.bool_], groups: NDArray[np.int64]) -> int:
    """How many independent negatives would give the same variance of the share above the threshold.

    The jackknife leaves out one thing with every negative that it is part of.
    """
    count = len(above)
    share = float(np.count_nonzero(above)) / count
    things, places = np.unique(groups.reshape(-1), return_inverse=True)
    places = places.reshape(groups.shape)
    if len(things) == count * groups.shape[1]:
        return count  # nothing is shared
    # A negative that has a thing twice is left out once.
    first = np.ones(groups.shape, dtype=bool)
    for column in range(1, groups.shape[1]):
        first[:, column] = (places[:, :column] != places[:, column : column + 1]).all(axis=1)
    rows = np.broadcast_to(np.arange(count)[:, None], groups.shape)
    size = np.bincount(places[first], minlength=len(things))
    part = np.bincount(
        places[first], weights=above[rows[first]].astype(np.float64), minlength=len(things)
    )
    rest = count - size
    known = rest > 0
    shares = (share * count - part[known]) / rest[known]
    if len(shares) < 2 or not 0.0 < share < 1.0:
        # Nothing is above the threshold, or there is only one thing. Then at most one negative for
        # each thing, or for each pair of things, can be claimed.
        return max(1, min(count, len(things) // int(groups.shape[1])))
    n = len(shares)
    variance = (n - 1) / n * float(np.square(shares - shares.mean()).sum())
    if variance == 0.0:
        return count
    return max(1, min(count, math.floor(share * (1.0 - share) / variance)))


def _binomial(count: int, share: float) -> NDArray[np.float64]:
    """P(X = k) for k = 0..count, float64 ``[count + 1]``, summed in logarithms."""
    k = np.arange(1, count + 1, dtype=np.float64)
    ways = np.concatenate(([0.0], np.cumsum(np.log((count - k + 1.0) / k))))
    successes = np.arange(count + 1, dtype=np.float64)
    logs = ways + successes * math.log(share) + (count - successes) * math.log1p(-share)
    chances = np.exp(logs)
    return np.asarray(chances / chances.sum(), dtype=np.float64)


def _at_least(above: int, count: int, share: float) -> float:
    if share <= 0.0:
        return 0.0
    if share >= 1.0:
        return 1.0
    return float(_binomial(count, share)[above:].sum())


def _solve(rising: Callable[[float], float]) -> float:
    """Where a function that rises with a share passes zero, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < 0.0 else (low, middle)
    return (low + high) / 2.0
