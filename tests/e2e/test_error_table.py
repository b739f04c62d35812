"""The error table over a real socket, and the errors of a server that is not ready."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.error_table import ERRORS, Wrong
from tests.support.photos import as_base64, photo
from tests.support.servers import SERVE, SLOW, Server, running, wait_for

IMAGE = as_base64(photo("cat"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running(SERVE, log, CLIP_ENCODER="fake") as server:
        wait_for(server, "/health/ready")
        yield server


def post(server: Server, path: str, body: bytes, content_type: str | None = None) -> httpx.Response:
    headers = {"content-type": content_type or "application/json"}
    return httpx.post(server.url + path, content=body, headers=headers, timeout=60)


def ask(server: Server, path: str, **fields: Any) -> httpx.Response:
    return post(server, path, json.dumps({"image": IMAGE, **fields}).encode())


def check(response: httpx.Response, status: int, code: str, *details: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["code"]) == (status, code)
    for detail in details:
        assert detail in body["detail"]


@pytest.mark.parametrize("wrong", ERRORS, ids=str)
def test_what_is_wrong_gets_its_error(server: Server, wrong: Wrong) -> None:
    response = httpx.request(
        wrong.method,
        server.url + wrong.path,
        content=wrong.body,
        headers=wrong.headers,
        timeout=60,
    )
    wrong.check(response)


def test_body_over_the_limit_that_does_not_say_so(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 1_000_000

    response = httpx.post(
        server.url + "/embed",
        content=chunks(),
        headers={"content-type": "application/json"},
        timeout=60,
    )
    check(response, 413, "body_too_large", "16777216")


def test_the_server_is_as_well_as_before(server: Server) -> None:
    assert ask(server, "/embed").status_code == 200
    assert "Traceback" not in server.log


def test_missing_checkpoint(tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing-here")
    with running(SERVE, tmp_path / "log", CLIP_MODEL_PATH=missing) as server:
        while (health := httpx.get(server.url + "/health").json())["reason"].startswith("the mod"):
            assert server.process.poll() is None
        assert (health["status"], health["model_loaded"]) == ("degraded", False)
        assert missing in health["reason"]
        ready = httpx.get(server.url + "/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert httpx.get(server.url + "/health/live").status_code == 200
        for path, fields in (
            ("/embed", {}),
            ("/anomaly-score", {"baseline_embedding": [0.0] * 768}),
            ("/classify", {"labels": ["dog"]}),
            ("/similarity", {"text": "dog"}),
            ("/batch-similarity", {"texts": ["dog"]}),
            ("/embed/batch", {"images": [IMAGE]}),
            ("/embed/text", {"texts": ["dog"]}),
            ("/compare", {"image_a": IMAGE, "image_b": IMAGE}),
            ("/baseline", {"images": [IMAGE]}),
        ):
            response = ask(server, path, **fields)
            check(response, 503, "model_not_loaded", missing, "does not exist")
            assert int(response.headers["retry-after"]) > 0
        assert "Traceback" not in server.log
        assert server.stop() == 0


def test_still_starting(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="3") as server:
        response = ask(server, "/embed")
        check(response, 503, "model_starting", "still being loaded")
        assert int(response.headers["retry-after"]) > 0
        assert httpx.get(server.url + "/health").json()["status"] == "degraded"


def test_full_queue(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="1", CLIP_MAX_REQUESTS="2") as server:
        wait_for(server, "/health/ready")
        responses: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: responses.append(ask(server, "/embed")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        accepted = [response for response in responses if response.status_code == 200]
        assert len(accepted) >= 2
        for response in responses:
            if response.status_code != 200:
                check(response, 503, "queue_full", "at most 2")
                assert int(response.headers["retry-after"]) > 0
        assert len(accepted) < 8


def test_draining(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="2") as server:
        wait_for(server, "/health/ready")
        accepted: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: accepted.append(ask(server, "/embed")))
        thread.start()
        while server.log.count("encoding 1 images") < 2:  # the first one warmed it up
            assert thread.is_alive()
        server.process.terminate()
        while httpx.get(server.url + "/health/ready").status_code == 200:
            pass
        refusal = ask(server, "/embed")
        check(refusal, 503, "draining", "shutting down")
        assert int(refusal.headers["retry-after"]) > 0
        thread.join()
        assert accepted[0].status_code == 200
        assert server.process.wait(timeout=30) == 0
