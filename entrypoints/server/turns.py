"""Starts requests a few at a time, so that the event loop stays quick for everyone."""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, TypeAlias

_EACH_PASS: Final = 4
"""Requests started in one pass of the event loop."""


Start: TypeAlias = Callable[[], None]


class Kind(Enum):
    """The kind of a request, which decides its turn."""

    PROBE = auto()
    """Health: orchestrators restart a process that does not respond in time."""
    READ = auto()
    """Pages, documents and metrics."""
    WORK = auto()
    """Everything else: embeddings and results based on them."""


class Turns:
    """Decides which request is next if there are more than can be started at once.

    If every request were started as it arrives, a thousand connections that always have one would
    make each pass of the event loop as long as a thousand requests, and a new client would wait for
    several passes. Here a pass is as long as a few requests. The three kinds of requests take
    turns. Within a kind, first requests of a connection take turns with later ones. Among later
    ones, the connection whose last turn was longest ago is next.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._free = _EACH_PASS
        self._passing = False
        self._waiting = 0
        self._queues = {kind: _Queue() for kind in Kind}
        self._next_kind = itertools.cycle(self._queues.values())

    def wait(self, start: Start, *, kind: Kind, last_turn_s: float | None) -> None:
        """Call ``start`` when its turn comes: now, if nothing else waits.

        Args:
            start: starts a request; it must not raise.
            kind: the kind of request.
            last_turn_s: when the connection had its last turn, by the loop's clock; None if never.
        """
        if self._free and not self._waiting:
            self._free -= 1
            start()
        else:
            self._waiting += 1
            self._queues[kind].append(start, last_turn_s)
        if not self._passing:
            self._passing = True
            self._loop.call_soon(self._next_pass)

    def _next_pass(self) -> None:
        self._free = _EACH_PASS
        if not self._waiting:
            self._passing = False
            return
        while self._free and self._waiting:
            if (start := next(self._next_kind).pop()) is not None:
                self._free -= 1
                self._waiting -= 1
                start()
        self._loop.call_soon(self._next_pass)


class _Queue:
    """The waiting requests of one kind."""

    def __init__(self) -> None:
        self._first: deque[Start] = deque()
        self._again: list[tuple[float, int, Start]] = []
        self._arrivals = itertools.count()
        self._first_is_next = True

    def append(self, start: Start, last_turn_s: float | None) -> None:
        if last_turn_s is None:
            self._first.append(start)
        else:
            heapq.heappush(self._again, (last_turn_s, next(self._arrivals), start))

    def pop(self) -> Start | None:
        self._first_is_next = not self._first_is_next
        if self._first and (self._first_is_next or not self._again):
            return self._first.popleft()
        return heapq.heappop(self._again)[2] if self._again else None
