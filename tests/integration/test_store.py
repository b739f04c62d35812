"""The one store of artefacts: built once, whole or not at all, and never in the way of serving."""

import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.artifacts.checksums import record_checksums, what_changed_in
from adapters.artifacts.store import Store, Unusable, get_or_build, replace

CONTENT = bytes(range(256)) * 64


def build(directory: Path) -> None:
    (directory / "content").write_bytes(CONTENT)
    record_checksums(directory)


def validate(directory: Path) -> bytes:
    if (changed := what_changed_in(directory)) is not None:
        raise Unusable(changed)
    return (directory / "content").read_bytes()


def never(directory: Path) -> None:
    raise AssertionError("built although it was there")


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """No file may grow beyond the size: writing fails in the middle, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_was_built_is_there_afterwards_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "kept" / "artefact"
    assert get_or_build(place, build=build, validate=validate) == CONTENT
    assert names(place.parent) == ["artefact"]
    assert get_or_build(place, build=never, validate=validate) == CONTENT


def test_a_valid_artefact_is_used_where_nothing_can_be_written(tmp_path: Path) -> None:
    place = tmp_path / "artefact"
    get_or_build(place, build=build, validate=validate)
    with files_at_most(0):
        assert get_or_build(place, build=never, validate=validate) == CONTENT
    assert names(tmp_path) == ["artefact"]


def damage_truncate(place: Path) -> None:
    os.truncate(place / "content", 100)


def damage_extra(place: Path) -> None:
    (place / "more").write_text("more")


def damage_record(place: Path) -> None:
    (place / "sealed.json").write_text("[]")


@pytest.mark.parametrize("damage", [damage_truncate, damage_extra, damage_record])
def test_a_damaged_artefact_is_rebuilt_and_the_log_says_why(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "artefact"
    get_or_build(place, build=build, validate=validate)
    damage(place)
    assert get_or_build(place, build=build, validate=validate) == CONTENT
    assert f"rebuilding {place}: {place}" in caplog.text
    assert names(tmp_path) == ["artefact"]


def test_a_failed_build_leaves_what_was_there(tmp_path: Path) -> None:
    place = tmp_path / "artefact"
    get_or_build(place, build=build, validate=validate)
    damage_extra(place)

    def fail(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        get_or_build(place, build=fail, validate=validate)
    assert names(place) == ["content", "more", "sealed.json"]
    assert names(tmp_path) == ["artefact"]


def test_what_is_built_and_still_not_valid_is_an_error(tmp_path: Path) -> None:
    def build_nothing(directory: Path) -> None:
        (directory / "sealed.json").write_text("{}")

    with pytest.raises(Unusable, match="no record of its files"):
        get_or_build(tmp_path / "artefact", build=build_nothing, validate=validate)


def test_files_that_belong_together_are_moved_in_order(tmp_path: Path) -> None:
    place = tmp_path / "tower.onnx"
    place.write_text("old")

    def both(directory: Path) -> None:
        (directory / "tower.onnx").write_text("new")
        (directory / "tower.onnx.data").write_text("weights")

    replace(place, build=both, files=("tower.onnx.data", "tower.onnx"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "tower.onnx": "new",
        "tower.onnx.data": "weights",
    }


def test_threads_that_start_at_once_build_once(tmp_path: Path) -> None:
    place = tmp_path / "artefact"
    built: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    def slowly(directory: Path) -> None:
        built.append(1)
        entered.set()
        assert go_on.wait(60)
        build(directory)

    results: list[bytes] = []

    def use() -> None:
        results.append(get_or_build(place, build=slowly, validate=validate))

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert entered.wait(60)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert built == [1]
    assert results == [CONTENT] * 6
    assert names(tmp_path) == ["artefact"]


KILLED = """
import sys
from pathlib import Path
from adapters.artifacts.store import Unusable, get_or_build

def build(directory):
    (directory / "half").write_text("half")
    print("building", flush=True)
    sys.stdin.read()

def validate(place):
    raise Unusable("not yet")

get_or_build(Path(sys.argv[1]), build=build, validate=validate)
"""


def test_a_killed_build_blocks_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "artefact"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        process.send_signal(signal.SIGKILL)
    assert names(tmp_path) != []
    assert get_or_build(place, build=build, validate=validate) == CONTENT
    assert names(tmp_path) == ["artefact"]


@pytest.mark.parametrize("room", [0, 1, len(CONTENT) - 1])
def test_a_full_disk_is_logged_with_its_reason_and_done_without(
    room: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    store = Store(cache)
    attempts: list[Path] = []

    def build_unless_in_cache(directory: Path) -> None:
        attempts.append(directory)
        if directory.is_relative_to(cache):
            with files_at_most(room):
                build(directory)
        build(directory)

    key = f"full/{room}"  # what takes its place lasts as long as this process
    assert store.get_or_build(key, build=build_unless_in_cache, validate=validate) == CONTENT
    assert len(attempts) == 2
    assert f"CLIP_CACHE_DIR={cache} cannot be used: File too large" in caplog.text
    assert not any(path.is_file() for path in cache.rglob("*"))
    assert store.place_of("a/c") is None, "a cache that cannot be used is not tried again"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_a_disk_that_is_really_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    size = 8 * 1024
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(cache)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"this container may not mount: {mounted.stderr.strip()}")
    try:
        assert Store(cache).get_or_build("large", build=build, validate=validate) == CONTENT
        assert "No space left on device" in caplog.text
        assert not any(path.is_file() for path in cache.rglob("*"))
    finally:
        subprocess.run(["umount", str(cache)], check=True)


def test_a_cache_that_is_a_file_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("no directory")
    assert Store(blocked).get_or_build("x", build=build, validate=validate) == CONTENT
    assert "Not a directory" in caplog.text or "File exists" in caplog.text


def test_without_a_cache_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert Store(None).get_or_build("silent", build=build, validate=validate) == CONTENT
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
