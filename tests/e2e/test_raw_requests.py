"""Raw requests over a socket: each has the outcome that RFC 9110 and 9112 give it."""

from collections.abc import Iterator

import pytest

from checks.hostile.raw_http import fuzz
from tests.support.raw_exchange import exchange, statuses
from tests.support.raw_requests import RawCase, corpus
from tests.support.servers import SLOW, Server, running, wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running(SLOW, log, SLOW_SECONDS="0") as server:
        wait_for(server, "/health/ready")
        yield server
        assert "Traceback" not in server.log
        assert server.stop() == 0


@pytest.mark.parametrize("case", corpus(), ids=lambda case: case.name)
def test_its_outcome(server: Server, case: RawCase) -> None:
    received = exchange(server.url, case)
    expected = (*case.responses, frozenset({200})) if case.open else case.responses
    seen = statuses(received, head=b"".join(case.packets).startswith(b"HEAD"))
    assert len(seen) == len(expected), (seen, received[:2000])
    for status, allowed in zip(seen, expected, strict=True):
        assert status in allowed, (seen, received[:2000])
    assert b"/smuggled" not in received
    assert "/smuggled" not in server.log


async def test_mutations_are_answered_and_others_notice_nothing(server: Server) -> None:
    found = await fuzz(server, 300, seed=3)
    assert not found.findings
    assert found.seen[400] > 100
    assert found.seen[200]
    assert found.bystander_s
