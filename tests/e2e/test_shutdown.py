"""What happens to those who ask while a server is told to end: nothing accepted is lost."""

import http.client
import json
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from tests.support.photos import as_base64, plain
from tests.support.servers import SLOW, Server, free_port, running, wait_for

BODY = json.dumps({"image": as_base64(plain(1, 2, 3), "PNG")}).encode()
JSON = {"content-type": "application/json"}


class Camera(threading.Thread):
    """Asks again and again, on a connection that it keeps, whatever the response."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name=name, daemon=True)
        self._url = url
        self.asking = True
        self.outcomes: dict[str, str] = {}
        self.unanswered: list[str] = []
        self.kept_after_draining = 0

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            number = 0
            while self.asking:
                number += 1
                self._ask(client, f"{self.name}-{number}")

    def _ask(self, client: httpx.Client, request_id: str) -> None:
        try:
            response = client.post(
                "/embed", content=BODY, headers={**JSON, "x-request-id": request_id}
            )
        except httpx.ConnectError:
            time.sleep(0.02)  # between two servers
            return
        except httpx.TransportError:
            self.unanswered.append(request_id)
            return
        assert response.headers["x-request-id"] == request_id
        self.outcomes[request_id] = response.json().get("code", "ok")
        if self.outcomes[request_id] == "draining":
            self.kept_after_draining += response.headers.get("connection") != "close"


@pytest.mark.long
def test_restarts_under_load_lose_nothing_that_was_accepted(tmp_path: Path) -> None:
    port = str(free_port())
    cameras = [Camera(f"camera{n}", f"http://127.0.0.1:{port}") for n in range(8)]
    logged: dict[str, str] = {}
    for restart in range(3):
        log = tmp_path / f"log{restart}"
        with running(SLOW, log, PORT=port, SLOW_SECONDS="0.05", CLIP_MAX_BATCH_SIZE="2") as server:
            wait_for(server, "/health/ready")
            for camera in cameras:
                if not restart:
                    camera.start()
            while sum(line["status"] == 200 for line in server.requests_to("/embed")) < 40:
                assert server.process.poll() is None
                time.sleep(0.05)
            assert server.stop() == 0
            # It was stopped in the middle of something, else this shows nothing.
            assert "finishing 0 requests" not in server.log
            assert "Traceback" not in server.log
            logged |= {line["request_id"]: line["outcome"] for line in server.requests_to("/embed")}
    for camera in cameras:
        camera.asking = False
    received: dict[str, str] = {}
    for camera in cameras:
        camera.join()
        received |= camera.outcomes
        assert not set(camera.unanswered) & set(logged), "lost although it had been taken"
        assert camera.kept_after_draining == 0
    assert received == logged
    # Refused at the door, or answered; never taken and not finished.
    assert set(received.values()) <= {"ok", "draining", "model_starting"}
    assert list(received.values()).count("ok") >= 3 * 40


def test_kept_connections(tmp_path: Path) -> None:
    settings = {"SLOW_SECONDS": "2", "CLIP_SHUTDOWN_GRACE_SECONDS": "60"}
    with running(SLOW, tmp_path / "log", **settings) as server, ExitStack() as stack:
        wait_for(server, "/health/ready")
        idle, kept, busy = (stack.enter_context(connected(server)) for _ in range(3))
        for connection in (idle, kept):
            connection.request("GET", "/health/live")
            assert connection.getresponse().read()
        busy.request("POST", "/embed", BODY, JSON)
        wait_until_logged(server, "encoding 1 images", times=2)  # the first one warmed it up
        server.process.terminate()
        wait_until_logged(server, "shutting down: finishing 1 requests")
        kept.request("POST", "/embed", BODY, JSON)
        refusal = kept.getresponse()
        assert refusal.status == 503
        assert json.loads(refusal.read())["code"] == "draining"
        assert refusal.getheader("connection") == "close"
        assert busy.getresponse().status == 200
        assert server.process.wait(timeout=30) == 0
        # Uvicorn says so when a connection keeps it; the idle one must not.
        assert "Waiting for connections to close" not in server.log
        assert idle.sock.recv(1) == b""


def test_who_is_not_finished_within_the_grace_is_told(tmp_path: Path) -> None:
    settings = {"SLOW_SECONDS": "4", "CLIP_SHUTDOWN_GRACE_SECONDS": "0"}
    with running(SLOW, tmp_path / "log", **settings) as server, ExitStack() as stack:
        wait_for(server, "/health/ready")
        connection = stack.enter_context(connected(server))
        connection.request("POST", "/embed", BODY, JSON)
        wait_until_logged(server, "encoding 1 images", times=2)
        assert server.stop() == 0
        response = connection.getresponse()
        assert response.status == 503
        assert json.loads(response.read())["code"] == "not_finished"
        assert "1 requests were not finished within 0 seconds" in server.log


def test_the_end_does_not_wait_for_a_model_that_is_loading(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="600") as server:
        assert httpx.get(server.url + "/health").json()["model_loaded"] is False
        assert server.stop() == 0


def connected(server: Server) -> "closing[http.client.HTTPConnection]":
    return closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30))


def wait_until_logged(server: Server, words: str, *, times: int = 1) -> None:
    deadline = time.monotonic() + 60
    while server.log.count(words) < times:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.02)
