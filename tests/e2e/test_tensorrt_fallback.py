"""A real server that was asked for TensorRT on a machine that has none."""

from pathlib import Path

import httpx
import pytest

from adapters.system.hardware import nvidia_driver_present
from tests.support.photos import as_base64, photo
from tests.support.servers import SERVE, running, wait_for

pytestmark = pytest.mark.skipif(nvidia_driver_present(), reason="this machine has a GPU")

REASON = "TensorRT needs an NVIDIA GPU, and there is none here."


def test_it_serves_on_the_cpu_and_says_why(tmp_path: Path) -> None:
    settings = {"CLIP_MODEL_PATH": "builtin:demo", "CLIP_CACHE_DIR": str(tmp_path / "cache")}
    with running(SERVE, tmp_path / "log", CLIP_USE_TENSORRT="true", **settings) as server:
        wait_for(server, "/health/ready")
        response = httpx.post(server.url + "/embed", json={"image": as_base64(photo())}, timeout=60)
        assert response.status_code == 200
        health = httpx.get(server.url + "/health").json()
        while health["backend_reason"] is None:
            health = httpx.get(server.url + "/health").json()
        assert health["backend_reason"] == REASON
        assert health["backend"] in {"openvino", "torch"}
        assert server.stop() == 0
        assert server.log.count(REASON) == 1


def test_pinned_it_says_why_it_cannot_answer(tmp_path: Path) -> None:
    settings = {"CLIP_MODEL_PATH": "builtin:demo", "CLIP_ENCODER": "tensorrt"}
    with running(SERVE, tmp_path / "log", **settings) as server:
        health = httpx.get(server.url + "/health").json()
        while health["reason"] == "the model is still being loaded.":
            health = httpx.get(server.url + "/health").json()
        assert (health["status"], health["reason"]) == ("degraded", REASON)
        assert httpx.get(server.url + "/health/ready").status_code == 503
