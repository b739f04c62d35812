"""The app in process, on the fake encoder unless a test says otherwise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar.testing import AsyncTestClient

from entrypoints.container import Container, decode_in_this_process, http_service
from entrypoints.settings import read_settings
from tests.support.responses import Client


def composed(**environment: str) -> Container:
    """The service with these variables set; without decoding workers, for speed."""
    container = Container(settings=read_settings({"CLIP_ENCODER": "fake", **environment}))
    decode_in_this_process(container)
    return container


@asynccontextmanager
async def serving(container: Container) -> AsyncIterator[Client]:
    """A client of the service, whose model has been loaded."""
    async with AsyncTestClient(http_service(container), raise_server_exceptions=False) as client:
        while not (await client.get("/health/ready")).json()["ready"]:  # noqa: ASYNC110 nothing tells of it
            await asyncio.sleep(0.005)
        yield client
