"""Connections of a real server: how they are accepted, shared, and closed."""

import asyncio
import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from checks.endurance.attackers import head
from tests.support.certificates import Authority
from tests.support.photos import as_base64, plain
from tests.support.raw_requests import CASES, PAUSE
from tests.support.servers import SERVE, SLOW, Server, free_port, launched, running, wait_for

JSON = {"content-type": "application/json"}


def photo(shade: int) -> bytes:
    return json.dumps({"image": as_base64(plain(shade, 0, 0), "PNG")}).encode()


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> bytes:
    """Send a request and read one response's body, as a proxy does that keeps its connection."""
    writer.write(sent)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in answer.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    return await reader.readexactly(length)


async def test_a_thousand_busy_connections_leave_room_for_others(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="0.002") as server:
        wait_for(server, "/health/ready")
        await a_shared_connection_mixes_nobody_up(server)
        for path in ("/metrics", "/docs/openapi.json", "/embed"):
            await others_are_not_kept_waiting(server, path)
        assert server.stop() == 0
        assert "Traceback" not in server.log


async def others_are_not_kept_waiting(server: Server, path: str) -> None:
    """900 connections ask in turn; others need a fraction of the time that one of them needs."""
    body = photo(1)
    asking = (
        head(path, len(body)) + body
        if path == "/embed"
        else f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    )
    busy_s: list[float] = []
    others_s: list[float] = []
    full = asyncio.Event()

    async def busy() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        with ExitStack() as stack:
            stack.callback(writer.transport.abort)
            while True:
                started_s = time.perf_counter()
                await ask(reader, writer, asking)
                busy_s.append(time.perf_counter() - started_s)
                if len(busy_s) > 900:
                    full.set()

    tasks = [asyncio.create_task(busy()) for _ in range(900)]
    try:
        await asyncio.wait_for(full.wait(), 120)
        busy_s.clear()
        while len(others_s) < 10 or len(busy_s) < 900:
            others_s.append(await asyncio.to_thread(seconds_to_hear_from, server))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(others_s)[5] < sorted(busy_s)[len(busy_s) // 2]


def seconds_to_hear_from(server: Server) -> float:
    """As a new client; blocks, outside the event loop that the busy ones share."""
    started_s = time.perf_counter()
    client = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=60)
    client.request("GET", "/health/live")
    assert client.getresponse().status == 200
    client.close()
    return time.perf_counter() - started_s


async def a_shared_connection_mixes_nobody_up(server: Server) -> None:
    """As nginx with keep-alive to the server and its usual upgrade map: one connection for all."""
    first, *rest = (CASES / "h06.raw").read_bytes().split(PAUSE)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    shades = range(20, 220, 10)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        expected = [
            (await client.post("/embed", content=photo(shade), headers=JSON)).json()["embedding"]
            for shade in shades
        ]
    for shade, embedding in zip(shades, expected, strict=True):
        writer.write(first)
        await writer.drain()
        refused = json.loads(await ask(reader, writer, b"".join(rest)))
        assert refused["status"] == 400
        body = photo(shade)
        own = json.loads(await ask(reader, writer, head(length=len(body)) + body))
        assert own["embedding"] == embedding
    writer.close()


@pytest.fixture
def hang_ups_count() -> Iterator[None]:
    """Under nohup the signal is ignored, by the servers that are started too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_ups_count")
def test_signals(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="2") as server:
        wait_for(server, "/health/ready")
        for harmless in (signal.SIGUSR1, signal.SIGUSR2):
            server.process.send_signal(harmless)
            wait_until_logged(server, f"ignored {harmless.name}")
        body = photo(1)
        with socket.create_connection(("127.0.0.1", port_of(server)), 60) as connection:
            connection.sendall(head(length=len(body)) + body)
            wait_until_logged(server, "encoding 1 images", times=2)
            server.process.send_signal(signal.SIGHUP)
            wait_until_logged(server, "shutting down: finishing 1 requests")
            server.process.send_signal(signal.SIGHUP)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert server.process.wait(timeout=60) == 0


def wait_until_logged(server: Server, words: str, *, times: int = 1) -> None:
    deadline = time.monotonic() + 60
    while server.log.count(words) < times:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.02)


def test_all_addresses_of_both_versions(tmp_path: Path) -> None:
    with running(SERVE, tmp_path / "log", CLIP_ENCODER="fake", HOST="::") as server:
        for host in ("127.0.0.1", "[::1]"):
            answer = httpx.get(f"http://{host}:{port_of(server)}/health/live")
            assert answer.status_code == 200
        taken = subprocess.run(
            SERVE,
            env={**os.environ, "CLIP_ENCODER": "fake", "PORT": str(port_of(server))},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert taken.returncode == 1
        line = taken.stderr.strip().splitlines()[-1]
        assert f"port {port_of(server)} on 0.0.0.0 is already taken by process" in line
        assert str(server.process.pid) in line
        assert "PORT" in line
        assert "Traceback" not in taken.stderr
        assert server.stop() == 0


def test_silent_clients_of_tls_lock_nobody_out(tmp_path: Path) -> None:
    made = Authority(tmp_path).sign("server")
    command = ["bash", "-c", f"ulimit -n 600; exec {shlex.join(SERVE)}"]
    with ExitStack() as stack:
        server = stack.enter_context(
            launched(
                command,
                tmp_path / "log",
                CLIP_ENCODER="fake",
                CLIP_TLS_CERTIFICATE=str(made.certificate),
                CLIP_TLS_KEY=str(made.key),
                PORT=str(free_port()),
            )
        )
        secured = Server(server.process, server.url.replace("http:", "https:"), server.log_file)
        context = ssl.create_default_context(cafile=tmp_path / "authority.pem")
        wait_for(secured, "/health/ready", verify=context)
        for _ in range(900):
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(server)), 60))
        for _ in range(10):
            answer = httpx.get(f"{secured.url}/health/live", verify=context, timeout=60)
            assert answer.status_code == 200
        wait_until_logged(server, "to make room")
        assert server.open_files < 600
        assert server.log.count("to make room") < 100
        assert server.stop() == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_request_is_not_lost_to_a_newcomer(tmp_path: Path, asked_before: bool) -> None:
    """Connections are closed for others while requests on them may be on their way."""
    live = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="0", CLIP_MAX_CONNECTIONS="8") as server:
        wait_for(server, "/health/ready")
        with ExitStack() as stack:
            opened = []
            for _ in range(60):
                client = socket.create_connection(("127.0.0.1", port_of(server)), 60)
                stack.enter_context(client)
                opened.append(client)
                if asked_before:
                    client.sendall(live)
                    assert status_of(client) in (200, 503)
            statuses = []
            for client in opened:
                with contextlib.suppress(OSError):  # its response is there all the same
                    client.sendall(live)
                statuses.append(status_of(client))
            assert set(statuses) == {200, 503}
        assert server.stop() == 0


def test_a_request_refused_before_its_turn_does_not_open_its_connection_again(
    tmp_path: Path,
) -> None:
    broken = b"POST /embed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="0") as server, ExitStack() as stack:
        wait_for(server, "/health/ready")
        opened = []
        for _ in range(40):
            client = socket.create_connection(("127.0.0.1", port_of(server)), 60)
            opened.append(stack.enter_context(client))
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status_of(client) == 200
        # All arrive in one pass of the event loop, so that most of them wait for their turn.
        server.process.send_signal(signal.SIGSTOP)
        for client in opened:
            client.sendall(broken)
        server.process.send_signal(signal.SIGCONT)
        for client in opened:
            assert status_of(client) == 400
            client.sendall(b"more")
        wait_for(server, "/health/ready")
        assert server.stop() == 0
        assert "Traceback" not in server.log


def status_of(client: socket.socket) -> int:
    """Of the next response, all of which is read."""
    response = http.client.HTTPResponse(client)
    response.begin()
    assert response.read()
    assert response.status != 503 or response.getheader("retry-after") == "1"
    return response.status
