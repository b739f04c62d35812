"""Receives request bodies: not for ever, and not too many at once."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPReceiveMessage, Receive, Scope, Send

from domain.errors import ClipError, ServiceUnavailable
from entrypoints.server.client_limits import (
    GRACE_SECONDS,
    SLOWEST_BYTES_PER_SECOND,
    Patience,
)

_BODILESS: Final = ("GET", "HEAD", "OPTIONS")


class BodyTooSlow(ClipError):
    """The body fell too far behind the rate at which a body must arrive."""

    code = "body_too_slow"


class BodiesTooLarge(ServiceUnavailable):
    """The bodies of all requests together would take more memory than they may."""

    code = "too_many_bytes"


@dataclass(eq=False, slots=True)
class _Body:
    """The body of one request.

    Attributes:
        patience: how long its client still has, by `time.monotonic`.
        received: bytes of it that are held.
        complete: whether all of it is there.
        broken_off: whether it had to make room.
        wait: the time-out of the wait for more of it, while there is one.
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


class Reception:
    """An ASGI application around another one, which it hands the bodies of requests.

    A body that arrives too slowly is broken off. All bodies together, from their first byte to the
    end of the request, hold no more than a fixed number of bytes: where there would be more, the
    one that has been arriving for longest is broken off, which is that of the slowest client.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int) -> None:
        """Make one.

        Args:
            app: answers the requests.
            most_bytes: that all bodies together may hold.
        """
        self._app = app
        self._most_bytes = most_bytes
        self._held = 0
        self._bodies: dict[_Body, None] = {}
        """In the order in which they began."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != ScopeType.HTTP or scope["method"] in _BODILESS:
            await self._app(scope, receive, send)
            return
        body: _Body | None = None

        async def received() -> HTTPReceiveMessage:
            nonlocal body
            if body is None:
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
            BodyTooSlow: its time is over.
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
            if self._held > self._most_bytes:
                self._make_room_for(body)
        return message

    def _make_room_for(self, newest: _Body) -> None:
        """Break off those that have been arriving for longest, as many as must be.

        Raises:
            BodiesTooLarge: it is ``newest`` that has to go.
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
            "the limit; this one had been arriving for longest, or was one too many."
        )


def _too_slow(body: _Body) -> BodyTooSlow:
    return BodyTooSlow(
        f"the body arrives too slowly: {body.received} bytes so far; it may fall at most "
        f"{GRACE_SECONDS} seconds behind {SLOWEST_BYTES_PER_SECOND} bytes a second."
    )
