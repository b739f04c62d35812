"""A real server that measures the encoders of its processor, and is asked meanwhile."""

import time
from pathlib import Path

import httpx
import pytest

from adapters.system.hardware import nvidia_driver_present
from tests.support.photos import as_base64, photo
from tests.support.servers import SERVE, Server, running, wait_for

pytestmark = pytest.mark.skipif(nvidia_driver_present(), reason="this machine has a GPU")


def wait_for_log(server: Server, text: str) -> None:
    deadline = time.monotonic() + 300
    while text not in server.log:
        assert server.process.poll() is None, server.log
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)


@pytest.mark.long
def test_a_request_is_answered_at_once_and_it_goes_on_later(tmp_path: Path) -> None:
    settings = {
        "CLIP_MODEL_PATH": "builtin:demo",
        "CLIP_CACHE_DIR": str(tmp_path / "cache"),
        "CLIP_MAX_BATCH_SIZE": "1",
        "CLIP_MEASURE_ENCODERS": "true",
    }
    request = {"image": as_base64(photo("cat"))}
    with running(SERVE, tmp_path / "log", **settings) as server:
        wait_for(server, "/health/ready")
        wait_for_log(server, "measuring OpenVINO")
        response = httpx.post(f"{server.url}/embed", json=request, timeout=60)
        assert response.status_code == 200, response.text
        wait_for_log(server, "continues after 20 seconds without a request")
        # How fast OpenVINO is may not count where other tests keep the cores busy.
        wait_for_log(server, "images a second")
        assert server.log.count("measuring OpenVINO") >= 2
        assert server.stop() == 0
