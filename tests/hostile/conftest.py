"""One server for all that is hostile."""

from collections.abc import Iterator

import pytest

from tests.support.hostile_measuring import Prober
from tests.support.servers import Server, demo_server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server with the demo model, ready to respond."""
    with demo_server(tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="package")
def prober(server: Server) -> Iterator[Prober]:
    """Asks for `/health` all the time."""
    with Prober(server).running() as prober:
        yield prober
