"""When a watched scene raises an alarm, and which baseline a frame is compared with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import time
from statistics import mean
from typing import Final, Self

from domain.embedding import Embedding
from domain.errors import InvalidFrames
from domain.limits import FEWEST_FRAMES_FOR_A_THRESHOLD

LEAST_LIGHT_RATIO: Final = 2.0
"""Day and night are separate groups only if day frames are at least this many times brighter.

Frames in one kind of light differ less: clouds and low sun change a picture's mean by a quarter or
so, after the camera's own exposure. Between day and infrared night it halves at least.
"""

_DARKEST: Final = 0.01
"""Below this brightness, all pictures count as equally black."""


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """When to raise an alarm.

    Attributes:
        frames: frames in a row that must exceed the threshold.
        quiet_s: seconds after an alarm without another one.
    """

    frames: int = 2
    quiet_s: float = 300.0


@dataclass(frozen=True, slots=True)
class AlarmState:
    """The state that a source's earlier frames leave for the next one.

    Attributes:
        above: frames in a row, up to the last one, that exceeded the threshold.
        told: whether these frames have already raised their alarm.
        last_s: when the last alarm was; None if there was none.
    """

    above: int = 0
    told: bool = False
    last_s: float | None = None

    def after(self, *, over: bool, at_s: float, rule: AlarmRule) -> "tuple[AlarmState, bool]":
        """The state after one more frame, and whether that frame raises an alarm.

        An unusual scene raises one alarm, however long it lasts. If it begins in the quiet time
        after another alarm, it raises its own when that time is over.

        Args:
            over: whether the frame exceeds the threshold.
            at_s: when the frame was taken, in seconds since any fixed point.
            rule: when to raise an alarm.
        """
        if not over:
            return replace(self, above=0, told=False), False
        above = self.above + 1
        quiet = self.last_s is not None and at_s < self.last_s + rule.quiet_s
        if self.told or above < rule.frames or quiet:
            return replace(self, above=above), False
        return AlarmState(above=above, told=True, last_s=at_s), True


@dataclass(frozen=True, slots=True, eq=False)
class KeptBaseline:
    """How a scene usually looks in one kind of light.

    Attributes:
        embedding: the mean direction of its frames.
        threshold: anomaly score above which a frame is unusual; None if none was chosen.
        fingerprint: of the model that made the embedding; None if unknown.
        brightness: mean brightness of its frames in [0, 1]; None if unknown.
    """

    embedding: Embedding
    threshold: float | None
    fingerprint: str | None
    brightness: float | None = None


@dataclass(frozen=True, slots=True)
class NightHours:
    """The hours in which the second of two baselines applies.

    Attributes:
        start: local time at which the night begins; it may be later in the day than the end.
        end: local time at which the day begins.
    """

    start: time
    end: time

    @classmethod
    def parsed(cls, text: str) -> Self:
        """From words such as ``21:00-06:30``.

        Raises:
            ValueError: they are not two different times of day.
        """
        start, dash, end = text.partition("-")
        hours = cls(time.fromisoformat(start.strip()), time.fromisoformat(end.strip()))
        if not dash or hours.start == hours.end or hours.start.tzinfo or hours.end.tzinfo:
            raise ValueError(text)
        return hours

    def holds(self, at: time) -> bool:
        """Whether the local time is in the night; the end is excluded."""
        if self.start < self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


def baseline_for(
    baselines: Sequence[KeptBaseline],
    *,
    brightness: float | None,
    at: time,
    night: NightHours | None = None,
) -> KeptBaseline:
    """The baseline that fits a frame's light.

    Args:
        baselines: one or more. With night hours: first the day's, then the night's.
        brightness: of the frame, in [0, 1]; if None (unknown), the first baseline is used.
        at: local time of the frame.
        night: decide by the hour instead of by brightness.
    """
    if night is not None and len(baselines) > 1:
        return baselines[1 if night.holds(at) else 0]
    if brightness is None:
        return baselines[0]
    return min(baselines, key=lambda kept: _steps_apart(kept.brightness or 0.0, brightness))


def _steps_apart(one: float, other: float) -> float:
    """How different two brightnesses look: their ratio, as the eye sees it (Weber 1834)."""
    return abs(math.log((one + _DARKEST) / (other + _DARKEST)))


def groups_by_light(brightness: Sequence[float]) -> list[list[int]]:
    """Places of a scene's frames, in one group or as day and night, the brighter group first.

    There are two groups if the frames above the widest gap in brightness are `LEAST_LIGHT_RATIO`
    times as bright as those below it, and each group is large enough for a threshold.

    Args:
        brightness: of each frame, in [0, 1].

    Raises:
        InvalidFrames: there are none.
    """
    if not brightness:
        raise InvalidFrames("there are no frames.", code="no_frames")
    order = sorted(range(len(brightness)), key=lambda place: -brightness[place])
    ordered = [brightness[place] for place in order]
    fewest = FEWEST_FRAMES_FOR_A_THRESHOLD
    cuts = range(fewest, len(order) - fewest + 1)
    cut = max(cuts, key=lambda place: ordered[place - 1] - ordered[place], default=None)
    if cut is not None:
        day, night = mean(ordered[:cut]), mean(ordered[cut:])
        if day > night and day >= LEAST_LIGHT_RATIO * night:
            return [sorted(order[:cut]), sorted(order[cut:])]
    return [sorted(order)]
