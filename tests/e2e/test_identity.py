"""Ten thousand mixed requests, some of them abandoned: every response belongs to its request."""

import asyncio
import contextlib
import functools
import random
from pathlib import Path

import aiohttp
import pytest

from adapters.encoders.fake import FakeEncoder
from checks.endurance.known_requests import KnownRequest, KnownRequests
from tests.support.photos import as_file, plain
from tests.support.servers import SLOW, Server, running, wait_for

REQUESTS = 10_000
CONCURRENCY = 40
ABANDONED = 0.1
"""Share of the requests whose client hangs up after up to 20 ms."""

SEED = 20261124


def requests(rng: random.Random) -> KnownRequests:
    """About a few hundred images of one colour each."""
    byte = functools.partial(rng.randrange, 256)
    pictures = [plain(byte(), byte(), byte(), size=(32, 24)) for _ in range(300)]
    files = [as_file(picture, "PNG") for picture in pictures]
    return KnownRequests(rng, FakeEncoder(embedding_dimension=768), files)


async def ask(client: aiohttp.ClientSession, request: KnownRequest) -> bool:
    """Whether the response was the right one; a refusal is retried, as its header says."""
    headers = {"Content-Type": request.content_type}
    while True:
        async with client.post(request.path, data=request.body, headers=headers) as response:
            if response.status != 503:
                return response.status == 200 and request.fits(await response.json())
        await asyncio.sleep(float(response.headers["Retry-After"]) / 10)


async def abandon(client: aiohttp.ClientSession, request: KnownRequest, after_s: float) -> None:
    """Ask, and hang up."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ask(client, request), after_s)


async def ask_all(server: Server) -> tuple[int, int]:
    """The numbers of right responses and of abandoned requests."""
    rng = random.Random(SEED)
    known = requests(rng)
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one() -> bool | None:
        async with gate:
            request = known.draw()
            if rng.random() < ABANDONED:
                await abandon(client, request, rng.random() * 0.02)
                return None
            return await ask(client, request)

    # httpx would take more of the processor than the server.
    async with aiohttp.ClientSession(server.url) as client:
        outcomes = await asyncio.gather(*(one() for _ in range(REQUESTS)))
    return outcomes.count(True), outcomes.count(None)


@pytest.mark.long
async def test_nothing_is_lost_and_nothing_mixed_up(tmp_path: Path) -> None:
    settings = {"SLOW_SECONDS": "0.002", "CLIP_MAX_BATCH_SIZE": "8"}
    with running(SLOW, tmp_path / "log", **settings) as server:
        wait_for(server, "/health/ready")
        right, abandoned = await ask_all(server)
        assert abandoned > REQUESTS * ABANDONED / 2
        assert right == REQUESTS - abandoned
        assert "Traceback" not in server.log
        assert server.stop() == 0
