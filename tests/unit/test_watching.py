"""When a watched scene raises an alarm, and with which baseline a frame is compared."""

from datetime import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.embedding import Embedding
from domain.watching import (
    AlarmRule,
    AlarmState,
    KeptBaseline,
    NightHours,
    baseline_for,
    groups_by_light,
)


def alarms(over: list[bool], rule: AlarmRule, *, every_s: float = 1.0) -> list[int]:
    """Numbers of the frames that raise an alarm."""
    state = AlarmState()
    raised = []
    for number, each in enumerate(over):
        state, alarm = state.after(over=each, at_s=number * every_s, rule=rule)
        raised += [number] * alarm
    return raised


def test_an_alarm_needs_frames_in_a_row_and_comes_once() -> None:
    rule = AlarmRule(frames=3, quiet_s=0)
    seen = [bool(int(each)) for each in "0110111111001101110"]
    assert alarms(seen, rule) == [6, 17]


def test_nothing_is_told_in_the_quiet_time_but_what_lasts_longer_is() -> None:
    rule = AlarmRule(frames=1, quiet_s=5)
    assert alarms([True, False, True, False, False, False, True], rule) == [0, 6]
    assert alarms([True, False, True, True, True, True, True, True], rule) == [0, 5]


@given(
    over=st.lists(st.booleans(), max_size=60),
    frames=st.integers(1, 5),
    quiet_s=st.integers(0, 20),
)
def test_alarms_keep_the_rule(over: list[bool], frames: int, quiet_s: int) -> None:
    raised = alarms(over, AlarmRule(frames, quiet_s))
    for number in raised:
        assert all(over[number - frames + 1 : number + 1])
        assert number >= frames - 1
    for earlier, later in pairwise(raised):
        assert later - earlier >= quiet_s
        assert not all(over[earlier:later])  # what stays unusual raises one alarm
    if quiet_s == 0:
        runs = "".join("1" if each else "0" for each in over).split("0")
        assert len(raised) == sum(len(run) >= frames for run in runs)


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("21:00-06:30", ["21:00", "23:59", "00:00", "06:29"], ["06:30", "12:00", "20:59"]),
        ("01:00-05:00", ["01:00", "04:59"], ["05:00", "00:59", "23:00"]),
    ],
)
def test_the_night_may_pass_midnight(hours: str, inside: list[str], outside: list[str]) -> None:
    night = NightHours.parsed(hours)
    assert [night.holds(time.fromisoformat(each)) for each in inside] == [True] * len(inside)
    assert [night.holds(time.fromisoformat(each)) for each in outside] == [False] * len(outside)


@pytest.mark.parametrize("text", ["", "21:00", "21:00-", "25:00-06:00", "6-6", "06:00-06:00"])
def test_what_is_no_night_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        NightHours.parsed(text)


def kept(brightness: float | None) -> KeptBaseline:
    return KeptBaseline(Embedding.from_encoder(np.ones(4)), 0.1, "f", brightness)


def test_the_baseline_fits_the_light() -> None:
    day, night = kept(0.6), kept(0.06)
    noon = time(12)
    assert baseline_for([day, night], brightness=0.5, at=noon) is day
    # Between the two as one sees it: at the square root of their product, not at their mean.
    assert baseline_for([day, night], brightness=0.25, at=noon) is day
    assert baseline_for([day, night], brightness=0.1, at=noon) is night
    assert baseline_for([day, night], brightness=0.0, at=noon) is night
    assert baseline_for([day, night], brightness=None, at=noon) is day
    hours = NightHours.parsed("21:00-06:00")
    assert baseline_for([day, night], brightness=0.9, at=time(22), night=hours) is night
    assert baseline_for([day, night], brightness=0.0, at=noon, night=hours) is day
    assert baseline_for([day], brightness=0.0, at=time(22), night=hours) is day


def test_frames_of_day_and_night_become_two_groups() -> None:
    lights = [0.5, 0.1, 0.52, 0.11, 0.48, 0.1, 0.55, 0.09, 0.5, 0.12]
    assert groups_by_light(lights) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert groups_by_light([0.0] * 6 + [0.4] * 6) == [list(range(6, 12)), list(range(6))]


@pytest.mark.parametrize(
    "lights",
    [
        [0.5, 0.45, 0.4, 0.38, 0.36, 0.35, 0.34, 0.33, 0.31, 0.3],  # a cloud
        [0.5] * 9 + [0.05],  # one dark frame is no night
        [0.0] * 12,
        [0.5],
    ],
)
def test_other_frames_stay_together(lights: list[float]) -> None:
    assert groups_by_light(lights) == [list(range(len(lights)))]
