"""Requests whose body Ray lost when a replica died."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from litestar.enums import ScopeType

from entrypoints.http.errors.table import BodyLost

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, ReceiveMessage, Scope, Send

WAIT_SECONDS: Final = 5
"""How long the first byte of a body may take. Clients send it right after the headers."""


class LostBodies:
    """Middleware that asks for a request again if its body was lost.

    Ray's proxy sends a request to another replica if the first one dies. It hands each part of the
    body out once, so that the second replica waits for a body which the first one has taken. That
    is not the client's fault, and so it gets 503 with ``Retry-After`` instead of 408.
    """

    def __init__(self, app: "ASGIApp", *, wait_s: float = WAIT_SECONDS) -> None:
        """Put it around ``app``, which receives `BodyLost` after ``wait_s`` seconds."""
        self._app = app
        self._wait_s = wait_s

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handle a request."""
        if scope["type"] == ScopeType.HTTP and _has_a_body(scope["headers"]):
            receive = self._first_in_time(receive)
        await self._app(scope, receive, send)

    def _first_in_time(self, receive: "Receive") -> "Receive":
        arrived = False

        async def received() -> "ReceiveMessage":
            nonlocal arrived
            if arrived:
                return await receive()
            try:
                async with asyncio.timeout(self._wait_s):
                    message = await receive()
            except TimeoutError:
                raise BodyLost(
                    f"no byte of the body arrived within {self._wait_s:g} seconds, perhaps because "
                    "the replica that had received it died; please send the request again."
                ) from None
            arrived = True
            return message

        return received


def _has_a_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in headers
    )
