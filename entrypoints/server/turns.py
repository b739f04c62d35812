"""Starts requests a few at a time, so that the event loop stays quick for everyone."""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Final

_EACH_PASS: Final = 4
"""Requests that are started in one pass of the event loop."""


class Turns:
    """Who is next, when more requests are there than can be started at once.

    Were every request started as it arrives, a thousand connections that always have one would
    make each pass of the event loop as long as a thousand requests, and whoever else connects would
    need several passes. Here a pass is as long as a few. Connections that send their first request
    take turns with those that have had one before, and of the latter, the one whose last turn is
    longest ago is next.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._free = _EACH_PASS
        self._passing = False
        self._first: deque[Callable[[], None]] = deque()
        self._again: list[tuple[float, int, Callable[[], None]]] = []
        self._arrivals = itertools.count()

    def wait(self, last_turn_s: float | None, start: Callable[[], None]) -> None:
        """Call ``start`` when it is its turn: now, if nobody waits.

        Args:
            last_turn_s: when the connection had its last turn, by the loop's clock; None if never.
            start: starts a request; it must not raise.
        """
        if self._free and not self._first and not self._again:
            self._free -= 1
            start()
        elif last_turn_s is None:
            self._first.append(start)
        else:
            heapq.heappush(self._again, (last_turn_s, next(self._arrivals), start))
        if not self._passing:
            self._passing = True
            self._loop.call_soon(self._next_pass)

    def _next_pass(self) -> None:
        self._free = _EACH_PASS
        if not self._first and not self._again:
            self._passing = False
            return
        while self._free and (self._first or self._again):
            of_first = bool(self._first) and (self._free % 2 == 0 or not self._again)
            self._free -= 1
            (self._first.popleft() if of_first else heapq.heappop(self._again)[2])()
        self._loop.call_soon(self._next_pass)
