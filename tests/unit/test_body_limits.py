"""Receiving bodies: room, memory, and who has to go."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from entrypoints.http.errors.table import BodiesTooLarge
from entrypoints.http.middleware.limits import BodyLimits
from entrypoints.server.client_limits import GRACE_SECONDS, SLOWEST_BYTES_PER_SECOND, Patience

MOST = 100


class Client:
    """Sends a body piece by piece, and notes what became of its request."""

    def __init__(self, reception: Callable[..., Awaitable[None]], method: str = "POST") -> None:
        self._pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.request = asyncio.ensure_future(
            reception({"type": "http", "method": method, "headers": []}, self._pieces.get, None)
        )

    async def send(self, size: int, *, more: bool = True) -> None:
        self._pieces.put_nowait({"type": "http.request", "body": b"x" * size, "more_body": more})
        for _ in range(10):
            await asyncio.sleep(0)


class App:
    """Reads each request's body and then waits for ``finish``."""

    def __init__(self) -> None:
        self.bodies: list[int] = []
        self.finish = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, scope["method"] == "POST"
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        self.bodies.append(size)
        await self.finish.wait()


def reception(app: App) -> Any:
    return BodyLimits(app, most_bytes=MOST)


async def test_bodies_reach_the_application() -> None:
    app = App()
    app.finish.set()
    client = Client(reception(app))
    await client.send(30)
    await client.send(20, more=False)
    await client.request
    assert app.bodies == [50]


async def test_the_longest_arriving_makes_room() -> None:
    app = App()
    receives = reception(app)
    oldest, newer, newest = (Client(receives) for _ in range(3))
    for client in (oldest, newer):
        await client.send(40)
    await newest.send(40, more=False)
    with pytest.raises(BodiesTooLarge, match=str(MOST)):
        await oldest.request
    assert not newer.request.done()
    assert app.bodies == [40]


async def test_it_may_be_the_one_that_sends() -> None:
    receives = reception(App())
    oldest, newer = Client(receives), Client(receives)
    await oldest.send(40)
    await newer.send(40)
    await oldest.send(40)
    with pytest.raises(BodiesTooLarge):
        await oldest.request
    assert not newer.request.done()


async def test_what_is_complete_stays_and_what_is_too_much_goes() -> None:
    app = App()
    receives = reception(app)
    complete = Client(receives)
    await complete.send(90, more=False)
    another = Client(receives)
    await another.send(20, more=False)
    with pytest.raises(BodiesTooLarge):
        await another.request
    assert app.bodies == [90]
    assert not complete.request.done()


async def test_memory_is_free_again_once_requests_are_over() -> None:
    app = App()
    receives = reception(app)
    for _ in range(5):
        app.finish.clear()
        client = Client(receives)
        await client.send(90, more=False)
        app.finish.set()
        await client.request
    broken = Client(receives)
    await broken.send(101)
    with pytest.raises(BodiesTooLarge):
        await broken.request
    last = Client(receives)
    await last.send(100, more=False)
    await last.request
    assert app.bodies[-1] == 100


async def test_requests_without_a_body_pass() -> None:
    app = App()
    app.finish.set()
    await Client(reception(app), method="GET").request
    assert app.bodies == [0]


def test_patience_grows_with_progress_and_never_beyond_the_grace() -> None:
    patience = Patience(now_s=100)
    assert patience.ends_s == 100 + GRACE_SECONDS
    patience.progressed(101, 10**9)
    assert patience.ends_s == 101 + GRACE_SECONDS
    for second in range(102, 300):  # half as fast as it must be
        patience.progressed(second, SLOWEST_BYTES_PER_SECOND // 2)
    assert patience.ends_s < 299
