"""The Ray Data job: killed and taken up again, every image has its one row."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tests.ray.conftest import RunningCluster
from tests.support.photos import as_file, photo, photos, plain

pytestmark = pytest.mark.long

COUNT = 400
PATIENCE_S = 400
"""For a job to start or to end: Ray's own processes take half a minute to start on a slow machine,
and three nodes start several of them at once."""

ENVIRONMENT = {**os.environ, "CLIP_ENCODER": "fake", "RAY_USAGE_STATS_ENABLED": "0"}
COMMAND = [sys.executable, "-m", "entrypoints.cli"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small images of different colours in three folders, two of them broken, and real photos."""
    folder = tmp_path / "images"
    for number in range(COUNT):
        path = folder / f"camera-{number % 3}" / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = as_file(plain(number % 256, number // 256, 100, size=(16, 16)), "PNG")
        path.write_bytes(data[:60] if number % 300 == 3 else data)
    for name, image in photos().items():
        (folder / f"{name}.jpg").write_bytes(as_file(image))
    return folder


def start(cluster: RunningCluster, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, "embed-on-ray", *arguments, "--address", cluster.address],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(cluster: RunningCluster, *arguments: str) -> tuple[int, str]:
    process = start(cluster, *arguments)
    said, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def rows(output: Path) -> dict[str, dict[str, Any]]:
    """The rows by path; a row that comes twice fails."""
    listed = pyarrow.parquet.read_table(output).to_pylist()
    by_path = {row["path"]: row for row in listed}
    assert len(by_path) == len(listed)
    return by_path


def test_a_job_that_was_killed_goes_on_and_loses_or_doubles_nothing(
    cluster: RunningCluster, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "embeddings"
    process = start(cluster, str(folder), "--output", str(output))
    deadline = time.monotonic() + PATIENCE_S
    while not any((tmp_path / "embeddings.journal").glob("done/*[!g].parquet")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    status, said = run(cluster, str(folder), "--output", str(output))
    assert status == 0, said
    # Ray's own processes may warn of something after the command's last line.
    assert f"{output}: {COUNT + len(photos())} rows\n" in said
    assert not (tmp_path / "embeddings.journal").exists()

    here = tmp_path / "here.parquet"
    subprocess.run(
        [*COMMAND, "embed", str(folder), "-o", str(here)],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
    )
    # The fake encoder's vectors are the same for the same pixels, to the last bit.
    assert rows(output) == rows(here)
    assert sum(row["error"] is not None for row in rows(output).values()) == 2

    status, said = run(cluster, str(folder), "--output", str(output))
    assert status == 1
    assert "is complete already; name another folder.\n" in said


def test_images_inside_parquet_are_embedded(cluster: RunningCluster, tmp_path: Path) -> None:
    source = tmp_path / "images.parquet"
    images = {"cat": as_file(photo("cat")), "nothing": b"no image"}
    table = pyarrow.table({"path": list(images), "image": list(images.values())})
    pyarrow.parquet.write_table(table, source)
    output = tmp_path / "embeddings"
    status, said = run(cluster, str(source), "--output", str(output))
    assert status == 0, said
    found = rows(output)
    assert set(found) == set(images)
    assert np.linalg.norm(found["cat"]["embedding"]) == pytest.approx(1)
    assert found["nothing"]["embedding"] is None
    assert found["nothing"]["error"].startswith("not_an_image: ")
