"""The process that builds an engine and compares it: what comes of it however it ends."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from adapters.encoders.cuda import find_gpu
from adapters.encoders.engine_making import Commission, MakingCrashed, make_in_a_process
from adapters.encoders.tensorrt.engine_file import refusal_file, sidecar
from adapters.encoders.tensorrt_backend import TensorRtBackend
from adapters.images.photos import samples
from adapters.models.precision import Precision
from adapters.models.reading import DEMO
from application.ports import Device, EncoderUnavailable
from domain.embedding import Embedding
from tests.support.engines import Workshop

STAND_IN = (sys.executable, "-m", "tests.support.engine_maker")


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", f"import os, signal, sys; {code}"


@pytest.fixture
def commission(tmp_path: Path) -> Commission:
    return Commission(DEMO, tmp_path / "tower.engine", Precision.FP16, 4)


@pytest.mark.long
def test_an_engine_is_made_elsewhere_and_loaded_here(
    commission: Commission, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    workshop = Workshop()
    backend = TensorRtBackend(
        DEMO,
        engine_path=commission.engine,
        largest_batch=4,
        cache=tmp_path,
        device=Device("cpu", cuda_available=False),
        engines_at=workshop.engines_at,
        make=lambda commission, expected: make_in_a_process(commission, expected, command=STAND_IN),
    )
    encoder = backend.load_or_make()
    assert workshop.built == []  # not in this process
    assert encoder.encode_images(samples()[:3]).shape == (3, 768)
    described = json.loads(sidecar(commission.engine).read_text())
    assert described["judgement"]["smallest_cosine"] > 0.999
    assert "the engine agrees with PyTorch" in caplog.text


def test_what_the_serving_encoder_computed_is_what_counts(commission: Commission) -> None:
    """The embeddings are handed over, so that PyTorch needs no second copy of the weights."""
    wrong = [Embedding.from_encoder(row) for row in np.eye(len(samples()), 768)]
    with pytest.raises(EncoderUnavailable, match="disagrees with PyTorch"):
        make_in_a_process(commission, wrong, command=STAND_IN)
    assert not commission.engine.exists()
    assert refusal_file(commission.engine).exists()


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_the_real_process_says_what_is_missing(commission: Commission) -> None:
    with pytest.raises(EncoderUnavailable, match="TensorRT needs an NVIDIA GPU"):
        make_in_a_process(commission)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS"])
def test_a_crash_is_no_crash_of_the_server_and_is_not_repeated(
    commission: Commission, tmp_path: Path, name: str
) -> None:
    crash = python(f"os.kill(os.getpid(), signal.{name})")
    with pytest.raises(MakingCrashed, match=f"was ended by {name}"):
        make_in_a_process(commission, command=crash)
    calls: list[Commission] = []

    def make(commission: Commission, expected: object) -> None:
        calls.append(commission)
        make_in_a_process(commission, command=crash)

    backend = TensorRtBackend(
        DEMO,
        engine_path=commission.engine,
        largest_batch=4,
        cache=tmp_path,
        engines_at=Workshop().engines_at,
        make=make,
    )
    for _ in range(2):
        with pytest.raises(EncoderUnavailable, match=f"was ended by {name}"):
            backend.load_or_make()
    assert len(calls) == 1


def test_a_crash_before_it_was_told_what_to_build(commission: Commission) -> None:
    """On a busy machine the process may have ended before anything is written to it."""
    done = threading.Event()

    def keep_busy() -> None:
        while not done.is_set():
            pass

    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.2)  # how long the busy thread holds up the one that writes
    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        with pytest.raises(MakingCrashed, match="was ended by SIGSEGV"):
            make_in_a_process(commission, command=("sh", "-c", "kill -SEGV $$"))
    finally:
        done.set()
        sys.setswitchinterval(interval)
        busy.join()


def test_an_end_that_came_from_outside_is_tried_again(commission: Commission) -> None:
    """As the kernel ends it where there is too little memory."""
    killed = python("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(EncoderUnavailable, match=r"SIGKILL\. It is tried again at the next start"):
        make_in_a_process(commission, command=killed)
    with pytest.raises(EncoderUnavailable, match=r"with status 5\. It is tried again"):
        make_in_a_process(commission, command=python("sys.exit(5)"))
    with pytest.raises(OSError, match="nothing-of-that-name"):
        make_in_a_process(commission, command=("/nothing-of-that-name",))


def test_it_ends_with_the_server(commission: Commission, tmp_path: Path) -> None:
    """A build takes minutes and gigabytes, and nobody would wait for it any more."""
    place = tmp_path / "pid"
    code = (
        "import sys; from pathlib import Path; "
        "from adapters.encoders.engine_making import Commission, make_in_a_process; "
        "from adapters.models.precision import Precision; "
        f"make_in_a_process(Commission('builtin:demo', Path('{commission.engine}'), "
        f"Precision.FP16, 4), command=(sys.executable, '-m', 'tests.support.engine_maker', "
        f"'{place}'))"
    )
    server = subprocess.Popen([sys.executable, "-c", code])
    maker = _number_in(place)
    server.send_signal(signal.SIGKILL)
    server.wait(30)
    deadline = time.monotonic() + 60
    while _runs(maker):
        assert time.monotonic() < deadline, "the build goes on without its server"
        time.sleep(0.05)


def _number_in(place: Path) -> int:
    deadline = time.monotonic() + 120
    while not (place.exists() and place.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(place.read_text())


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A process that nobody has waited for yet has ended all the same.
    state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"
