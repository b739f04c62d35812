"""The app in process, on the fake encoder."""

import inspect
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from entrypoints.container import Container
from tests.support.app import composed, serving
from tests.support.responses import Client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that share a service in the event loop of their module, as it does."""
    for item in items:
        shared = {"shared_client", "keyed", "kept_out"} & set(getattr(item, "fixturenames", ()))
        if shared and inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"))


@pytest.fixture
def container() -> Container:
    """The service as it is composed, on the fake encoder; without decoding workers, for speed."""
    return composed()


@pytest.fixture
async def client(container: Container) -> AsyncIterator[Client]:
    """A client of the app, whose model has been loaded."""
    async with serving(container) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_client() -> AsyncIterator[Client]:
    """The same for all tests of a module, which leave the service as it was."""
    async with serving(composed()) as client:
        yield client


@pytest.fixture
def directory() -> Iterator[Path]:
    """A Unix socket's path may have 107 bytes; pytest's own directories are longer."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)
