"""``clip-server watch`` as a person runs it: on videos, on a stream, by itself and by a server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.mjpeg import MjpegCamera
from tests.support.photos import as_file
from tests.support.receivers import Receiver
from tests.support.servers import SERVE, running, wait_for
from tests.support.videos import Weather, covered, frames, write_video

WATCH = [sys.executable, "-m", "entrypoints.cli", "watch"]
ENVIRONMENT = {**os.environ, "CLIP_MODEL_PATH": "builtin:demo"}
TRUCK = "delivery_truck"


def watch(*arguments: str | Path, status: int = 0) -> "subprocess.CompletedProcess[str]":
    command = [*WATCH, *map(str, arguments)]
    done = subprocess.run(
        command, env=ENVIRONMENT, text=True, capture_output=True, timeout=180, check=False
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def records(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def alarms_of(output: str) -> list[int]:
    """Seconds of the video at which alarms were raised."""
    return [record["frame"] // 5 for record in records(output) if record["alarm"]]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day with a truck and a covered lens; the usual day, the usual night, and a dusk."""
    folder = tmp_path_factory.mktemp("videos")
    weather = Weather()

    def day(second: float) -> Image.Image:
        if second >= 26:
            return covered()
        return weather.frame(visitor=TRUCK if 18 <= second < 21 else None)

    def dusk(second: float) -> Image.Image:
        if second >= 28:
            return covered()
        visitor = TRUCK if 24 <= second < 27 else None
        return weather.frame(light=1 - 0.75 * second / 28, visitor=visitor)

    write_video(folder / "day.mp4", frames(day, seconds=30))
    write_video(folder / "dusk.mp4", frames(dusk, seconds=32))
    usual = {"usual-day": (1.0, 0.45), "usual-night": (0.55, 0.3)}
    for name, (light, fall) in usual.items():
        seen = frames(lambda s: weather.frame(light=light - fall * s / 20), seconds=20)  # noqa: B023
        write_video(folder / f"{name}.mp4", seen)
    return folder


def test_a_truck_and_a_covered_lens_alarm_once_each(videos: Path, tmp_path: Path) -> None:
    usual, output = tmp_path / "usual.json", tmp_path / "frames.jsonl"
    with Receiver().listening() as receiver:
        done = watch(
            *(videos / "day.mp4", "--every", "0.5", "--baseline-frames", "20", "--json"),
            *("--quiet-for", "5", "--save-baseline", usual, "--labels", "a truck,a house"),
            *("--webhook", receiver.url, "--output", output),
        )
    assert alarms_of(done.stdout) == [18, 26]
    assert output.read_text() == done.stdout
    found = records(done.stdout)
    assert len(found) == 60
    assert [record["learned"] for record in found[:20]] == list(range(1, 21))
    for record in found[20:]:
        assert {"time", "source", "frame", "anomaly_score", "threshold", "alarm"} <= record.keys()
    truck = next(record for record in found if record["alarm"])
    assert truck["scores"]["a truck"] > 0.9
    told = [json.loads(delivery.body) for delivery in receiver.deliveries]
    assert [record["frame"] for record in told] == [
        record["frame"] for record in found if record["alarm"]
    ]
    assert all(record["picture"] for record in told)
    # What was saved can be given: the next time, every frame has a score.
    again = watch(videos / "day.mp4", "--baseline", usual, "--every", "0.5")
    assert again.stdout.count("ALARM") == 1  # the second is in the quiet time
    assert "60 frames" in again.stderr


def test_dusk_alarms_with_one_baseline_and_not_with_two(videos: Path, tmp_path: Path) -> None:
    kept = {}
    for name in ("usual-day", "usual-night"):
        kept[name] = tmp_path / f"{name}.json"
        watch(
            *(videos / f"{name}.mp4", "--every", "0.5", "--baseline-frames", "40"),
            *("--save-baseline", kept[name]),
        )
    common: list[str | Path] = [videos / "dusk.mp4", "--every", "0.5", "--quiet-for", "1", "--json"]
    day, night = ("--baseline", kept["usual-day"]), ("--baseline", kept["usual-night"])
    assert alarms_of(watch(*common, *day).stdout)[0] < 20
    assert alarms_of(watch(*common, *day, *night).stdout) == [24, 28]


def test_day_and_night_in_one_folder_become_two_baselines(tmp_path: Path) -> None:
    weather = Weather()
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(24):
        picture = weather.frame(light=1.0 if number % 2 else 0.2)
        (folder / f"{number:02}.jpg").write_bytes(as_file(picture, "JPEG", quality=95))
    usual = tmp_path / "usual.json"
    watch(folder, "--baseline-frames", "24", "--save-baseline", usual)
    assert [kept["brightness"] > 0.4 for kept in json.loads(usual.read_text())] == [True, False]
    (folder / "24.jpg").write_bytes(as_file(covered(), "JPEG"))
    (folder / "25.jpg").write_bytes(b"junk")
    done = watch(folder, "--baseline", usual, "--alarm-after", "1", "--json")
    found = records(done.stdout)
    assert [Path(record["path"]).name for record in found if record["alarm"]] == ["24.jpg"]
    assert str(found[25]["error"]).startswith("not_an_image")


def test_a_server_is_asked_instead_and_says_the_same(videos: Path, tmp_path: Path) -> None:
    usual, index = tmp_path / "usual.json", tmp_path / "known.jsonl"
    known = tmp_path / "known"
    known.mkdir()
    shutil.copy(Path("adapters/models/demo/held_out/delivery_truck.png"), known)
    shutil.copy(Path("adapters/models/demo/held_out/cat.png"), known)
    embed = [*WATCH[:-1], "embed", str(known), "--output", str(index)]
    subprocess.run(embed, env=ENVIRONMENT, check=True, capture_output=True, timeout=120)
    common: list[str | Path] = [
        "--every",
        "1",
        "--json",
        "--labels",
        "a truck,a house",
        "--known",
        index,
    ]
    common += ["--known", index]
    video = videos / "day.mp4"
    here = watch(video, *common, "--baseline-frames", "10", "--save-baseline", usual)
    key = "0123456789abcdef"
    environment = {"CLIP_MODEL_PATH": "builtin:demo", "CLIP_API_KEYS": key}
    with running(SERVE, tmp_path / "log", **environment) as server:
        wait_for(server, "/health/live")
        deadline = time.monotonic() + 60
        while "ready: " not in server.log and time.monotonic() < deadline:
            time.sleep(0.1)
        asked: list[str | Path] = ["--server", server.url, "--baseline", usual]
        there = watch(video, *common, *asked, "--key", key)
        refused = watch(video, *common, *asked, status=1)
    assert "status 401" in refused.stderr
    assert alarms_of(here.stdout) == alarms_of(there.stdout) == [19]
    for one, other in zip(records(here.stdout)[10:], records(there.stdout)[10:], strict=True):
        assert one["anomaly_score"] == pytest.approx(other["anomaly_score"], abs=1e-3)
        assert one["scores"] == pytest.approx(other["scores"], abs=0.01)
        assert one["nearest"]["path"] == other["nearest"]["path"]


def lines_until(process: "subprocess.Popen[str]", count: int) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for _ in range(count):
        yield json.loads(process.stdout.readline())


def test_a_stream_is_watched_until_it_is_told_to_stop(tmp_path: Path) -> None:
    weather = Weather()
    pictures = [as_file(weather.frame(), "JPEG", quality=90) for _ in range(20)]
    with MjpegCamera(pictures).running() as camera, (tmp_path / "log").open("w") as log:
        command = [*WATCH, camera.address, "--every", "0.05", "--json", "--baseline-frames", "10"]
        process = subprocess.Popen(
            command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=log
        )
        try:
            found = list(lines_until(process, 15))
            camera.cut()
            found += lines_until(process, 15)
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    assert found[-1]["anomaly_score"] < found[-1]["threshold"]
    assert camera.connections == 2
    said = (tmp_path / "log").read_text()
    assert "no picture: " in said
    assert "0 alarms" in said
    assert "secret" not in said + rest + json.dumps(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.mp4"], "nowhere.mp4 does not exist"),
        (["a.mp4", "--baseline", "x.json", "--save-baseline", "y.json"], "only what is built"),
        (["a=x", "b=y", "--save-baseline", "y.json"], "Several sources need a file each"),
        (["a.mp4", "--night", "dusk"], "must be two times such as 21:00-06:30"),
        (["a.mp4", "--night", "21:00-06:00"], "--night needs two"),
        (["a.mp4", "--webhook", "localhost"], "must be an address"),
        (["a.mp4", "--threshold", "2"], "0<=x<=1"),
        (["a.mp4", "--baseline-frames", "4"], "5<=x<=1000"),
    ],
)
def test_what_cannot_be_watched_is_said_in_a_line(arguments: list[str], said: str) -> None:
    command = [*WATCH, *arguments]
    done = subprocess.run(
        command, env=ENVIRONMENT, text=True, capture_output=True, timeout=60, check=False
    )
    assert done.returncode in (1, 2)
    assert said in done.stderr


def test_other_failures_are_said_in_a_line(videos: Path, tmp_path: Path) -> None:
    too_short = watch(videos / "day.mp4", "--every", "2", status=1)
    assert "ended after 15 of the 30 frames" in too_short.stderr
    junk = tmp_path / "junk.json"
    junk.write_text("[]")
    assert "is not a baseline" in watch(videos / "day.mp4", "--baseline", junk, status=1).stderr
    junk.write_text(json.dumps({"baseline_embedding": [1.0] * 4, "threshold": 0.1}))
    wrong = watch(videos / "day.mp4", "--baseline", junk, status=1)
    assert "has 4 numbers; the model's embeddings have 768" in wrong.stderr
    labels = watch(videos / "day.mp4", "--labels", "a,,b", status=1)
    assert "labels" in labels.stderr
