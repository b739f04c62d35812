"""What the Makefile does when an installation fails, and what it installs where."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from adapters.system.hardware import NVIDIA_DRIVER_FILES

ROOT = Path(__file__).parents[2]

# Stands for Python and makes environments whose Python is itself. It fails while a file named
# after what it does is there, and leaves its work half done.
_PYTHON = """#!/bin/sh
here="$(dirname "$0")"
echo "$@" >> calls
case "$*" in
*" venv "*)
    for folder; do :; done
    mkdir -p "$folder/bin"
    cp "$0" "$folder/bin/python"
    test ! -e fail-venv || exit 1
    printf '#!/bin/sh\\necho serving\\n' > "$folder/bin/clip-server"
    chmod +x "$folder/bin/clip-server" ;;
*" pip "*) test ! -e fail-pip || exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(_PYTHON)
    python.chmod(0o755)
    return tmp_path


def make(checkout: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "EXTRAS"}
    return subprocess.run(
        ["make", "PYTHON=./python", "NVIDIA=", *words],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def calls(checkout: Path) -> list[str]:
    """What Python was called with since the last time."""
    file = checkout / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return [line for line in lines if not line.startswith("-c ")]


@pytest.mark.parametrize("step", ["venv", "pip"])
def test_a_failed_installation_is_repeated(checkout: Path, step: str) -> None:
    (checkout / f"fail-{step}").touch()
    assert make(checkout, "serve").returncode != 0
    (checkout / f"fail-{step}").unlink()
    calls(checkout)
    again = make(checkout, "serve")
    assert again.returncode == 0, again.stderr
    assert "serving" in again.stdout
    assert any(f"-m {step}" in line for line in calls(checkout))
    assert make(checkout, "serve").returncode == 0
    assert calls(checkout) == []


def test_other_extras_are_installed_too(checkout: Path) -> None:
    assert make(checkout, "install").returncode == 0
    assert "--editable .[cpu]" in calls(checkout)[-1]
    assert make(checkout, "install", "EXTRAS=torch,tensorrt").returncode == 0
    (installed,) = calls(checkout)
    assert "--editable .[torch,tensorrt]" in installed


@pytest.mark.parametrize("file", NVIDIA_DRIVER_FILES, ids=str)
def test_an_nvidia_driver_is_found_wherever_the_server_finds_it(checkout: Path, file: Path) -> None:
    assert str(file) in (checkout / "Makefile").read_text()
    assert make(checkout, "install", f"NVIDIA={file}").returncode == 0
    assert "--editable .[cpu,torch]" in calls(checkout)[-1]


def test_clean_says_what_it_leaves(checkout: Path) -> None:
    assert make(checkout, "install").returncode == 0
    said = make(checkout, "clean").stdout
    assert not (checkout / ".venv").exists()
    for left in ("clip-embedding-server", "huggingface", ".bench"):
        assert left in said
