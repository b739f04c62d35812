"""Something that is costly to make and asked for by anyone, made as often as is affordable."""

import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Made = TypeVar("Made")

_SHARE: Final = 0.05
"""Of one processor core's time that may be spent on it in the long run."""

_BURST_SECONDS: Final = 0.1
"""Of such time that may be saved up: who asks now and then always gets a fresh one."""

_MOST_KEPT: Final = 8


class Rationed(Generic[Made]):
    """Makes a thing, or gives the last one again when too much time has been spent on making it.

    So the last one is never older than twenty times what it takes to make it. Used from the event
    loop only.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Make one.

        Args:
            clock: seconds that never go back.
        """
        self._clock = clock
        self._saved_s = _BURST_SECONDS
        self._counted_s = clock()
        self._kept: dict[Hashable, Made] = {}

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The thing of that key, fresh where that is affordable."""
        started_s = self._clock()
        earned_s = (started_s - self._counted_s) * _SHARE
        self._saved_s = min(_BURST_SECONDS, self._saved_s + earned_s)
        self._counted_s = started_s
        if self._saved_s <= 0 and key in self._kept:
            return self._kept[key]
        made = make()
        self._saved_s -= self._clock() - started_s
        if key not in self._kept and len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[key] = made
        return made
