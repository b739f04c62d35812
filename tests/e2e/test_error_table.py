"""Every row of the contract's error table, over a real socket."""

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.photos import as_base64, as_file, photo, plain
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


def check(answer: httpx.Response, status: int, code: str, *details: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    for detail in details:
        assert detail in body["detail"]


def test_body_that_is_not_json(server: Server) -> None:
    check(post(server, "/embed", b"{'image': 1}"), 400, "invalid_json")


def test_body_over_the_limit(server: Server) -> None:
    answer = post(server, "/embed", b" " * 17_000_000)
    check(answer, 413, "body_too_large", "16777216", "17000000")


def test_body_over_the_limit_that_does_not_say_so(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 1_000_000

    answer = httpx.post(
        server.url + "/embed",
        content=chunks(),
        headers={"content-type": "application/json"},
        timeout=60,
    )
    check(answer, 413, "body_too_large", "16777216")


def test_decoded_image_over_the_limit(server: Server) -> None:
    image = base64.b64encode(as_file(photo()).ljust(10 * 1024 * 1024 + 1, b"\0")).decode()
    check(ask(server, "/embed", image=image), 413, "image_too_large", "10485761", "10485760")


def test_wrong_content_type(server: Server) -> None:
    answer = post(server, "/classify", as_file(photo()), "image/jpeg")
    check(answer, 415, "unsupported_media_type", "image/jpeg", "application/json")
    answer = post(server, "/embed", as_file(photo()), "text/plain")
    check(answer, 415, "unsupported_media_type", "text/plain", "application/json", "image/jpeg")


@pytest.mark.parametrize(
    ("path", "fields", "code", "detail"),
    [
        ("/similarity", {}, "missing_field", "`text`"),
        ("/similarity", {"text": 5}, "invalid_field", "`$.text`"),
        ("/embed", {"image": "no base64!"}, "invalid_base64", "standard base64"),
        ("/embed", {"image": "aGVsbG8="}, "not_an_image", "JPEG, PNG, GIF, BMP, WEBP, MPO"),
        (
            "/embed",
            {"image": as_base64(photo().resize((64, 64)), "TIFF")},
            "unsupported_format",
            "TIFF",
        ),
        (
            "/embed",
            {"image": as_base64(plain(0, 0, 0, (4097, 1)), "PNG")},
            "too_many_pixels",
            "4097 x 1",
        ),
        ("/classify", {"labels": []}, "no_labels", "1 to 100"),
        ("/classify", {"labels": [f"{n}" for n in range(101)]}, "too_many_labels", "101"),
        ("/classify", {"labels": ["dog", " "]}, "blank_label", "labels[1]"),
        ("/classify", {"labels": ["dog", "dog"]}, "repeated_label", "'dog'"),
        ("/classify", {"labels": ["dog"], "camera_type": "x"}, "unknown_camera_type", "'x'"),
        ("/batch-similarity", {"texts": []}, "no_texts", "1 to 100"),
        ("/batch-similarity", {"texts": [f"{n}" for n in range(101)]}, "too_many_texts", "101"),
        ("/batch-similarity", {"texts": [" "]}, "blank_text", "texts[0]"),
        ("/batch-similarity", {"texts": ["a", "a"]}, "repeated_text", "texts[1]"),
        (
            "/anomaly-score",
            {"baseline_embedding": [0.0] * 767},
            "baseline_wrong_length",
            "767 numbers; it must have exactly 768",
        ),
    ],
)
def test_a_field_that_is_wrong(
    server: Server, path: str, fields: dict[str, Any], code: str, detail: str
) -> None:
    check(ask(server, path, **fields), 422, code, detail)


def test_a_number_that_is_not_finite(server: Server) -> None:
    body = json.dumps({"image": IMAGE, "baseline_embedding": [0.5] * 768})
    answer = post(server, "/anomaly-score", body.replace("[0.5", "[1e999").encode())
    check(answer, 422, "invalid_field", "out of range", "baseline_embedding[0]")


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
            answer = ask(server, path, **fields)
            check(answer, 503, "model_not_loaded", missing, "does not exist")
            assert int(answer.headers["retry-after"]) > 0
        assert "Traceback" not in server.log
        assert server.stop() == 0


def test_still_starting(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="3") as server:
        answer = ask(server, "/embed")
        check(answer, 503, "model_starting", "still being loaded")
        assert int(answer.headers["retry-after"]) > 0
        assert httpx.get(server.url + "/health").json()["status"] == "degraded"


def test_full_queue(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="1", CLIP_MAX_REQUESTS="2") as server:
        wait_for(server, "/health/ready")
        answers: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(ask(server, "/embed"))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        accepted = [answer for answer in answers if answer.status_code == 200]
        assert len(accepted) >= 2
        for answer in answers:
            if answer.status_code != 200:
                check(answer, 503, "queue_full", "at most 2")
                assert int(answer.headers["retry-after"]) > 0
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
