"""The app in process, on the fake encoder."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from entrypoints.container import Container, decode_in_this_process, http_service
from entrypoints.settings import read_settings


@pytest.fixture
def container() -> Container:
    """The service as it is composed, on the fake encoder; without decoding workers, for speed."""
    container = Container(settings=read_settings({"CLIP_ENCODER": "fake"}))
    decode_in_this_process(container)
    return container


@pytest.fixture
async def client(container: Container) -> AsyncIterator[AsyncTestClient[Any]]:
    """A client of the app, whose model has been loaded."""
    async with AsyncTestClient(http_service(container), raise_server_exceptions=False) as client:
        while not (await client.get("/health/ready")).json()["ready"]:
            pass
        yield client


@pytest.fixture
def directory() -> Iterator[Path]:
    """A Unix socket's path may have 107 bytes; pytest's own directories are longer."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)
