"""``clip-server embed`` as a person runs it: whole, killed, stopped, and taken up again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.photos import as_base64, as_file, photos, plain
from tests.support.servers import SERVE, running, wait_for

COMMAND = [sys.executable, "-m", "entrypoints.cli", "embed"]
COUNT = 800
DEMO = {"CLIP_ENCODER": "auto", "CLIP_MODEL_PATH": "builtin:demo"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small images of different colours in several folders, three of them broken."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        path = folder / f"camera-{number % 7}" / f"{number:05}.png"
        path.parent.mkdir(exist_ok=True)
        data = as_file(plain(number % 256, number // 256, 100, size=(16, 16)), "PNG")
        path.write_bytes(data[:60] if number % 300 == 3 else data)
    return folder


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={**os.environ, "CLIP_ENCODER": "fake", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    process = start(*arguments, **environment)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def rows(output: Path) -> dict[str, dict[str, Any]]:
    """The rows of a .jsonl file by path; a row that comes twice fails."""
    listed = [json.loads(line) for line in output.read_text().splitlines()]
    by_path = {row["path"]: row for row in listed}
    assert len(by_path) == len(listed)
    return by_path


def recorded_something(journal: Path, process: "subprocess.Popen[str]") -> None:
    """Return once the run has recorded its first rows (256 of 3 KiB)."""
    log = journal.with_name(f"{journal.name}-wal")
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size > 500_000):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("whole") / "out.jsonl"
    status, said = run(str(folder), "--output", str(output))
    assert status == 0, said
    assert f"{COUNT} rows, 3 of them with an error" in said
    found = rows(output)
    assert len(found) == COUNT
    assert sorted(found) == list(found)
    errors = [row["error"] for row in found.values() if row["embedding"] is None]
    assert [error.partition(":")[0] for error in errors] == ["damaged_image"] * 3
    return output.read_bytes()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_ended_half_way_goes_on_and_loses_or_doubles_nothing(
    folder: Path, tmp_path: Path, uninterrupted: bytes, sign: signal.Signals
) -> None:
    output = tmp_path / "out.jsonl"
    journal = tmp_path / "out.jsonl.journal"
    process = start(str(folder), "--output", str(output))
    recorded_something(journal, process)
    process.send_signal(sign)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if sign is signal.SIGKILL else 130)
    assert "Traceback" not in said
    if sign is not signal.SIGKILL:
        assert f"of {COUNT} images are done. To continue, give the same command again." in said
    assert not output.exists()
    assert journal.exists()
    status, said = run(str(folder), "--output", str(output))
    assert status == 0, said
    assert output.read_bytes() == uninterrupted
    assert os.listdir(tmp_path) == ["out.jsonl"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_listing_files_can_be_stopped(folder: Path, tmp_path: Path, sign: signal.Signals) -> None:
    output = tmp_path / "out.jsonl"
    # Eight million names take about a minute to list.
    process = start(*[str(folder)] * 10_000, "--output", str(output))
    journal = tmp_path / "out.jsonl.journal"
    deadline = time.monotonic() + 60
    while not journal.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(sign)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (
        130,
        "Stopped: nothing was embedded yet. To continue, give the same command again.\n",
    )
    assert os.listdir(tmp_path) == []


def test_if_no_file_can_be_embedded_the_run_has_failed(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(b"no image")
    (tmp_path / "two.png").write_bytes(b"")
    output = tmp_path / "out.jsonl"
    status, said = run(str(tmp_path), "--output", str(output))
    assert status == 1
    assert "2 rows, 2 of them with an error" in said
    assert said.endswith("No file could be embedded; each row's error says why.\n")
    assert len(rows(output)) == 2
    (tmp_path / "three.png").write_bytes(as_file(plain(1, 2, 3), "PNG"))
    assert run(str(tmp_path), "--output", str(output), "--overwrite")[0] == 0


def test_rows_are_what_the_server_answers(tmp_path: Path) -> None:
    for name, image in photos().items():
        (tmp_path / f"{name}.jpg").write_bytes(as_file(image))
    output = tmp_path / "out.jsonl"
    status, said = run(str(tmp_path), "-o", str(output), **DEMO)
    assert status == 0, said
    found = rows(output)
    with running(SERVE, tmp_path / "log", CLIP_MODEL_PATH=DEMO["CLIP_MODEL_PATH"]) as server:
        wait_for(server, "/health/ready")
        for name, image in photos().items():
            response = httpx.post(
                f"{server.url}/embed", json={"image": as_base64(image)}, timeout=60
            )
            row = found[str(tmp_path / f"{name}.jpg")]
            # bfloat16 rounds differently in batches of different sizes.
            assert np.dot(row["embedding"], response.json()["embedding"]) > 0.9999
            assert row["model_fingerprint"] == response.headers["X-Model-Fingerprint"]


def test_memory_does_not_grow_with_the_number_of_images(folder: Path, tmp_path: Path) -> None:
    peaks: list[int] = []
    for paths in ([str(folder / "camera-1" / "00001.png")], [str(folder)]):
        process = start(*paths, "-o", str(tmp_path / f"{len(peaks)}.npz"))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        process.communicate()
        peaks.append(usage.ru_maxrss * 1024)
    pixels_and_rows = COUNT * (3 * 224 * 224 * 4 + 768 * 4)
    assert peaks[1] - peaks[0] < pixels_and_rows / 10


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere", "-o", "out.npz"], "nowhere does not exist."),
        (["nowhere", "-o", "out.txt"], "the name must end in .parquet, .npz, .jsonl."),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    status, said = run(*arguments[:-1], str(tmp_path / arguments[-1]))
    assert status == 1
    (line,) = said.splitlines()
    assert line.endswith(told)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("suffix", "limit"),
    [("jsonl", 0), ("jsonl", 1_000_000), ("npz", 2_400_000), ("parquet", 2_000_000)],
)
def test_on_a_full_disk_it_says_so_and_goes_on_once_there_is_room(
    limit: int, suffix: str, folder: Path, tmp_path: Path
) -> None:
    """No file may grow beyond the limit: writing fails in the middle, as on a full disk."""
    output, whole = tmp_path / f"out.{suffix}", tmp_path / f"whole.{suffix}"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    program = f"{limited}; from entrypoints.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "embed", str(folder), "--output", str(output)],
        env={**os.environ, "CLIP_ENCODER": "fake"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert output.name in done.stderr
    assert not output.exists()
    assert run(str(folder), "--output", str(output))[0] == 0
    assert run(str(folder), "--output", str(whole))[0] == 0
    if suffix == "npz":  # whose entries have the time they were written at
        with np.load(output) as one, np.load(whole) as other:
            for name in other.files:
                np.testing.assert_array_equal(one[name], other[name])
    else:
        assert output.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == [output, whole]
