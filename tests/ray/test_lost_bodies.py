"""A body that another replica took before it died."""

import asyncio
from typing import Any

import pytest

from entrypoints.http.errors.table import BodyLost, status_of
from entrypoints.ray.lost_bodies import LostBodies

BODY: dict[str, Any] = {"type": "http.request", "body": b"x", "more_body": False}


class Receiver:
    """Keeps what it received, or the error that it got instead."""

    def __init__(self, messages: int = 1) -> None:
        self.received: list[Any] = []
        self._messages = messages

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for _ in range(self._messages):
            self.received.append(await receive())


async def ask(app: Receiver, receive: Any, *headers: tuple[bytes, bytes]) -> None:
    scope: Any = {"type": "http", "headers": list(headers)}
    send: Any = None
    await LostBodies(app, wait_s=0.01)(scope, receive, send)


@pytest.mark.parametrize("header", [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")])
async def test_the_client_is_asked_to_send_again(header: tuple[bytes, bytes]) -> None:
    app = Receiver()
    with pytest.raises(BodyLost, match=r"0\.01 seconds") as lost:
        await ask(app, asyncio.Queue().get, header)
    assert status_of(lost.value) == 503
    assert lost.value.retry_after_s > 0


async def test_a_body_that_has_begun_may_take_longer() -> None:
    async def slow() -> Any:
        if app.received:
            await asyncio.sleep(0.05)
        return BODY

    app = Receiver(messages=2)
    await ask(app, slow, (b"content-length", b"2"))
    assert app.received == [BODY, BODY]


async def test_a_request_without_a_body_may_wait_for_its_client_to_go() -> None:
    async def gone() -> Any:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    for headers in ([], [(b"content-length", b"0")]):
        app = Receiver()
        await ask(app, gone, *headers)
        assert app.received == [{"type": "http.disconnect"}]
