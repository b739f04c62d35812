"""Engines that end the process that loads them: real processes, which really crash."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.encoders.tensorrt.attempts import attempt, mark_file
from adapters.encoders.tensorrt.engine_file import refusal_file, sidecar
from adapters.encoders.tensorrt.engines import Installation
from adapters.encoders.tensorrt_backend import TensorRtBackend
from adapters.models.precision import Precision
from application.ports import Device, EncoderUnavailable
from tests.integration.test_engine_files import WANTED
from tests.support.engines import GPU, TENSORRT, Workshop

CPU = Device("cpu", cuda_available=False)


def tensorrt(name: str, source: Path, engine: Path) -> TensorRtBackend:
    workshop = Workshop(Installation(replace(TENSORRT, name=name), GPU))
    return TensorRtBackend(
        str(source),
        upgrades=True,
        engine_path=engine,
        largest_batch=4,
        cache=engine.parent,
        device=CPU,
        engines_at=workshop.engines_at,
        make=workshop.make,
    )


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt_rtx"])
def built(
    request: pytest.FixtureRequest,
    hugging_face_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> TensorRtBackend:
    """TensorRT with an engine that was built and found right; of both kinds."""
    place = tmp_path_factory.mktemp(request.param) / "tower.engine"
    backend = tensorrt(request.param, hugging_face_directory, place)
    backend.load_or_make()
    return backend


@pytest.fixture
def made(built: TensorRtBackend) -> Iterator[TensorRtBackend]:
    """The same, without what an earlier test has left beside the engine."""
    yield built
    assert built.engine_path is not None
    for place in (mark_file(built.engine_path), refusal_file(built.engine_path)):
        place.unlink(missing_ok=True)


def start(made: TensorRtBackend, how: str) -> int:
    """The status of a process that loads the engine."""
    assert made.engine_path is not None
    identity = json.loads(sidecar(made.engine_path).read_text())["identity"]
    name = identity["tensorrt"].partition(" ")[0]
    arguments = [str(made.engine_path), identity["fingerprint"], name, how]
    return subprocess.run(
        [sys.executable, "-m", "tests.support.engine_loader", *arguments],
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode


CRASHES = {"load": signal.SIGSEGV, "run": signal.SIGABRT}


def test_the_third_start_serves_on_pytorch(
    made: TensorRtBackend, caplog: pytest.LogCaptureFixture
) -> None:
    assert made.engine_path is not None
    kernels = made.engine_path.with_name(made.engine_path.name + ".kernels")
    for number, (how, end) in enumerate(CRASHES.items()):
        kernels.write_bytes(b"kernels")
        assert start(made, how) == -end
        assert mark_file(made.engine_path).exists()
        assert not refusal_file(made.engine_path).exists()
        # What TensorRT for RTX has compiled may be what it crashed on.
        assert kernels.exists() == (number == 0)
    selection = EncoderSelection(
        EncoderChoice.AUTO,
        made.checkpoint,
        precision=Precision.FP32,
        tensorrt=made,
        probe_gpu=lambda: Device("cpu", cuda_available=True),
    )
    assert selection.load().description.backend == "torch"
    assert "ended 2 times in a row" in caplog.text
    assert not mark_file(made.engine_path).exists()
    # Neither loaded nor built again, by this process or the next.
    with pytest.raises(EncoderUnavailable, match=r"crashed or was killed\. It is not retried"):
        made.load_or_make()
    assert start(made, "load") == 1


def test_a_kill_from_outside_now_and_then_disowns_nothing(made: TensorRtBackend) -> None:
    assert made.engine_path is not None
    for _ in range(2):
        assert start(made, "killed") == -signal.SIGKILL
        assert start(made, "well") == 0
        assert not mark_file(made.engine_path).exists()
    assert not refusal_file(made.engine_path).exists()


def test_a_load_that_goes_on_elsewhere_is_no_crash(tmp_path: Path) -> None:
    engine = tmp_path / "tower.engine"
    with attempt(engine, WANTED) as first, attempt(engine, WANTED) as second:
        assert (first, second) == (0, 0)
        assert mark_file(engine).exists()
    assert not mark_file(engine).exists()


def test_a_failure_that_the_process_survives_is_no_crash(tmp_path: Path) -> None:
    engine = tmp_path / "tower.engine"
    seen: list[int] = []

    def refused() -> None:
        with attempt(engine, WANTED) as ended:
            seen.append(ended)
            raise EncoderUnavailable("no room")

    for _ in range(3):
        with pytest.raises(EncoderUnavailable):
            refused()
    assert seen == [0, 0, 0]


def test_marks_that_say_nothing_do_not_count(tmp_path: Path) -> None:
    engine = tmp_path / "tower.engine"
    other = {"identity": {"fingerprint": "another"}, "loads": 5}
    for text in ("", "{", "[]", '{"loads": "x"}', json.dumps(other)):
        mark_file(engine).write_text(text)
        with attempt(engine, WANTED) as ended:
            assert ended == 0
    with attempt(tmp_path / "nowhere" / "tower.engine", WANTED) as ended:
        assert ended == 0
