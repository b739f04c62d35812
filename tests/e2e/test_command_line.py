"""The command ``clip-server`` as a person calls it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.servers import SERVE


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    import os

    return subprocess.run(
        [sys.executable, "-m", "entrypoints.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "http"), ("CLIP_MAX_BATCH_TEXTS_SIZE", "0"), ("CLIP_ENCODER", "x")]
)
def test_a_bad_value_stops_the_start_with_one_line(name: str, value: str) -> None:
    result = run(SERVE[-1], **{name: value})
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{name}={value!r} is not allowed: it must be")


def test_help_names_the_commands() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "serve" in result.stdout
    assert "bundle" in result.stdout
    assert run("--version").stdout.strip().endswith("0.1.0")


def test_a_bundle_is_made_and_never_overwritten(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    target = str(tmp_path / "bundle")
    made = run("bundle", str(hugging_face_directory), target)
    assert made.returncode == 0, made.stderr
    assert "fingerprint" in made.stdout
    again = run("bundle", str(hugging_face_directory), target)
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_a_missing_checkpoint_is_told(tmp_path: Path) -> None:
    result = run("bundle", str(tmp_path / "nothing"), str(tmp_path / "bundle"))
    assert result.returncode == 1
    assert "does not exist" in result.stderr
    assert "Traceback" not in result.stderr
