"""One client's connection: HTTP/1.1 on uvicorn's protocol, with its own phases and time limits.

Uvicorn parses with llhttp, runs the application and writes its responses. This module adds what
uvicorn lacks. An upgrade is ignored and the body is read. Requests that RFC 9112 forbids are
refused. Errors are sent after earlier responses. Closing a connection never loses a response. It
depends on undocumented names in uvicorn, so it is only tested with version `UVICORN`.
"""

import asyncio
import contextlib
import math
import socket
import uuid
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any, Final, Protocol

import httptools
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
    LINGER_BYTES,
    LINGER_SECONDS,
    MAX_HEAD_BYTES,
    MAX_PIPELINED,
    Patience,
)
from entrypoints.server.request_heads import Refusal, head_fault, invalid, origin_form
from entrypoints.server.turns import Kind, Turns

UVICORN: Final = "0.54.0"
"""The version whose internal names this module uses."""

_CHUNK_OVERHEAD: Final = 16
"""Bytes that chunking may add to each part of a body."""

_HALF_CLOSED_SECONDS: Final = 1.0
"""After this long, a client that has closed its side is probed for whether it still listens."""

_TOO_LARGE: Final = Refusal(
    431,
    "head_too_large",
    f"the request's line, headers and trailers have more than {MAX_HEAD_BYTES} bytes, the limit.",
)
_TOO_MANY_PIPELINED: Final = Refusal(
    503,
    "too_many_pipelined",
    f"more than {MAX_PIPELINED} requests wait on this connection, the limit.",
    b"retry-after: 1\r\n",
)
_TOO_SLOW: Final = Refusal(
    408, "head_too_slow", f"the request's head was not complete within {HEAD_SECONDS} seconds."
)
_GIVE_WAY: Final = Refusal(
    503,
    "too_many_connections",
    "the server has reached its limit of connections; this one was closed to make room.",
    b"retry-after: 1\r\n",
)


class Phase(Enum):
    """The phase of a connection. It says whose turn it is: the client's or the server's.

    HANDSHAKE → HEAD → (BODY →) ANSWERING → IDLE → HEAD …; a response that comes before the end of
    the body leads from BODY to LEFTOVER and then to IDLE. CLOSING can follow any phase and is the
    last: data received then is not a request.
    """

    HANDSHAKE = auto()
    HEAD = auto()
    BODY = auto()
    ANSWERING = auto()
    LEFTOVER = auto()
    IDLE = auto()
    CLOSING = auto()


_SECONDS: Final = {
    Phase.HANDSHAKE: HEAD_SECONDS,
    Phase.HEAD: HEAD_SECONDS,
    Phase.LEFTOVER: LEFTOVER_SECONDS,
    Phase.IDLE: IDLE_SECONDS,
    Phase.CLOSING: LINGER_SECONDS,
}
"""How long each may last. `BodyLimits` times bodies; the server's own turn has no limit."""


class Watch(Protocol):
    """Receives a connection's events, see `Connections`."""

    def moved(self, connection: "Connection") -> None:
        """The connection has entered another phase."""

    def closed(self, connection: "Connection") -> None:
        """The connection has ended."""

    def refused(self) -> None:
        """The connection itself sent a response."""


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, with a phase, from the moment it is accepted."""

    def __init__(
        self,
        accepted: socket.socket,
        address: str,
        *,
        watch: Watch,
        turns: Turns,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Start with an accepted connection, before any TLS handshake.

        Args:
            accepted: its socket; the transport will own it.
            address: of the client.
            watch: is told of every change.
            turns: starts the requests.
            config: uvicorn's.
            server_state: uvicorn's.
            app_state: state from the application's lifespan, for requests.
            loop: the running one.
        """
        super().__init__(config, server_state, app_state, loop)
        self.address = address
        self.phase = Phase.HANDSHAKE
        self.has_asked = False
        self.unsent = 0
        self._socket = accepted
        self._watch = watch
        self._turns = turns
        self._since_s = loop.time()
        self._last_turn_s: float | None = None
        self._patience: Patience | None = None
        self._raw: asyncio.Transport | None = None
        self._running: RequestResponseCycle | None = None
        self._receiving = False
        self._in_headers = False
        self._replaying = False
        self._overhead = 0
        self._head_bytes = 0
        self._refusal: Refusal | None = None
        self._last_words: bytes | None = None
        self._lingered = 0
        self._ended = False

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._since_s = self.loop.time()
        self._watch.moved(self)

    # What `Connections` asks

    @property
    def waited_for(self) -> bool:
        """Whether it is the client's turn and no data from it is waiting to be read."""
        return self.phase not in (Phase.ANSWERING, Phase.CLOSING) and not self._unread()

    @property
    def untaken_until_s(self) -> float:
        """When the client's time to read its response ends; smaller for slower clients."""
        return math.inf if self._patience is None else self._patience.ends_s

    def look(self, now_s: float) -> str | None:
        """End a phase that has lasted too long, with a response if one can still help.

        Returns:
            Why the connection must be cut off; None if it need not be.
        """
        if self._raw is None:  # the handshake has its own timer
            return None
        if self._ended and self._is_gone():
            return "its client has hung up"
        return self._not_taken(self._raw, now_s) or self._lasted_too_long(now_s)

    def _not_taken(self, raw: asyncio.Transport, now_s: float) -> str | None:
        before, self.unsent = self.unsent, raw.get_write_buffer_size()
        if not self.unsent:
            self._patience = None
        elif self._patience is None:
            self._patience = Patience(now_s)
        else:
            self._patience.progressed(now_s, max(0, before - self.unsent))
        if self._patience is None or now_s <= self._patience.ends_s:
            return None
        return f"its response was read too slowly; {self.unsent} bytes were left"

    def _lasted_too_long(self, now_s: float) -> str | None:
        limit_s = _SECONDS.get(self.phase)
        if limit_s is None or now_s - self._since_s <= limit_s or self.unsent:
            return None
        if self.phase in (Phase.CLOSING, Phase.LEFTOVER):
            return f"its client was {self.phase.name.lower()} for more than {limit_s} seconds"
        if self.phase is Phase.HEAD and self._in_headers:
            self._fail(_TOO_SLOW)
        elif not self._unread():
            self._finish()
        return None

    def give_way(self) -> None:
        """Close to make room for another; a request that was just sent gets a 503 to retry."""
        if self._raw is not None:
            self._fail(_GIVE_WAY)
        elif self.config.is_ssl:
            self.cut_off()
        else:  # accepted in this pass of the loop: `connection_made` refuses it
            self._enter(Phase.CLOSING)

    def cut_off(self) -> None:
        """Close now; unsent data is lost."""
        self._watch.closed(self)
        if self._raw is not None:
            self._raw.abort()
        else:
            # In a handshake, which sees an end of what it reads and closes the socket.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _unread(self) -> bool:
        """Whether the kernel holds unread data from the client."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _is_gone(self) -> bool:
        try:
            self._socket.getpeername()
        except OSError:
            return True
        return False

    # What asyncio tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start reading; the application's view of the transport lingers when it is closed."""
        self._raw = transport
        super().connection_made(_Lingering(transport, self._finish))
        given_way = self.phase is Phase.CLOSING
        self._enter(Phase.HEAD)
        if given_way:
            self._fail(_GIVE_WAY)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everyone who still works for this connection."""
        self._watch.closed(self)
        self.phase = Phase.CLOSING
        for cycle in self._unanswered():
            _disconnect(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent."""
        if self.phase is Phase.CLOSING:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.cut_off()
            return
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        self._overhead += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(memoryview(data))
        except httptools.HttpParserError:
            self._fail(self._refusal or invalid("this is not an HTTP/1.1 request."))
            return
        if self._overhead > MAX_HEAD_BYTES:
            self._fail(_TOO_LARGE)

    def _parse(self, data: memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._read_as_if_without_upgrade()
            else:
                return

    def _read_as_if_without_upgrade(self) -> None:
        """Ignore an upgrade (RFC 9110, 7.8): what follows the head is the body.

        Llhttp treats it as another protocol and has no switch for that. So a new parser gets a head
        with the same framing, without effect, and continues from there.
        """
        framing = b"".join(
            b"%s: %s\r\n" % (name, value)
            for name, value in self.headers
            if name in (b"content-length", b"transfer-encoding")
        )
        if not self.parser.should_keep_alive():
            framing += b"connection: close\r\n"
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._replaying = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % framing)
        self._replaying = False

    def eof_received(self) -> bool:  # type: ignore[override]
        """Respond to what the client sent before it closed its side; then close.

        Returns:
            Whether the transport stays open.
        """
        if self.phase is Phase.CLOSING or self.scheme == "https":
            return False
        if self._receiving and self.pipeline:
            self.pipeline.popleft()  # the last one is not complete, and never will be
        elif self._receiving:
            return False
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is None or last.response_complete:
            return False
        last.keep_alive = False
        self._ended = True
        self.loop.call_later(_HALF_CLOSED_SECONDS, self._ask_whether_it_listens)
        return True

    def _ask_whether_it_listens(self) -> None:
        """Send an interim response to a client that has closed its side and waits.

        A client that hung up looks the same from here. But its system sends a reset for any data it
        receives, and then the request can be dropped.
        """
        cycle = self._running
        if self._raw is None or cycle is None or cycle.response_started or cycle.disconnected:
            return
        if cycle.scope["http_version"] == "1.1":
            self._raw.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.loop.call_later(_HALF_CLOSED_SECONDS / 4, self._hang_up_if_gone)

    def _hang_up_if_gone(self) -> None:
        if self._raw is not None and self._is_gone():
            self.cut_off()

    # What the parser tells

    def on_message_begin(self) -> None:
        """A request begins."""
        if not self._replaying:
            self._in_headers = True
            self._head_bytes = 0
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the target has arrived."""
        if not self._replaying:
            self._count(len(url))
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has arrived; trailers are not headers (RFC 9110, 6.5.1)."""
        if self._replaying:
            return
        self._count(len(name) + len(value) + 4)
        if self._in_headers:
            super().on_header(name, value.strip(b" \t"))

    def _count(self, size: int) -> None:
        # Arriving bytes are counted too, except the head of a request that arrives in one piece.
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The head is complete; `BodyLimits` decides how long the body may take."""
        if self._replaying:
            return
        self._in_headers = False
        method = self.parser.get_method().decode("ascii")
        version = self.parser.get_http_version()
        self.expect_100_continue &= version == "1.1"  # RFC 9110, 10.1.1
        fault = head_fault(method, version, self.headers)
        if fault is not None:
            self._refuse_head(fault)
        # OPTIONS of the server as a whole is that of a path which always exists.
        of_all = method == "OPTIONS" and self.url == b"*"
        target = b"/health/live" if of_all else origin_form(self.url)
        if target is None:
            self._refuse_head(invalid("the request's target is neither a path nor an address."))
        else:
            self.url = target
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refuse_head(_TOO_MANY_PIPELINED)
        self._receiving = self.has_asked = True
        super().on_headers_complete()
        if self.expect_100_continue:
            # A client that gets its response before it has sent the body may still send it, or not.
            self.cycle.keep_alive = False
        if self.phase is Phase.HEAD:
            self._enter(Phase.BODY)

    def _refuse_head(self, refusal: Refusal) -> None:
        """Stop the parser; its caller sends the response.

        Raises:
            HeadRefused: always.
        """
        self._refusal = refusal
        raise HeadRefused

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        self._overhead = max(0, self._overhead - len(body) - _CHUNK_OVERHEAD)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete: now it is the server's turn."""
        if self.parser.should_upgrade():
            return  # it is not: the body is still to be read
        self._receiving = False
        self._overhead = 0
        if self.expect_100_continue:
            self.cycle.keep_alive = (
                self.scope["http_version"] == "1.1" and self.parser.should_keep_alive()
            )
        self._enter(Phase.IDLE if self._is_answered() else Phase.ANSWERING)
        super().on_message_complete()

    def _is_answered(self) -> bool:
        return self._running is not None and self._running.response_complete

    # What uvicorn does

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle

        def start() -> None:
            self._last_turn_s = self.loop.time()
            if cycle.disconnected:  # refused meanwhile, and the connection may be closing
                return
            if self._receiving and cycle is self.cycle and self.phase is not Phase.BODY:
                self._enter(Phase.BODY)
            super(Connection, self)._start_asgi_task(cycle, app)

        if cycle.scope["path"].startswith("/health"):
            kind = Kind.PROBE
        else:
            kind = Kind.READ if cycle.scope["method"] in ("GET", "HEAD") else Kind.WORK
        self._turns.wait(start, kind=kind, last_turn_s=self._last_turn_s)

    def on_response_complete(self) -> None:
        """The response is sent: start the next request, or it is the client's turn again."""
        if self._running is not None:
            # The unread rest of a body would be kept until the connection's next request.
            self._running.body.clear()
        if self.phase is Phase.CLOSING:
            self.server_state.total_requests += 1
            return
        if not self.pipeline:
            if self._last_words is not None:
                self._close_with(self._last_words)
                return
            if self._ended:
                self._finish()
                return
            if self._receiving:
                self._enter(Phase.LEFTOVER)
            else:
                self._enter(Phase.HEAD if self._in_headers else Phase.IDLE)
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Do nothing: `look` closes idle connections."""

    def shutdown(self) -> None:
        """Close if no request is in progress; else after its response."""
        if self._raw is None:
            self.cut_off()
        elif self.phase in (Phase.HEAD, Phase.IDLE) and not self._in_headers and not self._unread():
            self._raw.close()
        else:
            for cycle in self._unanswered():
                cycle.keep_alive = False

    # Ends

    def _unanswered(self) -> Iterable[RequestResponseCycle]:
        """The requests that were accepted and have no response yet, in their order."""
        if self._running is not None and not self._running.response_complete:
            yield self._running
        yield from (cycle for cycle, _ in reversed(self.pipeline))

    def _fail(self, refusal: Refusal) -> None:
        """Refuse the current request, after the responses to earlier ones; then close."""
        if self.phase is Phase.CLOSING:
            return
        self._watch.refused()
        content = msgspec.json.encode(
            problem(refusal.status, refusal.detail, refusal.code, uuid.uuid4().hex)
        )
        response = b"%scontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n%s" % (
            STATUS_LINE[refusal.status],
            MEDIA_TYPE.encode(),
            len(content),
            refusal.headers,
            content,
        )
        broken = self.cycle if self._receiving else None
        if broken is not None and self.pipeline:
            self.pipeline.popleft()
        elif broken is not None and broken.response_started:
            # A second response would be taken for that of the next request.
            if broken.response_complete:
                self._finish()
            else:
                self.cut_off()
            return
        elif broken is not None:
            _disconnect(broken)
        if broken is not self._running and any(True for _ in self._unanswered()):
            self._last_words = response
            self._receiving = False
            self.flow.pause_reading()
        else:
            self._close_with(response)

    def _close_with(self, response: bytes) -> None:
        assert self._raw is not None
        self._raw.write(response)
        self._finish()

    def _finish(self) -> None:
        """Close once the client has read everything and closed its side.

        If the server closed at once while data from the client is still unread here, the client's
        system would discard a response that it has not read yet (RFC 9112, 9.6).
        """
        raw = self._raw
        if raw is None or self.phase is Phase.CLOSING:
            return
        more_may_come = self._receiving or self.phase in (Phase.HEAD, Phase.BODY)
        self._unset_keepalive_if_required()
        self._enter(Phase.CLOSING)
        if self._ended:
            raw.close()
        elif raw.can_write_eof():
            raw.write_eof()
            self.flow.resume_reading()
        elif more_may_come:  # TLS has no half-closed connections: the sweep closes it
            self.flow.resume_reading()
        else:
            raw.close()


class HeadRefused(Exception):
    """Raised through the parser to stop it."""


class _Lingering(asyncio.Transport):
    """A transport whose ``close`` goes through the connection; the rest is the real transport's."""

    def __init__(self, raw: asyncio.Transport, finish: Any) -> None:
        super().__init__()
        self._finish = finish
        self._closing = False
        self._raw = raw
        self.write = raw.write  # type: ignore[method-assign]
        self.pause_reading = raw.pause_reading  # type: ignore[method-assign]
        self.resume_reading = raw.resume_reading  # type: ignore[method-assign]
        self.get_extra_info = raw.get_extra_info  # type: ignore[method-assign]

    def is_closing(self) -> bool:
        """Whether nothing more will be written."""
        return self._closing or self._raw.is_closing()

    def close(self) -> None:
        """Write the rest, and close as the connection does."""
        self._closing = True
        self._finish()


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Tell the application that its client has gone; anything it still sends is discarded."""
    cycle.disconnected = True
    cycle.message_event.set()
