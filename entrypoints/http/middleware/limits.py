"""Load shedding and body limits."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from litestar.types import HTTPReceiveMessage, HTTPScope, Receive, Send

from adapters.observability.prometheus_metrics import PrometheusMetrics
from application.inference.admission import Admission
from domain.limits import MAX_BODY_BYTES
from entrypoints.http.errors.table import (
    BodiesTooLarge,
    BodyTooLarge,
    BodyTooSlow,
    ClientGone,
    send_error,
)
from entrypoints.http.middleware import HttpApp
from entrypoints.server.client_limits import (
    GRACE_SECONDS,
    SLOWEST_BYTES_PER_SECOND,
    Patience,
)

logger = logging.getLogger(__name__)

_LOG_EVERY_SECONDS: Final = 1.0
_BODILESS: Final = ("GET", "HEAD", "OPTIONS")


class LoadShedding:
    """Middleware that refuses requests while the server is full, at almost no cost.

    A full server often receives many times the load it can handle. If each refusal went through
    routing, a span and a log line, refusals would take the processor from accepted requests. Here a
    request is refused with 503 before its body is read. The metrics count it, and the log has one
    line a second about all refusals.
    """

    def __init__(
        self,
        app: HttpApp,
        *,
        paths: Collection[str],
        admission: Admission,
        client_of: Callable[[HTTPScope], str],
        metrics: PrometheusMetrics,
    ) -> None:
        """Put it around ``app``.

        Args:
            app: handles accepted requests.
            paths: paths whose POST requests need admission.
            admission: decides whether there is room.
            client_of: identifies the client of a request.
            metrics: counts the refusals.
        """
        self._app = app
        self._paths = frozenset(paths)
        self._admission = admission
        self._client_of = client_of
        self._metrics = metrics
        self._refused = 0

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if (
            scope["method"] == "POST"
            and scope["path"] in self._paths
            and not self._admission.draining
            and not self._admission.has_room(client=self._client_of(scope))
        ):
            await self._refuse(scope, send)
        else:
            await self._app(scope, receive, send)

    async def _refuse(self, scope: HTTPScope, send: Send) -> None:
        told = await send_error(scope, send, self._admission.full(client=self._client_of(scope)))
        self._metrics.request_finished(
            endpoint=scope["path"], outcome=told.code, status=told.status, seconds=0.0
        )
        if not self._refused:
            asyncio.get_running_loop().call_later(_LOG_EVERY_SECONDS, self._log)
        self._refused += 1

    def _log(self) -> None:
        logger.warning(
            "refused %d requests: %d were already waiting or running, the limit",
            self._refused,
            self._admission.capacity,
        )
        self._refused = 0


@dataclass(eq=False, slots=True)
class _Body:
    """The body of one request.

    Attributes:
        patience: the client's remaining time, by `time.monotonic`.
        received: bytes held so far.
        complete: whether all of it has arrived.
        broken_off: whether it was aborted to make room.
        wait: the time-out of the current wait for more, if any.
    """

    patience: Patience = field(default_factory=lambda: Patience(time.monotonic()))
    received: int = 0
    complete: bool = False
    broken_off: bool = False
    wait: asyncio.Timeout | None = None

    def break_off(self) -> None:
        self.broken_off = True
        if self.wait is not None:
            self.wait.reschedule(0)


class BodyLimits:
    """Middleware that passes on request bodies, within limits of size, time and memory.

    A body that is too large or arrives too slowly is refused. All bodies together, from their first
    byte to the end of the request, hold no more than a fixed number of bytes. If there would be
    more, the body that has been arriving for longest is refused: that of the slowest client. No
    body is read before the endpoint asks for it.
    """

    def __init__(self, app: HttpApp, *, most_bytes: int) -> None:
        """Put it around ``app``.

        Args:
            app: handles the requests.
            most_bytes: limit for all bodies together.
        """
        self._app = app
        self._most_bytes = most_bytes
        self._held = 0
        self._bodies: dict[_Body, None] = {}
        """Bodies in the order of their start."""

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["method"] in _BODILESS:
            await self._app(scope, receive, send)
            return
        body: _Body | None = None

        async def received() -> HTTPReceiveMessage:
            nonlocal body
            if body is None:
                _check_declared_size(scope)
                body = _Body()
                self._bodies[body] = None
            if body.complete:
                return await receive()  # type: ignore[return-value]
            return await self._more_of(body, receive)

        try:
            await self._app(scope, received, send)
        finally:
            if body is not None:
                self._forget(body)

    async def _more_of(self, body: _Body, receive: Receive) -> HTTPReceiveMessage:
        """The next part of a body.

        Raises:
            BodyTooSlow: its time has run out.
            BodyTooLarge: it has too many bytes.
            BodiesTooLarge: there is no room for it.
        """
        if body.broken_off:
            raise self._no_room()
        left_s = body.patience.ends_s - time.monotonic()
        try:
            async with asyncio.timeout(left_s) as body.wait:
                message: HTTPReceiveMessage = await receive()  # type: ignore[assignment]
        except TimeoutError:
            raise self._no_room() if body.broken_off else _too_slow(body) from None
        finally:
            body.wait = None
        if message["type"] == "http.request":
            body.complete = not message.get("more_body", False)
            size = len(message["body"])
            body.patience.progressed(time.monotonic(), size)
            body.received += size
            self._held += size
            if body.received > MAX_BODY_BYTES:
                raise _too_large(str(body.received) if body.complete else "more")
            if self._held > self._most_bytes:
                self._make_room_for(body)
        return message

    def _make_room_for(self, newest: _Body) -> None:
        """Abort the bodies that have been arriving for longest, as many as needed.

        Raises:
            BodiesTooLarge: ``newest`` itself must be aborted.
        """
        arriving = (body for body in tuple(self._bodies) if not body.complete)
        while self._held > self._most_bytes:
            longest = next(arriving, newest)
            if longest is newest:
                raise self._no_room()
            longest.break_off()
            self._forget(longest)

    def _forget(self, body: _Body) -> None:
        self._held -= body.received
        body.received = 0
        self._bodies.pop(body, None)

    def _no_room(self) -> BodiesTooLarge:
        return BodiesTooLarge(
            f"the bodies of all requests together would hold more than {self._most_bytes} bytes, "
            "the limit; this one had taken longest to arrive, or was one too many."
        )


def _too_slow(body: _Body) -> BodyTooSlow:
    return BodyTooSlow(
        f"the body arrives too slowly: {body.received} bytes so far; it may fall at most "
        f"{GRACE_SECONDS} seconds behind {SLOWEST_BYTES_PER_SECOND} bytes a second."
    )


def _check_declared_size(scope: HTTPScope) -> None:
    """Refuse a body whose declared size is too large, before reading any of it."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > MAX_BODY_BYTES:
            raise _too_large(value[:20].decode("ascii"))


def _too_large(size: str) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than {MAX_BODY_BYTES} bytes, the limit for a request; it has {size}."
    )


async def whole_body(receive: Receive) -> bytes:
    """All of a request's body.

    Raises:
        ClientGone: the client hung up before it had sent all.
        BodyTooLarge, BodyTooSlow, BodiesTooLarge: as `BodyLimits` says.
    """
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone("the client hung up while it was sending.")
        parts.append(message["body"])
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
