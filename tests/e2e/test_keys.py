"""A real server with keys: its clients, its log, and what it reads of those who have none."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from clip_client import AsyncClipClient, ClipClient, Unauthorized

from tests.support.servers import SERVE, Server, running, wait_for

KEY = "s3cr3t-key-of-the-porch-camera"
TRUCK = Path("adapters/models/demo/held_out/delivery_truck.png")
PHOTO = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running(SERVE, log, CLIP_ENCODER="fake", CLIP_API_KEYS=f"{'x' * 16},{KEY}") as server:
        wait_for(server, "/health/ready")
        yield server


async def test_the_python_client_has_a_key(server: Server) -> None:
    with ClipClient(server.url, api_key=KEY) as clip:
        assert clip.health().status == "healthy"
        assert len(clip.embed(TRUCK)) == 768
    async with AsyncClipClient(server.url, api_key=KEY) as clip:
        assert len(await clip.embed(TRUCK)) == 768
    with ClipClient(server.url) as clip, pytest.raises(Unauthorized) as caught:
        clip.embed(TRUCK)
    assert (caught.value.status, caught.value.code) == (401, "missing_api_key")
    with (
        ClipClient(server.url, api_key="another") as clip,
        pytest.raises(Unauthorized, match="not one of this server's"),
    ):
        clip.embed(TRUCK)
    with pytest.raises(ValueError, match="visible ASCII"):
        ClipClient(server.url, api_key="two\r\nlines")


def test_openais_client_has_a_key(server: Server) -> None:
    url = f"{server.url}/v1"
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        assert len(client.embeddings.create(model="clip", input="a cat").data) == 1
    with (
        openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.embeddings.create(model="clip", input="a cat")
    assert caught.value.code == "wrong_api_key"


def test_nothing_is_read_of_those_who_have_none(server: Server) -> None:
    """The response comes although not a byte of the body was sent."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /embed HTTP/1.1\r\nHost: clip\r\nContent-Type: application/json\r\n"
            b"Content-Length: 10000000\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_the_log_tells_of_refusals_and_never_a_key(server: Server) -> None:
    wrong = "s3cr3t-key-that-is-not-known"
    for path in ("/health", "/metrics"):
        response = httpx.get(server.url + path, headers={"Authorization": f"Bearer {wrong}"})
        assert response.status_code == 401
        assert "server" not in response.headers
    httpx.post(f"{server.url}/embed", content=TRUCK.read_bytes(), headers=PHOTO)
    outcomes = [line["outcome"] for line in server.requests_to("/metrics")]
    assert "wrong_api_key" in outcomes
    assert "missing_api_key" in [line["outcome"] for line in server.requests_to("/embed")]
    assert "s3cr3t" not in server.log
    assert "CLIP_API_KEYS is not set" not in server.log


def test_without_keys_the_log_says_so(tmp_path: Path) -> None:
    with running(SERVE, tmp_path / "log", CLIP_ENCODER="fake") as server:
        lines = [json.loads(line) for line in server.log.splitlines()]
    (warning,) = [line for line in lines if "CLIP_API_KEYS" in line["event"]]
    assert warning["level"] == "warning"
    port = server.url.rpartition(":")[2]
    assert warning["event"] == (
        f"CLIP_API_KEYS is not set: anyone who reaches 127.0.0.1:{port} can use the server"
    )


def test_doctor_knows_a_server_that_wants_a_key(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    run = subprocess.run(
        [sys.executable, "-m", "entrypoints.cli", "doctor"],
        env={
            **os.environ,
            "CLIP_ENCODER": "fake",
            "HOST": "127.0.0.1",
            "PORT": port,
            "CLIP_API_KEYS": KEY,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "is taken by another clip-server, which needs a key" in run.stdout
    assert "s3cr3t" not in run.stdout + run.stderr
