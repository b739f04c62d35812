"""The processes that measure: what comes of them however they end; and a real switch-over."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from adapters.encoders.kept_choice import kept_choice
from adapters.encoders.measured_upgrade import MeasuredUpgrade
from adapters.encoders.measuring import (
    Candidate,
    Figures,
    MeasuringStopped,
    Order,
    measure,
)
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.models.precision import Precision
from adapters.models.reading import DEMO
from application.model.supervisor import QUIET_S
from application.ports import Device, EncoderUnavailable
from tests.support.clock import FakeClock
from tests.support.encoders import supervisor
from tests.support.supervision import supervised, until

FP32 = Precision.FP32
PATIENCE_S = 300.0
"""Two real encoders are loaded, maybe on a busy machine."""
OPENVINO, TORCH = EncoderChoice.OPENVINO, EncoderChoice.TORCH


def order(cache: Path, checkpoint: str = DEMO) -> Order:
    return Order(Candidate(OPENVINO, FP32), checkpoint, str(cache), (1,), niceness=1)


def test_figures_of_photos_and_texts_come_from_a_process_of_its_own(tmp_path: Path) -> None:
    figures = measure(order(tmp_path))
    assert figures.per_second[1] > 0
    assert {embedding.dimension for embedding in figures.embeddings} == {768}
    assert len(figures.embeddings) == 16 + 4


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="does not exist"):
        measure(order(tmp_path, "/nowhere"))


def test_once_it_is_to_stop_its_process_is_ended(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(MeasuringStopped):
        measure(order(tmp_path), stop=stop)


def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    arguments = msgspec.json.encode(order(tmp_path)).decode()
    with subprocess.Popen(
        [sys.executable, "-m", "adapters.encoders.measuring", arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) not in (0, -signal.SIGKILL)


async def test_a_server_switches_over_to_the_faster_runtime_and_takes_it_at_the_next_start(
    tmp_path: Path,
) -> None:
    def measured(asked: Order, _: threading.Event) -> Figures:
        rate = 3.0 if asked.candidate.encoder is TORCH else 2.0
        return Figures(dict.fromkeys(asked.batches, rate), [[1.0, 0.0]], 0)

    selection = EncoderSelection(
        EncoderChoice.AUTO,
        DEMO,
        cache=tmp_path,
        precision=FP32,
        probe_gpu=lambda: Device("cpu", cuda_available=False),
    )
    clock = FakeClock()
    model = supervisor(
        selection, measurement=MeasuredUpgrade(selection, measure_one=measured), clock=clock
    )
    async with supervised(model, within_s=PATIENCE_S):
        assert model.described().backend == "openvino"
        fingerprint = model.described().fingerprint
        await until(lambda: clock.sleeping)
        await clock.advance(QUIET_S)
        await until(lambda: kept_choice(tmp_path, DEMO, FP32) is not None, within_s=PATIENCE_S)
        assert model.described().backend == "torch"
        assert model.described().fingerprint == fingerprint
    assert selection.preferred()[0] == TORCH
    assert not MeasuredUpgrade(selection).wanted(model.described())
