"""What a line of the log looks like."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from adapters.encoders.fake import FakeEncoder
from application.ports import PixelBatch, RawEmbeddings
from entrypoints.container import Container
from entrypoints.logs import LogFormat, LogLevel, configure_logging
from tests.support.app import serving
from tests.support.encoders import Loader
from tests.support.photos import as_base64, photo

IMAGE = as_base64(photo("cat"))
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, client = logging.getLogger(), logging.getLogger("httpx")
    handlers, level = root.handlers[:], root.level
    client.setLevel(logging.WARNING)  # the test's own client tells of its requests
    yield
    client.setLevel(logging.NOTSET)
    root.handlers[:], root.level = handlers, level


def lines(captured: Captured) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


async def test_a_request_is_one_line_with_where_its_time_went(
    client: AsyncTestClient[Any], capsys: Captured
) -> None:
    configure_logging(LogFormat.JSON, LogLevel.INFO)
    await client.post("/embed", json={"image": IMAGE}, headers={"x-request-id": "frame-7"})
    (line,) = lines(capsys)
    assert {
        "event": "request",
        "level": "info",
        "request_id": "frame-7",
        "method": "POST",
        "endpoint": "/embed",
        "status": 200,
        "outcome": "ok",
    }.items() <= line.items()
    stages = sum(line[f"{stage}_ms"] for stage in ("decode", "image_queue", "image_encode"))
    assert 0 < stages <= line["duration_ms"]
    assert line["timestamp"].endswith("Z")
    assert IMAGE[:100] not in json.dumps(line)


async def test_probes_are_silent_while_they_succeed(
    client: AsyncTestClient[Any], capsys: Captured
) -> None:
    configure_logging(LogFormat.JSON, LogLevel.INFO)
    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        assert (await client.get(path)).status_code == 200
    assert lines(capsys) == []


async def test_a_path_that_leads_nowhere_is_told_in_one_line(
    client: AsyncTestClient[Any], capsys: Captured
) -> None:
    configure_logging(LogFormat.TEXT, LogLevel.INFO)
    await client.get("/nowhere%0A2026 forged")
    (line,) = capsys.readouterr().err.splitlines()
    assert "/nowhere%0A2026%20forged" in line


class BrokenEncoder(FakeEncoder):
    """Raises once it has been warmed up."""

    calls = 0

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("the reason")
        return super().encode_images(batch)


async def test_a_failure_has_its_traceback_and_the_id_that_its_answer_has(
    container: Container, capsys: Captured
) -> None:
    container.encoder_loader.override(Loader(BrokenEncoder(embedding_dimension=768)))
    async with serving(container) as client:
        configure_logging(LogFormat.JSON, LogLevel.INFO)
        response = await client.post("/embed", json={"image": IMAGE})
    assert response.status_code == 500
    # What is said of the encoder itself is of no request.
    failure, answered = (line for line in lines(capsys) if "request_id" in line)
    assert failure["level"] == "error"
    assert "RuntimeError: the reason" in failure["exception"]
    assert (answered["status"], answered["outcome"]) == (500, "internal_error")
    for line in (failure, answered):
        assert line["request_id"] == response.json()["request_id"]


@pytest.mark.parametrize("log_format", LogFormat)
def test_a_traceback_shows_no_values(log_format: LogFormat, capsys: Captured) -> None:
    configure_logging(log_format, LogLevel.INFO)
    image = "".join(["what", "-a-", "client-sent"])
    try:
        raise RuntimeError(f"{len(image)} characters")
    except RuntimeError:
        logging.getLogger("somebody").exception("it failed")
    told = capsys.readouterr().err
    assert "18 characters" in told
    assert image not in told


@pytest.mark.parametrize(("log_format", "is_json"), [(None, True), (LogFormat.TEXT, False)])
def test_away_from_a_terminal_json_is_the_default(
    log_format: LogFormat | None, is_json: bool, capsys: Captured
) -> None:
    configure_logging(log_format, LogLevel.WARNING)
    logging.getLogger("somebody.else").warning("%d of %s", 5, "them", extra={"odd": {1, 2}})
    logging.getLogger("somebody.else").info("too little to be told")
    (line,) = capsys.readouterr().err.splitlines()
    assert "5 of them" in line
    assert line.startswith("{") is is_json
    if is_json:
        assert json.loads(line)["logger"] == "somebody.else"
