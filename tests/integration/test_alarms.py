"""Who is told of an alarm: a webhook, a command, a file."""

import asyncio
import base64
import io
import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from adapters.watching.alarms import Command, JsonLinesFile, Webhook
from application.watch_ports import WatchedFrame
from tests.support.photos import as_file, photo
from tests.support.receivers import Receiver

PICTURE = as_file(photo("cat"), "JPEG")
FRAME = WatchedFrame(
    source="Einfahrt & Tür",
    frame=7,
    time=datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC),
    anomaly_score=0.25,
    threshold=0.1,
    alarm=True,
    scores={"a truck": 0.9, "nothing": 0.1},
    nearest=("known/red.jpg", 0.8),
    skipped=3,
)
RECORD = {
    "time": "2026-05-01T12:00:00.250Z",
    "source": "Einfahrt & Tür",
    "frame": 7,
    "anomaly_score": 0.25,
    "threshold": 0.1,
    "alarm": True,
    "scores": {"a truck": 0.9, "nothing": 0.1},
    "nearest": {"path": "known/red.jpg", "similarity": 0.8},
    "skipped": 3,
}


async def test_a_webhook_gets_the_record_and_a_small_picture() -> None:
    with Receiver().listening() as receiver:
        await Webhook(f"{receiver.url}/hook?key=secret").tell(FRAME, PICTURE)
    (delivery,) = receiver.deliveries
    sent = json.loads(delivery.body)
    picture = base64.b64decode(sent.pop("picture"))
    assert (delivery.path, sent) == ("/hook?key=secret", RECORD)
    with Image.open(io.BytesIO(picture)) as small:
        assert max(small.size) == 320


async def test_a_webhook_that_fails_is_asked_again() -> None:
    with Receiver(503).listening() as receiver:
        await Webhook(receiver.url).tell(FRAME, PICTURE)
    assert len(receiver.deliveries) == 2


async def test_a_webhook_that_refuses_is_not_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Receiver(404).listening() as receiver:
        await Webhook(f"{receiver.url}/key-secret").tell(FRAME, PICTURE)
    assert len(receiver.deliveries) == 1
    assert "did not reach the webhook at 127.0.0.1: it responds with status 404" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("url", ["", "localhost:8123", "file:///etc/passwd", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Webhook(url)


async def test_a_command_gets_the_record_and_nothing_on_its_command_line(tmp_path: Path) -> None:
    heard = tmp_path / "heard.json"
    await Command(f'cat > {heard}; echo "$CLIP_WATCH_SOURCE" >> {heard}').tell(FRAME, PICTURE)
    record, source = heard.read_text().rsplit("}", 1)
    assert json.loads(record + "}") == RECORD
    assert source.strip() == "Einfahrt & Tür"


async def test_a_command_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    # It reads nothing of what it is sent.
    await Command(f"{sys.executable} -c 'raise SystemExit(3)'").tell(FRAME, PICTURE)
    assert "the command ended with status 3" in caplog.text


async def test_alarms_are_appended_to_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "alarms.jsonl"
    for _ in range(2):
        await JsonLinesFile(path).tell(FRAME, PICTURE)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [RECORD, RECORD]
    with caplog.at_level(logging.WARNING):
        await JsonLinesFile(tmp_path / "nowhere" / "x").tell(FRAME, PICTURE)
    assert "cannot be written: No such file" in caplog.text


async def test_telling_blocks_nobody() -> None:
    telling = asyncio.create_task(Command("sleep 0.3").tell(FRAME, PICTURE))
    await asyncio.sleep(0)
    assert not telling.done()
    await telling
