"""All connections of a server: how many may be open, and which one is closed for another."""

import asyncio
import itertools
import logging
import resource
from typing import Final

from entrypoints.server.client_limits import MAX_LINGERING, MAX_UNSENT_BYTES
from entrypoints.server.connection import Connection, Phase

logger = logging.getLogger(__name__)

_SWEEP_SECONDS: Final = 1.0

_OTHER_FILES: Final = 256
"""File descriptors kept free for models, caches and connections to collectors."""

_LEAST_LINGERING: Final = 128

_LOOKED_AT: Final = 16
"""How many of an address's connections are checked to find one to close."""


class Connections:
    """The open connections, from the moment they are accepted; swept once a second.

    If there would be more than ``most``, one is closed that waits for its client to send something.
    It is chosen from the address with the most connections: first those that have never sent a
    request, and among them the one that has waited longest. So a client that opens thousands loses
    its own connections, and a client that sends a request gets in and stays.
    """

    def __init__(self, *, most: int) -> None:
        """Make one.

        Args:
            most: limit of open connections.
        """
        self._most = most
        self._most_closing = min(MAX_LINGERING, max(_LEAST_LINGERING, most // 2))
        self._count = 0
        self._by_address: dict[str, dict[Connection, None]] = {}
        """Each address's connections; those whose phase has lasted longest come first."""
        self._closing: dict[Connection, None] = {}
        """All addresses' closing connections; those that began to close first come first."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._refused = 0
        self._made_room = 0
        self._turned_away = 0

    def opened(self, connection: Connection) -> bool:
        """Add a new connection; False if there is no room for it."""
        self._sweep_soon(connection.loop)
        if self._count >= self._most and not self.make_room():
            self._turned_away += 1
            return False
        self._by_address.setdefault(connection.address, {})[connection] = None
        self._count += 1
        return True

    def make_room(self) -> bool:
        """Close one connection to make room; False if all are busy."""
        dispensable = self._dispensable()
        if dispensable is None:
            return False
        self._made_room += 1
        dispensable.give_way()
        return True

    def _dispensable(self) -> Connection | None:
        if not self._by_address:
            return None
        most = max(self._by_address.values(), key=len)
        for of_address in (most, *self._by_address.values()):
            for has_asked in (False, True):
                candidates = (each for each in of_address if each.has_asked is has_asked)
                for each in itertools.islice(candidates, _LOOKED_AT):
                    if each.waited_for:
                        return each
        return None

    def moved(self, connection: Connection) -> None:
        """A connection has entered another phase."""
        of_address = self._by_address.get(connection.address, {})
        if connection not in of_address:
            return
        if connection.phase is not Phase.CLOSING:
            of_address[connection] = of_address.pop(connection)
            return
        self.closed(connection)
        if len(self._closing) >= self._most_closing:
            next(iter(self._closing)).cut_off()
        self._closing[connection] = None

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._closing.pop(connection, None)
        of_address = self._by_address.get(connection.address, {})
        if connection in of_address:
            del of_address[connection]
            self._count -= 1
            if not of_address:
                del self._by_address[connection.address]

    def refused(self) -> None:
        """A request got its response without the application."""
        self._refused += 1

    def not_accepted(self) -> None:
        """A connection could not be accepted at all."""
        self._turned_away += 1

    def _sweep_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._sweeping is None:
            self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        unsent: list[Connection] = []
        for connection in (
            *itertools.chain.from_iterable(self._by_address.values()),
            *self._closing,
        ):
            if (reason := connection.look(now_s)) is not None:
                self._cut_off(connection, reason)
            elif connection.unsent:
                unsent.append(connection)
        excess = sum(connection.unsent for connection in unsent) - MAX_UNSENT_BYTES
        for connection in sorted(unsent, key=lambda each: each.untaken_until_s):
            if excess <= 0:
                break
            excess -= connection.unsent
            self._cut_off(connection, "too many bytes of responses are waiting to be read")
        self._log()
        self._sweeping = None
        if self._count or self._closing:
            self._sweep_soon(loop)

    def _log(self) -> None:
        """Log at most one line a second about each event that hostile clients can cause at will."""
        if self._refused:
            logger.warning(
                "refused %d requests: not HTTP, too large a head, too slow, or on a connection "
                "that was closed for another",
                self._refused,
            )
        if self._made_room:
            logger.warning(
                "closed %d connections to make room: %d are open, the limit",
                self._made_room,
                self._count,
            )
        if self._turned_away:
            logger.warning(
                "could not accept %d connections: all %d that are open are busy, or this process "
                "cannot open more files",
                self._turned_away,
                self._count,
            )
        self._refused = self._made_room = self._turned_away = 0

    @staticmethod
    def _cut_off(connection: Connection, reason: str) -> None:
        logger.debug("cutting off a connection of %s: %s", connection.address, reason)
        connection.cut_off()


def connections_possible(wanted: int) -> int:
    """How many connections can be open at once: the wanted number, or what the system allows.

    Raises the process's limit on open files as far as allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + MAX_LINGERING + _OTHER_FILES
    if soft < needed and soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # A third of them is for connections that are being closed.
    room = (soft - _OTHER_FILES) * 2 // 3
    possible = wanted if soft == resource.RLIM_INFINITY or soft >= needed else max(1, room)
    if possible < wanted:
        logger.warning(
            "CLIP_MAX_CONNECTIONS=%d is more than this system's limit of %d open files leaves room "
            "for: %d are taken",
            wanted,
            soft,
            possible,
        )
    return min(wanted, possible)
