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

import numpy as np
import pytest

from adapters.encoders.tensorrt.engine_file import (
    BatchRange,
    EngineIdentity,
    EngineRecord,
    EngineRefused,
    EngineUnusable,
    Judgement,
    disown,
    get_or_build_engine,
    read_engine,
    refusal_file,
    sidecar,
)

WANTED = EngineIdentity(
    fingerprint="0123456789abcdef",
    precision="fp16",
    tensorrt="tensorrt 11.4.0",
    architecture="8.9",
    card="NVIDIA L4, 58 multiprocessors",
    driver="580",
    opset=18,
    largest_batch=8,
)
CONTENT = bytes(range(256)) * 64
JUDGEMENT = Judgement(0.9999, np.eye(2, 3, dtype=np.float32))


def maker(
    wanted: EngineIdentity = WANTED, judgement: Judgement | None = JUDGEMENT
) -> Callable[[Path], EngineRecord]:
    def make(made: Path) -> EngineRecord:
        made.write_bytes(CONTENT)
        return EngineRecord(wanted, True, judgement)

    return make


def served(record: EngineRecord, data: bytes) -> EngineRecord:
    if record.judgement is None:
        raise EngineUnusable("it was never compared")
    return record


def stored(record: EngineRecord, data: bytes) -> EngineRecord:
    return record


def never(*_: object) -> EngineRecord:
    raise AssertionError("made or judged although it was there")


def obtain(
    path: Path,
    wanted: EngineIdentity = WANTED,
    *,
    make: Callable[[Path], EngineRecord] | None = None,
    judge: Callable[[EngineRecord, bytes], EngineRecord] = never,
    load: Callable[[EngineRecord, bytes], EngineRecord] = served,
) -> EngineRecord:
    return get_or_build_engine(path, wanted, make=make or maker(wanted), judge=judge, load=load)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engines" / "vision_encoder_fp16.engine"
    obtain(path)
    return path


def refusal(engine: Path, wanted: EngineIdentity = WANTED) -> str:
    with pytest.raises(EngineUnusable) as caught:
        read_engine(engine, wanted)
    return str(caught.value)


def test_what_was_built_is_found_and_not_built_again(engine: Path) -> None:
    record, data = read_engine(engine, WANTED)
    assert data == CONTENT
    assert record.identity == WANTED
    assert record.batch == BatchRange(8)
    assert record.fused_attention
    assert record.judgement is not None
    assert record.judgement.smallest_cosine == 0.9999
    np.testing.assert_array_equal(record.judgement.expected, JUDGEMENT.expected)
    assert obtain(engine, make=never).identity == record.identity
    assert sorted(p.name for p in engine.parent.iterdir()) == [
        "vision_encoder_fp16.engine",
        "vision_encoder_fp16.engine.json",
    ]


@pytest.mark.parametrize(
    ("largest", "profiles", "judged"),
    [
        (1, ((1, 1, 1),), (1,)),
        (3, ((1, 1, 3),), (1, 3)),
        (4, ((1, 1, 4),), (1, 3, 4)),
        (5, ((1, 1, 4), (5, 5, 5)), (1, 3, 4, 5)),
        (32, ((1, 1, 4), (5, 32, 32)), (1, 3, 4, 5, 32)),
    ],
)
def test_profiles_cover_every_batch_and_are_judged_at_their_ends(
    largest: int, profiles: tuple[tuple[int, int, int], ...], judged: tuple[int, ...]
) -> None:
    assert BatchRange(largest).profiles == profiles
    assert BatchRange(largest).judged == judged
    covered = [n for first, _, last in profiles for n in range(first, last + 1)]
    assert covered == list(range(1, largest + 1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fingerprint", "fedcba9876543210"),
        ("precision", "fp32"),
        ("tensorrt", "tensorrt 11.5.0"),
        ("tensorrt", "tensorrt_rtx 1.7.1"),
        ("architecture", "12.0"),
        ("card", "NVIDIA L4, 46 multiprocessors"),
        ("card", "NVIDIA RTX 4090, 128 multiprocessors"),
        ("driver", "590"),
        ("opset", 20),
        ("largest_batch", 32),
    ],
)
def test_a_stale_or_foreign_engine_is_recognised_and_rebuilt(
    engine: Path, name: str, value: str | int
) -> None:
    changed: Any = {name: value}
    wanted = replace(WANTED, **changed)
    message = refusal(engine, wanted)
    assert f"has {name} {asdict(WANTED)[name]!r}; {value!r} is needed" in message
    assert obtain(engine, wanted).identity == wanted
    assert read_engine(engine, wanted)[0].identity == wanted
    if name != "largest_batch":  # an engine for more is right too
        assert f"has {name} {value!r}" in refusal(engine)


def test_an_engine_for_larger_batches_does_for_smaller_ones(engine: Path) -> None:
    record, _ = read_engine(engine, replace(WANTED, largest_batch=4))
    assert record.batch.largest == 8


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
        (lambda engine: sidecar(engine).unlink(), "nothing is known about this engine"),
        (lambda engine: sidecar(engine).write_text("{"), "cannot be read as JSON"),
        (lambda engine: sidecar(engine).write_text("[]"), "was not written by this version"),
        (edit(lambda d: d.update(format=0)), "was not written by this version"),
        (edit(lambda d: d["identity"].pop("architecture")), "is incomplete"),
        (edit(lambda d: d["identity"].update(extra="x")), "is incomplete"),
        (edit(lambda d: d.pop("sha256")), "is incomplete"),
        (edit(lambda d: d["judgement"].update(smallest_cosine="good")), "is incomplete"),
        (edit(lambda d: d["judgement"].update(expected="AAAA")), "is incomplete"),
        (edit(lambda d: d["judgement"].update(rows=0)), "is incomplete"),
        (edit(lambda d: d.pop("judgement")), "is incomplete"),
        (edit(lambda d: d["identity"].update(largest_batch="many")), "is incomplete"),
    ],
)
def test_a_damaged_engine_is_recognised_and_rebuilt(
    engine: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(engine)
    assert reason in refusal(engine)
    obtain(engine)
    assert read_engine(engine, WANTED)[1] == CONTENT


def test_a_sidecar_never_speaks_for_another_engine(engine: Path) -> None:
    # What a reader sees between the two replacements, or after a crash there.
    engine.write_bytes(bytes(len(CONTENT)))
    assert "is damaged" in refusal(engine)


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail(made: Path) -> EngineRecord:
        made.write_bytes(CONTENT)
        raise ValueError("cosine 0.5")

    with pytest.raises(ValueError, match=r"cosine 0\.5"):
        obtain(tmp_path / "x.engine", make=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_leaves_the_old_engine(engine: Path) -> None:
    def fail(made: Path) -> EngineRecord:
        made.write_bytes(b"half")
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        obtain(engine, replace(WANTED, architecture="9.0"), make=fail)
    assert read_engine(engine, WANTED)[1] == CONTENT


def test_one_built_elsewhere_is_judged_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    first = obtain(path, make=maker(judgement=None), load=stored)
    assert first.judgement is None
    seen: list[bytes] = []

    def judge(record: EngineRecord, data: bytes) -> EngineRecord:
        seen.append(data)
        return replace(record, judgement=Judgement(0.998, JUDGEMENT.expected))

    judged = obtain(path, make=never, judge=judge)
    assert judged.judgement is not None
    assert judged.judgement.smallest_cosine == 0.998
    assert seen == [CONTENT]
    assert read_engine(path, WANTED)[1] == CONTENT


def test_what_was_disowned_is_not_tried_again_until_it_changes(engine: Path) -> None:
    disown(engine, WANTED, "cosine 0.31 at 3 images a call.")
    message = f"cosine 0.31 at 3 images a call. It is not retried; to retry it, delete {engine}"
    for attempt in (
        lambda: read_engine(engine, WANTED),
        lambda: obtain(engine, make=never),
    ):
        with pytest.raises(EngineRefused) as caught:
            attempt()
        assert str(caught.value).startswith(message)
    # Another driver, card, version …: what was wrong may be right there.
    other = replace(WANTED, driver="590")
    assert obtain(engine, other).identity == other
    refusal_file(engine).unlink()
    assert obtain(engine).identity == WANTED


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 2, "identity": {}}'])
def test_a_damaged_refusal_refuses_nothing(engine: Path, content: str) -> None:
    refusal_file(engine).write_text(content)
    assert read_engine(engine, WANTED)[1] == CONTENT


def _build_in_a_process(path: Path, log: Path, slow_s: float) -> None:
    def slowly(made: Path) -> EngineRecord:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        made.write_bytes(CONTENT[:100])
        time.sleep(slow_s)
        return maker()(made)

    obtain(path, make=slowly)
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
    obtain(path)
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
            obtain(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(path.parent.iterdir()) == []
    assert "does not exist" in refusal(path)
    obtain(path)
    assert read_engine(path, WANTED)[1] == CONTENT
