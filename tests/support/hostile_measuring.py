"""Sends one hostile request and measures what it costs the server and its other clients."""

import contextlib
import dataclasses
import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from checks.endurance.vitals import memory_mib
from tests.support.hostile_corpus import VALID_REQUESTS, Hostile, request_body
from tests.support.servers import Server

GUARD_S: Final = 60
"""How long a client waits: only so that a hanging server ends the test."""

_PROBED_EVERY_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    content_type: str
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request cost.

    Attributes:
        seconds: from the first byte sent to the last one received.
        mebibytes: of resident memory at the worst moment, beyond what was resident before.
        pause_s: the longest that `/health` took meanwhile, on a connection of its own.
    """

    seconds: float
    mebibytes: float
    pause_s: float


class Prober:
    """Asks for `/health` without a break, and remembers the slowest response."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=GUARD_S)
        self._ended = threading.Event()
        self._worst_s = 0.0
        self._asked_s = time.perf_counter()
        self._thread = threading.Thread(target=self._probe)

    @contextmanager
    def running(self) -> Iterator["Prober"]:
        """Probe inside."""
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()
            self._connection.close()

    def forget(self) -> None:
        """Measure from here on."""
        self._worst_s = 0.0

    @property
    def worst_s(self) -> float:
        """The slowest response since then, the one that is being waited for included."""
        return max(self._worst_s, time.perf_counter() - self._asked_s - _PROBED_EVERY_S)

    def _probe(self) -> None:
        while not self._ended.wait(_PROBED_EVERY_S):
            self._asked_s = time.perf_counter()
            self._connection.request("GET", "/health")
            assert self._connection.getresponse().read()
            self._worst_s = max(self._worst_s, time.perf_counter() - self._asked_s)


def send(server: Server, hostile: Hostile) -> Answer:
    """The response to one request, on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=GUARD_S)
    try:
        headers = {name: value.encode("latin-1") for name, value in hostile.headers.items()}
        body = hostile.body()
        # Where it is refused before all was sent, the response is there all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(hostile.method, hostile.path, body or None, headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers["Content-Type"] or "", response.read())
    finally:
        connection.close()


def measured(server: Server, prober: Prober, hostile: Hostile) -> tuple[Answer, Cost]:
    """The response to one request, and what it cost."""
    body = hostile.body()
    before = memory_mib(server.process.pid)
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # forget the peak
    prober.forget()
    started_s = time.perf_counter()
    response = send(server, dataclasses.replace(hostile, body=lambda: body))
    seconds = time.perf_counter() - started_s
    return response, Cost(
        seconds=seconds,
        mebibytes=max(0.0, memory_mib(server.process.pid, "VmHWM") - before),
        pause_s=prober.worst_s,
    )


def known_embedding(server: Server) -> list[float]:
    """The embedding of the photo in every valid request."""
    response = send(server, Hostile("the photo", lambda: request_body("/embed")))
    embedding: list[float] = response.json["embedding"]
    return embedding


def every_endpoint_works(server: Server) -> None:
    """Valid requests get their valid responses."""
    for path in VALID_REQUESTS:
        response = send(server, Hostile(path, lambda path=path: request_body(path), path=path))  # type: ignore[misc]
        assert response.status == 200, (path, response)
