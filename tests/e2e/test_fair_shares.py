"""Who asks little is answered while others keep the server full, or send what is hostile."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

from tests.support.photos import as_base64, photo, plain
from tests.support.servers import SERVE, Server, running, wait_for

CAMERA = "127.0.0.2"
"""Another address than that of the others, who all are 127.0.0.1."""

IMAGE = {"image": as_base64(photo("cat"), "JPEG")}
BATCH = {"images": [as_base64(plain(1, 2, 3), "PNG")] * 64}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("shares") / "log"
    with running(SERVE, log, CLIP_ENCODER="fake", CLIP_MAX_REQUESTS="16") as server:
        wait_for(server, "/health/ready")
        yield server
        assert "Traceback" not in server.log


@contextmanager
def camera(server: Server) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(local_address=CAMERA)
    with httpx.Client(base_url=server.url, transport=transport, timeout=60) as client:
        yield client


@contextmanager
def besieged(count: int, attack: Callable[[httpx.Client], None], server: Server) -> Iterator[None]:
    """So many clients of one address, each of which attacks again and again."""
    over = threading.Event()

    def attacker() -> None:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            while not over.is_set():
                attack(client)

    with ThreadPoolExecutor(count) as attackers:
        sieges = [attackers.submit(attacker) for _ in range(count)]
        try:
            yield
        finally:
            over.set()
        for siege in sieges:
            siege.result()


def test_a_camera_beside_parallel_batches(server: Server) -> None:
    refused = answered = 0

    def ask_for_a_batch(client: httpx.Client) -> None:
        nonlocal refused, answered
        if client.post("/embed/batch", json=BATCH).status_code == 503:
            refused += 1
            time.sleep(0.05)
        else:
            answered += 1

    with camera(server) as client:
        expected = client.post("/embed", json=IMAGE).json()["embedding"]
        with besieged(16, ask_for_a_batch, server):
            while not refused:
                time.sleep(0.01)
            responses = []
            for _ in range(20):
                responses.append(client.post("/embed", json=IMAGE))
                time.sleep(0.1)
    assert [response.status_code for response in responses] == [200] * 20
    for response in responses:
        np.testing.assert_allclose(response.json()["embedding"], expected, atol=1e-6)
    # The others were really too many, and got their share all the same.
    assert refused
    assert answered


def test_a_camera_beside_hostile_texts(server: Server) -> None:
    texts = {"input": ["&" + "amp;" * 2047, "Â" * 8000 + "©"] * 25, "model": "clip"}

    def ask(client: httpx.Client) -> None:
        assert client.post("/v1/embeddings", json=texts).status_code in {200, 503}

    with camera(server) as client, besieged(2, ask, server):
        for _ in range(20):
            assert client.post("/embed", json=IMAGE).status_code == 200


def test_decoders_that_are_killed_harm_nobody(server: Server) -> None:
    with camera(server) as client:
        expected = client.post("/embed", json=IMAGE).json()["embedding"]
        for _ in range(10):
            for pid in server.decoders:
                os.kill(pid, signal.SIGKILL)
            response = client.post("/embed", json=IMAGE)
            assert response.status_code == 200
            np.testing.assert_allclose(response.json()["embedding"], expected, atol=1e-6)
