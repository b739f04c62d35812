"""A picture over its budget, or one that crashes its decoder, is refused; nobody else notices."""

import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from tests.support.obedient_server import MEMORY_BYTES, WORKERS
from tests.support.servers import Server, running, wait_for

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="decoders' limits of memory are Linux's"
)

BYSTANDER = "127.0.0.2"
"""Another address than the attackers', who all are 127.0.0.1."""

ATTACKS = {
    "memory": (b"allocate %d" % (2 * MEMORY_BYTES), "image_too_expensive", "100 MiB of memory"),
    "time": (b"loop", "image_too_expensive", "0.5 seconds of processor time"),
    "a fault of memory": (b"signal %d" % signal.SIGSEGV, "decoder_crashed", "SIGSEGV"),
    "an abort": (b"signal %d" % signal.SIGABRT, "decoder_crashed", "SIGABRT"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("bystanders") / "log"
    command = [sys.executable, "-m", "tests.support.obedient_server"]
    with running(command, log, CLIP_ENCODER="fake") as server:
        wait_for(server, "/health/ready")
        yield server
        assert "Traceback" not in server.log
        assert server.stop() == 0


def embed(client: httpx.Client, picture: bytes) -> httpx.Response:
    return client.post("/embed", content=picture, headers={"content-type": "image/png"})


@dataclass
class Attackers:
    """What attackers were told, by status and code, and the last detail."""

    told: Counter[tuple[int, str]] = field(default_factory=Counter)
    detail: str = ""

    @property
    def refused(self) -> int:
        return self.told.total()


@contextmanager
def attacked(server: Server, picture: bytes, attackers: int) -> Iterator[Attackers]:
    """So many clients that send a picture again and again, each at least once."""
    over = threading.Event()
    seen = Attackers()
    lock = threading.Lock()

    def attack() -> None:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            while True:
                answer = embed(client, picture)
                with lock:
                    seen.told[answer.status_code, answer.json().get("code", "")] += 1
                    seen.detail = answer.json().get("detail", "")
                if over.is_set():
                    return

    with ThreadPoolExecutor(attackers) as pool:
        attacks = [pool.submit(attack) for _ in range(attackers)]
        try:
            yield seen
        finally:
            over.set()
        for each in attacks:
            each.result()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_bystander_does_not_notice(server: Server, name: str) -> None:
    picture, code, limit = ATTACKS[name]
    transport = httpx.HTTPTransport(local_address=BYSTANDER)
    with httpx.Client(base_url=server.url, transport=transport, timeout=120) as client:
        numbers = [1, 70_000, 9_999_999]
        expected = [embed(client, b"pixels %d" % n).json()["embedding"] for n in numbers]
        assert len({tuple(embedding) for embedding in expected}) == len(numbers)
        with attacked(server, picture, attackers=1) as seen:
            served = 0
            while seen.refused < 2 or served < 10:
                answer = embed(client, b"pixels %d" % numbers[served % 3])
                assert answer.status_code == 200, answer.text
                assert answer.json()["embedding"] == expected[served % 3]
                assert client.get("/health").json()["status"] == "healthy"
                served += 1
    assert set(seen.told) == {(422, code)}
    assert limit in seen.detail
    if name == "time":  # half a second of a core each time: others are served meanwhile
        assert served > seen.refused


def test_more_attackers_than_decoders_take_turns_with_a_bystander(server: Server) -> None:
    transport = httpx.HTTPTransport(local_address=BYSTANDER)
    with httpx.Client(base_url=server.url, transport=transport, timeout=120) as client:
        expected = embed(client, b"pixels 5").json()["embedding"]
        with attacked(server, b"loop", attackers=4 * WORKERS) as seen:
            while not seen.refused:
                assert client.get("/health").json()["status"] == "healthy"
            before = seen.refused
            for _ in range(3):
                answer = embed(client, b"pixels 5")
                assert answer.status_code == 200, answer.text
                assert answer.json()["embedding"] == expected
            meanwhile = seen.refused - before
    # Those that were being decoded already may end first, and one may be begun meanwhile; without
    # turns all eight would have to end each time.
    assert meanwhile <= 3 * (WORKERS + 1)
    assert set(seen.told) == {(422, "image_too_expensive")}
