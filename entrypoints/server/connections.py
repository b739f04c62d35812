"""Connections whose clients cannot wear the server out: with limits on number, time and bytes."""

import asyncio
import itertools
import logging
import math
import resource
import uuid
from typing import Any, Final

import msgspec
from uvicorn import Config
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from entrypoints.http.errors.table import MEDIA_TYPE, problem
from entrypoints.server.client_limits import (
    HEAD_SECONDS,
    IDLE_SECONDS,
    LEFTOVER_SECONDS,
    MAX_HEAD_BYTES,
    MAX_UNSENT_BYTES,
    Patience,
)

logger = logging.getLogger(__name__)

_protocol_logger = logging.getLogger(f"{__name__}.protocol")
"""Uvicorn's for connections. It warns of each request that is no HTTP, as often as one is sent."""
_protocol_logger.setLevel(logging.ERROR)

_SWEEP_SECONDS: Final = 1.0

_OTHER_FILES: Final = 256
"""File descriptors that are left for models, caches and clients of collectors."""

_CHUNK_OVERHEAD: Final = 16
"""Bytes that chunking may add to each part of a body."""


class Connections:
    """All connections of a server, looked at once a second.

    Of those whose turn it is to send something, some are closed where there would be more than
    ``most``: of the address that has most of them, the one that has been waited for longest, those
    first that have never sent a request. So those who open thousands close their own, and who sends
    a request gets in and stays.
    """

    def __init__(self, *, most: int) -> None:
        """Make one.

        Args:
            most: connections that may be open at once.
        """
        self._most = most
        self._count = 0
        self._by_address: dict[str, dict[WatchedConnection, None]] = {}
        """Of each address, those first whose turn to send has lasted longest."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._refused = 0

    def protocol(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "WatchedConnection":
        """What uvicorn makes for each connection."""
        return WatchedConnection(self, config, server_state, app_state, _loop)

    def opened(self, connection: "WatchedConnection") -> bool:
        """Take a new connection in; False if there is no room for it."""
        if self._count >= self._most:
            dispensable = self._dispensable()
            if dispensable is None:
                return False
            self._drop(dispensable, "too many connections")
        self._by_address.setdefault(connection.address, {})[connection] = None
        self._count += 1
        if self._sweeping is None:
            self._sweep_later(connection.loop)
        return True

    def _dispensable(self) -> "WatchedConnection | None":
        """The one to close for another's sake; None if all are busy."""
        most = max(self._by_address.values(), key=len)
        for of_address in (most, *self._by_address.values()):
            for has_asked in (False, True):
                for each in of_address:
                    if each.waited_for and each.has_asked is has_asked:
                        return each
        return None

    def refused(self) -> None:
        """A connection is refused; the log has one line a second about all of them."""
        self._refused += 1

    def waits_anew(self, connection: "WatchedConnection") -> None:
        """Its client's turn to send has just begun."""
        of_address = self._by_address.get(connection.address, {})
        if connection in of_address:
            of_address[connection] = of_address.pop(connection)

    def closed(self, connection: "WatchedConnection") -> None:
        """Forget a connection."""
        of_address = self._by_address.get(connection.address, {})
        if connection in of_address:
            del of_address[connection]
            self._count -= 1
            if not of_address:
                del self._by_address[connection.address]

    def _sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        unsent: list[WatchedConnection] = []
        everyone = itertools.chain.from_iterable(self._by_address.values())
        for connection in tuple(everyone):
            if (reason := connection.overdue(now_s)) is not None:
                self._drop(connection, reason)
            elif connection.unsent:
                unsent.append(connection)
        excess = sum(connection.unsent for connection in unsent) - MAX_UNSENT_BYTES
        for connection in sorted(unsent, key=lambda each: each.untaken_until_s):
            if excess <= 0:
                break
            excess -= connection.unsent
            self._drop(connection, "too many bytes of answers are waiting to be taken")
        if self._refused:
            logger.warning(
                "refused %d connections: not HTTP, too large a head, or one too many", self._refused
            )
            self._refused = 0
        self._sweeping = None
        if self._count:
            self._sweep_later(loop)

    def _drop(self, connection: "WatchedConnection", reason: str) -> None:
        logger.debug("closing a connection of %s: %s", connection.address, reason)
        self.closed(connection)
        connection.transport.abort()


class WatchedConnection(HttpToolsProtocol):
    """Uvicorn's connection, which knows whose turn it is and since when."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _protocol_logger
        self._watch = connections
        self._wait_s: float | None = HEAD_SECONDS
        self._receiving = False
        self._overhead = 0
        self._running: RequestResponseCycle | None = None
        self._patience: Patience | None = None
        self.unsent = 0
        self.has_asked = False
        self._waited_for_since: float | None = self.loop.time()

    @property
    def address(self) -> str:
        """Of the client."""
        return self.client[0] if self.client else ""

    @property
    def waited_for(self) -> bool:
        """Whether it is the client's turn to send something."""
        return self._waited_for_since is not None

    def overdue(self, now_s: float) -> str | None:
        """Why the connection should be closed; None if it should not."""
        if (
            self._waited_for_since is not None
            and self._wait_s is not None
            and now_s - self._waited_for_since > self._wait_s
        ):
            return f"nothing complete was sent within {self._wait_s} seconds"
        before, self.unsent = self.unsent, self.transport.get_write_buffer_size()
        if not self.unsent:
            self._patience = None
            return None
        if self._patience is None:
            self._patience = Patience(now_s)
        else:
            self._patience.progressed(now_s, max(0, before - self.unsent))
        if now_s > self._patience.ends_s:
            return f"its answer was taken too slowly; {self.unsent} bytes were left"
        return None

    @property
    def untaken_until_s(self) -> float:
        """When the client's patience with its answer ends; the smaller, the slower it is."""
        return math.inf if self._patience is None else self._patience.ends_s

    # What asyncio tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it where there is no room."""
        super().connection_made(transport)
        if not self._watch.opened(self):
            self._refuse(
                503,
                "too_many_connections",
                "as many connections as the server takes are open and busy.",
                b"retry-after: 1\r\n",
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._watch.closed(self)
        if self._running is not None and not self._running.response_complete:
            # Uvicorn tells only the latest of pipelined requests, not the one being answered.
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent."""
        if self._waited_for_since is not None and self._wait_s == IDLE_SECONDS:
            self._wait_for(HEAD_SECONDS)
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(
                431,
                "head_too_large",
                f"the request's line and headers have more than {MAX_HEAD_BYTES} bytes, the limit.",
            )

    # What the parser tells

    def on_headers_complete(self) -> None:
        """The head is there; how long the body may take is for `Reception` to say."""
        self._receiving = self.has_asked = True
        self._wait_for(None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body is there."""
        self._overhead = max(0, self._overhead - len(body) - _CHUNK_OVERHEAD)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there: now it is the server's turn."""
        self._receiving = False
        self._overhead = 0
        if self.cycle is None or not self.cycle.response_complete:
            self._waited_for_since = None
        else:
            self._wait_for(IDLE_SECONDS)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is on its way: the client's turn again."""
        if self._running is not None:
            # What was not read of a body would be kept until the connection's next request.
            self._running.body.clear()
        if not self.pipeline:
            self._wait_for(LEFTOVER_SECONDS if self._receiving else IDLE_SECONDS)
        super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # What uvicorn would say in its own words

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(400, "invalid_http", "what was sent is not a request of HTTP/1.1.")

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: answered over HTTP/1.1, and no reason to fill the log."""

    def _wait_for(self, seconds: float | None) -> None:
        self._waited_for_since = self.loop.time()
        self._wait_s = seconds
        self._watch.waits_anew(self)

    def _refuse(self, status: int, code: str, detail: str, headers: bytes = b"") -> None:
        """Answer without the application, and close."""
        self._watch.refused()
        content = msgspec.json.encode(problem(status, detail, code, uuid.uuid4().hex))
        self.transport.write(
            b"%scontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n%s"
            % (STATUS_LINE[status], MEDIA_TYPE.encode(), len(content), headers, content)
        )
        self.transport.close()


def connections_possible(wanted: int) -> int:
    """How many connections can be open at once: as many as wanted, or as the system allows.

    Raises the process's own limit on open files as far as it may.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft < needed and soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    possible = wanted if soft == resource.RLIM_INFINITY else max(1, soft - _OTHER_FILES)
    if possible < wanted:
        logger.warning(
            "CLIP_MAX_CONNECTIONS=%d is more than this system's limit of %d open files leaves room "
            "for: %d are taken",
            wanted,
            soft,
            possible,
        )
    return min(wanted, possible)
