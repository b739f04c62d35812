"""Limits how much time goes into a costly result that anyone may request."""

import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Made = TypeVar("Made")

_SHARE: Final = 0.05
"""The share of one processor core's time that may be spent on it in the long run."""

_BURST_SECONDS: Final = 0.1
"""How much of that time may be saved up, so that occasional requests always get a fresh result."""

_MOST_KEPT: Final = 8


class Rationed(Generic[Made]):
    """Computes a result, or returns the last one if too much time has gone into computing it.

    So a result is never older than twenty times the time that it takes to compute. Used from the
    event loop only.
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
        """The result for that key, fresh if there is time left for it."""
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
