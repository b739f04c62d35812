"""A server with the demo model that all tests of a user's view share, and a browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browsers import chromium, opened
from tests.support.servers import Server, demo_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server with the demo model, ready to respond."""
    log = tmp_path_factory.mktemp("server") / "log"
    with demo_server(log) as server:
        yield server
        assert "Traceback" not in server.log


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Open for one module only: Playwright's event loop must not meet those of other tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The page, opened for the first time, with the clipboard allowed."""
    with opened(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        yield page
