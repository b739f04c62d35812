"""Engines on disk: found, recognised as wrong before use, built once, never half written."""

import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.encoders.tensorrt.engine_file import (
    BatchRange,
    EngineIdentity,
    EngineRecord,
    EngineUnusable,
    get_or_build_engine,
    read_engine,
    sidecar,
)

WANTED = EngineIdentity("0123456789abcdef", "fp16", "tensorrt 11.4.0", "8.9")
BATCH = BatchRange.up_to(8)
CONTENT = bytes(range(256)) * 64


def build(made: Path) -> BatchRange:
    made.write_bytes(CONTENT)
    return BATCH


def stored(record: EngineRecord, data: bytes) -> EngineRecord:
    return record


def served(record: EngineRecord, data: bytes) -> EngineRecord:
    if record.smallest_cosine is None:
        raise EngineUnusable("it was never compared")
    return record


def never(made: Path) -> BatchRange:
    raise AssertionError("built although it was there")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engines" / "vision_encoder_fp16.engine"
    get_or_build_engine(path, WANTED, build=build, compare=lambda _: 0.9999, load=served)
    return path


def refusal(engine: Path, wanted: EngineIdentity = WANTED) -> str:
    with pytest.raises(EngineUnusable) as caught:
        read_engine(engine, wanted)
    return str(caught.value)


def test_what_was_built_is_found_and_not_built_again(engine: Path) -> None:
    record, data = read_engine(engine, WANTED)
    assert data == CONTENT
    assert record.identity == WANTED
    assert record.batch == BatchRange(1, 4, 8)
    assert record.smallest_cosine == 0.9999
    assert (
        get_or_build_engine(engine, WANTED, build=never, compare=lambda _: None, load=stored)
        == record
    )
    assert sorted(p.name for p in engine.parent.iterdir()) == [
        "vision_encoder_fp16.engine",
        "vision_encoder_fp16.engine.json",
    ]


@pytest.mark.parametrize(
    ("largest", "profile"), [(1, (1, 1, 1)), (3, (1, 3, 3)), (8, (1, 4, 8)), (32, (1, 4, 32))]
)
def test_profiles(largest: int, profile: tuple[int, int, int]) -> None:
    assert BatchRange.up_to(largest) == BatchRange(*profile)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fingerprint", "fedcba9876543210"),
        ("precision", "fp32"),
        ("tensorrt", "tensorrt 11.5.0"),
        ("tensorrt", "tensorrt_rtx 1.7.1"),
        ("architecture", "12.0"),
    ],
)
def test_a_stale_or_foreign_engine_is_recognised_and_rebuilt(
    engine: Path, name: str, value: str
) -> None:
    wanted = replace(WANTED, **{name: value})
    message = refusal(engine, wanted)
    assert f"has {name} {asdict(WANTED)[name]!r}; {value!r} is needed" in message
    made = get_or_build_engine(engine, wanted, build=build, compare=lambda _: 1.0, load=served)
    assert made.identity == wanted
    assert read_engine(engine, wanted)[0] == made
    assert f"has {name} {value!r}" in refusal(engine)


def flip_a_bit(engine: Path) -> None:
    data = bytearray(engine.read_bytes())
    data[5000] ^= 1
    engine.write_bytes(data)


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(engine: Path) -> None:
        described = json.loads(sidecar(engine).read_text())
        change(described)
        sidecar(engine).write_text(json.dumps(described))

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda engine: engine.unlink(), "does not exist"),
        (lambda engine: os.truncate(engine, 1000), "has 1000 bytes; 16384 were written"),
        (lambda engine: os.truncate(engine, 0), "has 0 bytes"),
        (flip_a_bit, "is damaged"),
        (lambda engine: sidecar(engine).unlink(), "nothing is known of this engine"),
        (lambda engine: sidecar(engine).write_text("{"), "cannot be read as JSON"),
        (lambda engine: sidecar(engine).write_text("[]"), "was not written by this version"),
        (edit(lambda d: d.update(format=0)), "was not written by this version"),
        (edit(lambda d: d["identity"].pop("architecture")), "is incomplete"),
        (edit(lambda d: d["identity"].update(extra="x")), "is incomplete"),
        (edit(lambda d: d.pop("sha256")), "is incomplete"),
        (edit(lambda d: d.update(smallest_cosine="good")), "is incomplete"),
        (edit(lambda d: d.update(batch=8)), "is incomplete"),
    ],
)
def test_a_damaged_engine_is_recognised_and_rebuilt(
    engine: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(engine)
    assert reason in refusal(engine)
    get_or_build_engine(engine, WANTED, build=build, compare=lambda _: 1.0, load=served)
    assert read_engine(engine, WANTED)[1] == CONTENT


def test_a_sidecar_never_speaks_for_another_engine(engine: Path) -> None:
    # What a reader sees between the two replacements, or after a crash there.
    engine.write_bytes(bytes(len(CONTENT)))
    assert "is damaged" in refusal(engine)


def test_what_disagrees_is_not_put_in_place(tmp_path: Path) -> None:
    path = tmp_path / "x.engine"

    def judge(data: bytes) -> float:
        raise ValueError("cosine 0.5")

    with pytest.raises(ValueError, match=r"cosine 0\.5"):
        get_or_build_engine(path, WANTED, build=build, compare=judge, load=served)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_leaves_the_old_engine(engine: Path) -> None:
    def fail(made: Path) -> BatchRange:
        made.write_bytes(b"half")
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        get_or_build_engine(
            engine,
            replace(WANTED, architecture="9.0"),
            build=fail,
            compare=lambda _: 1.0,
            load=served,
        )
    assert read_engine(engine, WANTED)[1] == CONTENT


def test_one_built_elsewhere_is_judged_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    first = get_or_build_engine(path, WANTED, build=build, compare=lambda _: None, load=stored)
    assert first.smallest_cosine is None
    seen: list[bytes] = []

    def judge(data: bytes) -> float:
        seen.append(data)
        return 0.998

    judged = get_or_build_engine(path, WANTED, build=never, compare=judge, load=served)
    assert judged.smallest_cosine == 0.998
    assert seen == [CONTENT]
    assert read_engine(path, WANTED) == (judged, CONTENT)


def _build_in_a_process(path: Path, log: Path, slow_s: float) -> None:
    def slowly(made: Path) -> BatchRange:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        made.write_bytes(CONTENT[:100])
        time.sleep(slow_s)
        return build(made)

    get_or_build_engine(path, WANTED, build=slowly, compare=lambda _: 1.0, load=served)
    assert read_engine(path, WANTED)[1] == CONTENT


def start(path: Path, log: Path, slow_s: float) -> Any:
    process = multiprocessing.get_context("spawn").Process(
        target=_build_in_a_process, args=(path, log, slow_s)
    )
    process.start()
    return process


def test_processes_that_start_at_once_build_once(tmp_path: Path) -> None:
    path, log = tmp_path / "x.engine", tmp_path / "log"
    processes = [start(path, log, 0.3) for _ in range(3)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(log.read_text().splitlines()) == 1


def test_a_build_that_was_killed_blocks_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    path, log = tmp_path / "x.engine", tmp_path / "log"
    killed = start(path, log, 60)
    while not log.exists():
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join(30)
    assert not path.exists()
    get_or_build_engine(path, WANTED, build=build, compare=lambda _: 1.0, load=served)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "log",
        "x.engine",
        "x.engine.json",
    ]


@pytest.mark.parametrize("room", [0, 1, 1000, len(CONTENT) - 1])
def test_a_full_disk_leaves_nothing_that_is_taken_for_an_engine(room: int, tmp_path: Path) -> None:
    """No file may grow beyond the limit: writing fails in the middle, as on a full disk."""
    path = tmp_path / "engines" / "vision_encoder_fp16.engine"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            get_or_build_engine(path, WANTED, build=build, compare=lambda _: 0.9999, load=served)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(path.parent.iterdir()) == []
    assert "does not exist" in refusal(path)
    get_or_build_engine(path, WANTED, build=build, compare=lambda _: 0.9999, load=served)
    assert read_engine(path, WANTED)[1] == CONTENT
