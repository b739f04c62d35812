"""A model by its name: the real server fetches it from a hub of the tests' own, and serves it."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.hub import Hub, model_hub
from tests.support.photos import as_base64, photo
from tests.support.servers import SERVE, launched, wait_for

NAME = "someone/clip"


@pytest.fixture
def hub(hugging_face_directory: Path) -> Iterator[Hub]:
    with model_hub() as hub:
        hub.add(NAME, hugging_face_directory)
        yield hub


def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {
        "CLIP_MODEL_PATH": NAME,
        "CLIP_ENCODER": "openvino",
        "CLIP_CACHE_DIR": str(tmp_path / "cache"),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
    }


def reason(url: str) -> str | None:
    told: str | None = httpx.get(f"{url}/health", timeout=10).json()["reason"]
    return told


def test_health_tells_of_the_download_and_then_the_model_serves(hub: Hub, tmp_path: Path) -> None:
    hub.bytes_per_s = 6_000_000
    with launched(SERVE, tmp_path / "log", **environment(hub, tmp_path)) as server:
        wait_for(server, "/health/live")
        deadline = time.monotonic() + 60
        while not str(reason(server.url)).startswith(f"downloading {NAME}: "):
            assert time.monotonic() < deadline
        refused = httpx.post(f"{server.url}/embed", json={"image": as_base64(photo("cat"))})
        assert refused.status_code == 503
        assert refused.json()["code"] == "model_starting"
        assert refused.json()["detail"].startswith(f"downloading {NAME}: ")
        hub.bytes_per_s = None
        wait_for(server, "/health/ready")
        told = httpx.get(f"{server.url}/health").json()
        assert (told["status"], told["reason"]) == ("healthy", None)
        made = httpx.post(f"{server.url}/embed", json={"image": as_base64(photo("cat"))})
        assert len(made.json()["embedding"]) == 768
        assert "HTTP Request" not in server.log


def test_a_server_that_is_downloading_ends_when_it_is_told_to(hub: Hub, tmp_path: Path) -> None:
    hub.bytes_per_s = 100_000
    with launched(SERVE, tmp_path / "log", **environment(hub, tmp_path)) as server:
        wait_for(server, "/health/live")
        while not str(reason(server.url)).startswith("downloading"):
            pass
        assert server.stop() == 0


@pytest.mark.long
def test_without_the_hub_it_says_so_and_tries_again(hub: Hub, tmp_path: Path) -> None:
    hub.failing = 503
    with launched(SERVE, tmp_path / "log", **environment(hub, tmp_path)) as server:
        wait_for(server, "/health/live")
        deadline = time.monotonic() + 60
        while "the hub responded with status 503" not in str(reason(server.url)):
            assert time.monotonic() < deadline
        hub.failing = None
        wait_for(server, "/health/ready")


def test_the_command_makes_a_bundle_for_another_machine(hub: Hub, tmp_path: Path) -> None:
    program = [*SERVE[:-1], "download", NAME]
    bundle = tmp_path / "bundle"
    variables = {**os.environ, **environment(hub, tmp_path)}
    made = subprocess.run(
        [*program, "--bundle", bundle], env=variables, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(f"{bundle}: clip-vit-")
    there = subprocess.run(program, env=variables, capture_output=True, text=True, check=True)
    assert (Path(there.stdout.strip()) / "model.safetensors").is_file()
    again = subprocess.run(
        [*program, "--bundle", bundle], env=variables, capture_output=True, text=True, check=False
    )
    assert (again.returncode, again.stderr) == (
        1,
        f"{bundle} exists already; name a directory that does not.\n",
    )
    missing = subprocess.run(
        [*program[:-1], "no/body"], env=variables, capture_output=True, text=True, check=False
    )
    assert missing.returncode == 1
    assert missing.stderr.startswith(
        "no/body is neither a directory here nor a public model on the hub"
    )
