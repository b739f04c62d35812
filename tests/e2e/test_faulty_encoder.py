"""A real server whose encoder fails: nothing wrong is sent, probes tell, and it comes back."""

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from adapters.encoders.fake import FakeEncoder
from adapters.images.preprocessing import preprocess
from tests.support.photos import as_file, photo
from tests.support.servers import Server, running, wait_for

FAULTY = [sys.executable, "-m", "tests.support.faulty_server"]


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    file = tmp_path / "orders"
    file.write_text("")
    return file


@pytest.fixture
def server(orders: Path, tmp_path: Path) -> Iterator[Server]:
    environment = {"FAULT_FILE": str(orders), "CLIP_ENCODE_TIMEOUT_SECONDS": "1"}
    with running(FAULTY, tmp_path / "log", **environment) as server:
        wait_for(server, "/health/ready")
        yield server


def embed(server: Server) -> httpx.Response:
    return httpx.post(
        f"{server.url}/embed",
        content=as_file(photo("cat"), "PNG"),
        headers={"content-type": "image/png"},
        timeout=60,
    )


def check_right(server: Server) -> None:
    response = embed(server)
    assert response.status_code == 200, response.text
    batch = preprocess(photo("cat"))[np.newaxis]
    expected = FakeEncoder(embedding_dimension=768).encode_images(batch)[0]
    np.testing.assert_allclose(response.json()["embedding"], expected, atol=1e-6)


def status(server: Server, path: str) -> int:
    return httpx.get(server.url + path, timeout=10).status_code


@pytest.mark.parametrize("fault", ["nan", "shape", "raise"])
def test_a_fault_is_never_sent_on_and_the_server_comes_back(
    server: Server, orders: Path, fault: str
) -> None:
    orders.write_text(fault)
    with ThreadPoolExecutor(12) as clients:
        responses = list(clients.map(lambda _: embed(server), range(24)))
    outcomes = {(response.status_code, response.json()["code"]) for response in responses}
    assert (500, "internal_error") in outcomes
    assert outcomes <= {(500, "internal_error"), (503, "encoder_doubted")}
    assert not any("0x7f" in response.text for response in responses)
    assert status(server, "/health/ready") == 503
    assert status(server, "/health/live") == 200
    health = httpx.get(f"{server.url}/health").json()
    assert (health["status"], health["model_loaded"]) == ("degraded", False)
    assert "verifi" in health["reason"]
    refused = embed(server)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    orders.write_text("")
    wait_for(server, "/health/ready")
    check_right(server)
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'clip_encoder_doubts_total{cause="fault"} 1.0' in metrics
    assert 'clip_encoder_reloads_total{outcome="ok"} 1.0' in metrics
    assert server.stop() == 0


def test_a_hanging_call_fails_liveness_and_everybody_who_waits(
    server: Server, orders: Path
) -> None:
    orders.write_text("hang")
    with ThreadPoolExecutor(12) as clients:
        responses = list(clients.map(lambda _: embed(server), range(24)))
    outcomes = {(response.status_code, response.json()["code"]) for response in responses}
    assert outcomes == {(503, "encoder_hanging")}
    assert status(server, "/health/live") == 503
    assert status(server, "/health/ready") == 503
    assert status(server, "/health") == 200
    orders.write_text("")
    wait_for(server, "/health/ready")
    assert status(server, "/health/live") == 200
    check_right(server)


def test_a_lost_device_fails_liveness_at_once_and_for_good(server: Server, orders: Path) -> None:
    orders.write_text("lost")
    refused = embed(server)
    assert (refused.status_code, refused.json()["code"]) == (503, "model_not_loaded")
    live = httpx.get(f"{server.url}/health/live", timeout=10)  # the first look finds it
    assert (live.status_code, live.json()) == (503, {"status": "lost"})
    orders.write_text("")
    assert embed(server).json()["code"] == "model_not_loaded"
    assert status(server, "/health/ready") == 503
    health = httpx.get(f"{server.url}/health", timeout=10).json()
    assert health["status"] == "degraded"
    assert "cudaErrorIllegalAddress" in health["reason"]
    assert status(server, "/health/live") == 503
    assert server.stop() == 0


def test_systemds_watchdog_is_not_told_once_the_device_is_lost(
    orders: Path, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        environment = {
            "FAULT_FILE": str(orders),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "600000",
        }
        with running(FAULTY, tmp_path / "log", **environment) as server:
            wait_for(server, "/health/ready")
            assert systemd.recv(100) == b"WATCHDOG=1"
            orders.write_text("lost")
            assert embed(server).status_code == 503
            systemd.settimeout(0)
            with suppress(BlockingIOError):
                while True:  # what had been sent before
                    systemd.recv(100)
            systemd.settimeout(1)  # five times as long as between two
            with pytest.raises(TimeoutError):
                systemd.recv(100)


def test_systemds_watchdog_is_told_unless_it_hangs(orders: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(30)
        environment = {
            "FAULT_FILE": str(orders),
            "CLIP_ENCODE_TIMEOUT_SECONDS": "1",
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "600000",
        }
        with running(FAULTY, tmp_path / "log", **environment) as server:
            wait_for(server, "/health/ready")
            for _ in range(3):
                assert supervisor.recv(100) == b"WATCHDOG=1"
            orders.write_text("hang")
            assert embed(server).status_code == 503
            supervisor.settimeout(0)
            with suppress(BlockingIOError):
                while True:  # what had been sent before
                    supervisor.recv(100)
            supervisor.settimeout(1)  # five times as long as between two
            with pytest.raises(TimeoutError):
                supervisor.recv(100)
            orders.write_text("")
            supervisor.settimeout(30)
            assert supervisor.recv(100) == b"WATCHDOG=1"


def test_a_hanging_server_ends_when_it_is_told_to(server: Server, orders: Path) -> None:
    orders.write_text("hang")
    assert embed(server).status_code == 503
    assert server.stop() == 0


def test_while_the_model_cannot_be_reloaded_health_says_why(server: Server, orders: Path) -> None:
    orders.write_text("missing")
    assert embed(server).status_code == 500
    while "the checkpoint is gone" not in (
        httpx.get(f"{server.url}/health").json()["reason"] or ""
    ):
        assert embed(server).status_code == 503
    orders.write_text("")
    wait_for(server, "/health/ready")
    check_right(server)
