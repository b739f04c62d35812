"""Profiling starts when its server is there, and is nobody's trouble when it is not."""

import logging
import socket
import threading

import pytest

from adapters.observability.profiling import Profiling, start_profiling


class Agent:
    """Notes that it was started; may fail at it."""

    def __init__(self, outcome: bool | Exception = True) -> None:
        self._outcome = outcome
        self.calls: list[tuple[str, str]] = []

    def start(self, url: str, environment: str) -> bool:
        self.calls.append((url, environment))
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def test_it_starts_once_its_server_listens_and_not_before() -> None:
    agent = Agent()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # taken, but nobody listens there yet
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        profiling = Profiling(url=url, environment="test", start=agent.start, retry_s=0.01)
        profiling.start()
        profiling.join(0.2)
        assert agent.calls == []
        server.listen()
        profiling.join(10)
    assert agent.calls == [(url, "test")]


def test_it_stops_looking_when_it_is_closed() -> None:
    agent = Agent()
    profiling = Profiling(url="http://127.0.0.1:1", environment="test", start=agent.start)
    profiling.start()
    profiling.close()
    profiling.join(10)
    assert profiling.ended
    assert agent.calls == []


@pytest.mark.parametrize("outcome", [False, RuntimeError("no such system call")])
def test_an_agent_that_fails_is_one_line_in_the_log(
    outcome: bool | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        profiling = Profiling(url=url, environment="test", start=Agent(outcome).start)
        profiling.start()
        profiling.join(10)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no profiling" in record.message


def test_it_is_off_when_it_is_not_wanted() -> None:
    before = threading.active_count()
    assert start_profiling(wanted=False, url="http://127.0.0.1:1", environment="test") is None
    assert threading.active_count() == before
