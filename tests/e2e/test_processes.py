"""Several processes on one port: what one has done all know, and any of them may die."""

import asyncio
import contextlib
import functools
import logging
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from adapters.encoders.fake import FakeEncoder
from checks.endurance.known_requests import KnownRequest, KnownRequests
from tests.support.photos import as_base64, as_file, plain
from tests.support.servers import SERVE, Server, running, wait_for

REQUESTS = int(os.environ.get("PROCESSES_REQUESTS", "1000"))
"""docs/robustness.md has the result of 10,000."""

IMAGE = {"image": as_base64(plain(10, 200, 30), "PNG")}
FRONTS = 2
FEWEST_KILLED = 3


@contextmanager
def served(log: Path, **environment: str) -> Iterator[Server]:
    """Two fronts before the fake encoder, all of them ready."""
    settings = {"CLIP_ENCODER": "fake", "CLIP_HTTP_PROCESSES": str(FRONTS), **environment}
    with running(SERVE, log, **settings) as server:
        wait_for_all(server)
        yield server


def wait_for_all(server: Server) -> None:
    """Return once each front says that it is ready."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            # Each on a connection of its own, so that the kernel spreads them.
            if all(httpx.get(f"{server.url}/health/ready").is_success for _ in range(30)):
                return
        time.sleep(0.05)
    raise AssertionError(server.log)


def process_of(server: Server, name: str) -> int:
    """The process of that name that was started last."""
    return int(re.findall(rf"started {name} as process (\d+)", server.log)[-1])


def everyone(server: Server) -> list[int]:
    return [int(pid) for pid in re.findall(r"started .{7,30} as process (\d+)", server.log)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_front_gives_the_same_as_a_server_of_one_process(tmp_path: Path) -> None:
    questions = {
        "/embed": IMAGE,
        "/classify": {**IMAGE, "labels": ["a cat", "a dog"]},
        "/embed/batch": {"images": [IMAGE["image"], "AAAA"]},
        "/embed/text": {"texts": ["a", "b"]},
        "/v1/embeddings": {"input": ["a longer text"], "model": "clip"},
    }
    with (
        running(SERVE, tmp_path / "one", CLIP_ENCODER="fake") as one,
        served(tmp_path / "several") as several,
    ):
        wait_for(one, "/health/ready")
        for path, question in questions.items():
            expected = httpx.post(one.url + path, json=question).json()
            for _ in range(8):
                response = httpx.post(several.url + path, json=question)
                assert response.status_code == 200
                assert response.headers["x-model-fingerprint"]
                found = response.json()
                for body in (expected, found):
                    body.pop("inference_time_ms", None)
                assert numbers(found) == pytest.approx(numbers(expected), abs=1e-6)
        assert httpx.get(one.url + "/health").json() == httpx.get(several.url + "/health").json()


def numbers(body: object) -> list[float]:
    """All numbers of a response, in their order."""
    match body:
        case bool() | str() | None:
            return []
        case int() | float():
            return [float(body)]
        case dict():
            return [number for value in body.values() for number in numbers(value)]
        case list():
            return [number for value in body for number in numbers(value)]
    raise TypeError(type(body))


def test_metrics_are_those_of_all_processes(tmp_path: Path) -> None:
    ok = '{endpoint="/embed",outcome="ok",status="200"}'
    with served(tmp_path / "log") as server:
        # Each front has had the encoder verified.
        before = httpx.get(server.url + "/metrics").text
        for _ in range(20):
            assert httpx.post(server.url + "/embed", json=IMAGE).is_success
        for _ in range(3):
            assert httpx.post(server.url + "/embed/text", json={"texts": ["a"]}).is_success
        time.sleep(0.5)  # until every front knows how many texts are kept
        for _ in range(6):  # whichever front is asked
            page = httpx.get(server.url + "/metrics").text

            def more(name: str, page: str = page) -> float:
                return value(page, name) - value(before, name)

            assert value(page, f"clip_requests_total{ok}") == 20
            former = 'clip_inference_requests_total{endpoint="/embed",status="success"}'
            assert value(page, former) == 20
            assert more("clip_batch_size_images_sum") == 20
            assert more("clip_text_cache_misses_total") == 1
            assert more("clip_text_cache_hits_total") == 2
            assert more("clip_text_cache_entries") == 1
            assert value(page, "clip_ready") == 1
            assert page.count("clip_backend_info{") == 1


def value(page: str, name: str) -> float:
    line = next(line for line in page.splitlines() if line.startswith(name + " "))
    return float(line.rpartition(" ")[2])


def test_a_front_that_dies_is_replaced_and_its_counts_stay(tmp_path: Path) -> None:
    with served(tmp_path / "log") as server:
        for _ in range(10):
            assert httpx.post(server.url + "/embed", json=IMAGE).is_success
        os.kill(process_of(server, "front 1"), signal.SIGKILL)
        # Its socket stays open, so that new connections wait for the replacement.
        for _ in range(20):
            assert httpx.post(server.url + "/embed", json=IMAGE, timeout=30).is_success
        assert "front 1" in server.log
        wait_for_all(server)
        page = httpx.get(server.url + "/metrics").text
        assert value(page, 'clip_requests_total{endpoint="/embed",outcome="ok",status="200"}') == 30
        assert server.stop() == 0


def test_an_encoder_that_dies_is_replaced_and_nothing_is_answered_meanwhile_but_503(
    tmp_path: Path,
) -> None:
    with served(tmp_path / "log") as server:
        before = httpx.post(server.url + "/embed", json=IMAGE).json()["embedding"]
        os.kill(process_of(server, "the encoder's process"), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while (response := httpx.post(server.url + "/embed", json=IMAGE, timeout=30)).is_error:
            assert response.status_code == 503
            assert response.json()["code"] == "model_starting"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert response.json()["embedding"] == before
        assert process_of(server, "the encoder's process") != everyone(server)[0]


def test_a_signal_ends_all_of_them_in_order(tmp_path: Path) -> None:
    with served(tmp_path / "log") as server:
        processes = everyone(server)
        assert len(processes) == 1 + FRONTS
        with httpx.Client(base_url=server.url) as kept:
            assert kept.post("/embed", json=IMAGE).is_success
            assert server.stop() == 0
        assert not [pid for pid in processes if is_running(pid)]
        assert "Traceback" not in server.log


def test_what_was_accepted_is_finished_before_the_end(tmp_path: Path) -> None:
    images = {"images": [as_base64(plain(n, 2, 3, size=(400, 300)), "PNG") for n in range(64)]}
    with (
        served(tmp_path / "log", CLIP_ENCODER="openvino", CLIP_MODEL_PATH="builtin:demo") as server,
        ThreadPoolExecutor(6) as pool,
    ):
        asked = [
            pool.submit(httpx.post, server.url + "/embed/batch", json=images, timeout=60)
            for _ in range(6)
        ]
        deadline = time.monotonic() + 30
        while in_progress(server) < 2:
            assert time.monotonic() < deadline
        server.process.send_signal(signal.SIGTERM)
        finished = [each.result() for each in asked]
        assert server.process.wait(timeout=60) == 0
    # Some may have come after the signal, and are told so; none that was in is lost.
    assert {response.status_code for response in finished} <= {200, 503}
    assert any(response.status_code == 200 for response in finished)
    for response in finished:
        if response.status_code == 200:
            assert all(item["error"] is None for item in response.json()["results"])
        else:
            assert response.json()["code"] == "draining"


def in_progress(server: Server) -> float:
    return value(httpx.get(server.url + "/metrics").text, "clip_requests_in_progress")


def test_without_their_parent_they_end(tmp_path: Path) -> None:
    with served(tmp_path / "log") as server:
        processes = everyone(server)
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 30
        while running_ones := [pid for pid in processes if is_running(pid)]:
            assert time.monotonic() < deadline, running_ones
            time.sleep(0.05)


def test_a_second_server_learns_that_the_port_is_taken(tmp_path: Path) -> None:
    with served(tmp_path / "log") as server:
        port = server.url.rpartition(":")[2]
        second = subprocess.run(
            SERVE,
            env={**os.environ, "PORT": port, "HOST": "127.0.0.1", "CLIP_HTTP_PROCESSES": "2"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert second.returncode == 1
    assert f"port {port} on 127.0.0.1 is already taken" in second.stderr


def test_an_idle_model_is_unloaded_for_all_and_loaded_again_for_the_next(tmp_path: Path) -> None:
    with served(tmp_path / "log", CLIP_IDLE_UNLOAD_SECONDS="1") as server:
        deadline = time.monotonic() + 30
        while not httpx.get(server.url + "/health").json()["unloaded_while_idle"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert httpx.get(server.url + "/health/ready").is_success
        assert httpx.post(server.url + "/embed", json=IMAGE).is_success


def test_the_watchdog_hears_of_the_parent(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        notifications.bind(str(address))
        notifications.settimeout(30)
        with served(
            tmp_path / "log", NOTIFY_SOCKET=str(address), WATCHDOG_USEC="1000000"
        ) as server:
            assert [notifications.recv(64) for _ in range(5)] == [b"WATCHDOG=1"] * 5
            assert server.stop() == 0


@pytest.mark.long
async def test_nothing_is_lost_or_mixed_up_while_processes_die(tmp_path: Path) -> None:
    rng = random.Random(20261127)
    byte = functools.partial(rng.randrange, 256)
    files = [as_file(plain(byte(), byte(), byte(), size=(32, 24)), "PNG") for _ in range(200)]
    known = KnownRequests(rng, FakeEncoder(embedding_dimension=768), files)
    with served(tmp_path / "log") as server:
        killing = threading.Event()
        killer = threading.Thread(target=kill_now_and_then, args=[server, killing, rng.random()])
        killer.start()
        gate = asyncio.Semaphore(20)
        lost = 0

        async def one(client: httpx.AsyncClient) -> bool:
            nonlocal lost
            async with gate:
                request = known.draw()
                if rng.random() < 0.1:
                    with contextlib.suppress(TimeoutError, httpx.TransportError):
                        await asyncio.wait_for(send(client, request), rng.random() * 0.02)
                    return True
                while True:
                    try:
                        response = await send(client, request)
                    except httpx.TransportError:
                        lost += 1  # its front was killed: the client notices, and asks again
                        continue
                    if response.status_code != 503:
                        return response.status_code == 200 and request.fits(response.json())
                    await asyncio.sleep(0.1)

        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
            outcomes = await asyncio.gather(*(one(client) for _ in range(REQUESTS)))
            while server.log.count("ended with -9") < FEWEST_KILLED:  # on a fast machine
                outcomes += await asyncio.gather(*(one(client) for _ in range(100)))
        killing.set()
        await asyncio.to_thread(killer.join)
        killed = server.log.count("ended with -9")
        logging.info("%d processes killed, %d connections lost", killed, lost)
        assert outcomes == [True] * len(outcomes)
        assert lost <= killed * 20, "more than the connections of the processes that died"
        wait_for_all(server)
        assert server.stop() == 0


async def send(client: httpx.AsyncClient, request: KnownRequest) -> httpx.Response:
    return await client.post(
        request.path, content=request.body, headers={"Content-Type": request.content_type}
    )


def kill_now_and_then(server: Server, until: threading.Event, seed: float) -> None:
    rng = random.Random(seed)
    names = ["front 1", "front 2", "the encoder's process"]
    while not until.wait(1 + rng.random()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_of(server, rng.choice(names)), signal.SIGKILL)
