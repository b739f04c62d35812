"""When the runtimes of a processor are measured beside a server, and what is made of it."""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.encoders.fake import FakeEncoder
from adapters.encoders.kept_choice import keep_choice, kept_choice
from adapters.encoders.measured_upgrade import MeasuredUpgrade
from adapters.encoders.measuring import (
    POLITE,
    Candidate,
    Figures,
    MeasuringStopped,
    Order,
    considered_by_auto,
)
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.models.precision import Precision
from adapters.models.reading import DEMO
from application.ports import Device, EncoderDescription, EncoderUnavailable

OPENVINO, TORCH = EncoderChoice.OPENVINO, EncoderChoice.TORCH
FP32 = Precision.FP32
SERVING = EncoderDescription(
    model="demo",
    fingerprint="d",
    backend="openvino",
    precision="fp32",
    device=Device("cpu", cuda_available=False),
    embedding_dimension=2,
    logit_scale=100.0,
)
PLENTY = 2**40


class Measurements:
    """Stands in for the processes: gives each candidate its rate, or raises what it was given."""

    def __init__(self, outcomes: dict[EncoderChoice, float | Exception]) -> None:
        self.outcomes = outcomes
        self.waited = 0.0
        self.orders: list[Order] = []

    @property
    def candidates(self) -> list[EncoderChoice]:
        return [order.candidate.encoder for order in self.orders]

    def __call__(self, order: Order, stop: threading.Event) -> Figures:
        self.orders.append(order)
        if stop.is_set():
            raise MeasuringStopped
        outcome = self.outcomes[order.candidate.encoder]
        if isinstance(outcome, Exception):
            raise outcome
        return Figures(dict.fromkeys(order.batches, outcome), [[1.0, 0.0]], 0, self.waited)


def upgrade(
    cache: Path | None,
    measure_one: Callable[[Order, threading.Event], Figures] | None = None,
    available: int | None = PLENTY,
    **selection: Any,
) -> MeasuredUpgrade:
    settings = {
        "choice": EncoderChoice.AUTO,
        "checkpoint": DEMO,
        "cache": cache,
        "precision": FP32,
        "probe_gpu": lambda: Device("cpu", cuda_available=False),
        **selection,
    }
    return MeasuredUpgrade(
        EncoderSelection(**settings),
        available=lambda: available,
        measure_one=measure_one or Measurements({OPENVINO: 2.0, TORCH: 3.0}),
    )


def test_it_is_wanted_where_there_is_a_choice_and_nothing_is_kept(tmp_path: Path) -> None:
    assert upgrade(tmp_path).wanted(SERVING)
    assert upgrade(tmp_path, available=None).wanted(SERVING)
    keep_choice(tmp_path, DEMO, Precision.BF16, "torch")
    assert upgrade(tmp_path).wanted(SERVING)
    keep_choice(tmp_path, DEMO, FP32, "openvino")
    assert not upgrade(tmp_path).wanted(SERVING)


@pytest.mark.parametrize(
    "selection",
    [
        {"choice": OPENVINO},
        {"choice": TORCH},
        {"precision": Precision.INT8},
        {"openvino_device": "GPU"},
        {"probe_gpu": lambda: Device("cuda:0", cuda_available=True)},
        {"checkpoint": "nowhere"},
    ],
)
def test_it_is_not_wanted_without_a_choice(selection: dict[str, Any], tmp_path: Path) -> None:
    assert not upgrade(tmp_path, **selection).wanted(SERVING)


def test_nor_where_another_one_serves_because_the_first_cannot(tmp_path: Path) -> None:
    assert not upgrade(tmp_path).wanted(replace(SERVING, backend="torch"))


def test_nor_where_nothing_can_be_kept(tmp_path: Path) -> None:
    assert not upgrade(None).wanted(SERVING)
    (tmp_path / "file").touch()
    assert not upgrade(tmp_path / "file").wanted(SERVING)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_nor_in_a_directory_that_is_only_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert not upgrade(tmp_path).wanted(SERVING)


def test_without_memory_for_it_the_log_names_the_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert not upgrade(tmp_path, available=400_000_000).wanted(SERVING)
    assert "clip-server doctor --measure" in caplog.text


def test_memory_that_is_gone_by_then_is_not_asked_for(tmp_path: Path) -> None:
    port = upgrade(tmp_path)
    port.available = lambda: 400_000_000
    with pytest.raises(EncoderUnavailable, match=r"0\.4 GiB are free"):
        port.build(FakeEncoder(embedding_dimension=2), [])


def test_each_runtime_is_measured_politely_with_one_image_and_full_batches(tmp_path: Path) -> None:
    measurements = Measurements({OPENVINO: 2.0, TORCH: 3.0})
    port = upgrade(tmp_path, measurements, openvino_streams=2)
    assert port.measure(SERVING, threading.Event()) is True
    assert measurements.orders == [
        Order(Candidate(OPENVINO, FP32, 2), DEMO, str(tmp_path), (1, 8), POLITE),
        Order(Candidate(TORCH, FP32), DEMO, str(tmp_path), (1, 8), POLITE),
    ]


def test_what_was_finished_is_not_measured_again_after_an_interruption(tmp_path: Path) -> None:
    interruption = MeasuringStopped()
    measurements = Measurements({OPENVINO: 2.0, TORCH: interruption})
    port = upgrade(tmp_path, measurements)
    assert port.measure(SERVING, threading.Event()) is None
    measurements.outcomes[TORCH] = 3.0
    assert port.measure(SERVING, threading.Event()) is True
    assert measurements.candidates == [OPENVINO, TORCH, TORCH]


def test_what_was_measured_on_a_busy_machine_does_not_count(tmp_path: Path) -> None:
    measurements = Measurements({OPENVINO: 2.0, TORCH: 9.0})
    port = upgrade(tmp_path, measurements)
    measurements.waited = 0.3
    assert port.measure(SERVING, threading.Event()) is None
    measurements.waited = 0.2
    assert port.measure(SERVING, threading.Event()) is True
    assert measurements.candidates == [OPENVINO, OPENVINO, TORCH]


def test_on_a_machine_that_stays_busy_it_gives_up(tmp_path: Path) -> None:
    measurements = Measurements({OPENVINO: 2.0, TORCH: 9.0})
    measurements.waited = 0.3
    port = upgrade(tmp_path, measurements)
    for _ in range(4):
        assert port.measure(SERVING, threading.Event()) is None
    with pytest.raises(EncoderUnavailable, match="doctor --measure"):
        port.measure(SERVING, threading.Event())
    assert not port.wanted(SERVING)
    assert upgrade(tmp_path).wanted(SERVING)  # at the next start


@pytest.mark.parametrize("other", [2.1, EncoderUnavailable("it cannot run here.")])
def test_another_one_must_be_possible_and_clearly_faster(
    other: float | Exception, tmp_path: Path
) -> None:
    port = upgrade(tmp_path, Measurements({OPENVINO: 2.0, TORCH: other}))
    assert port.measure(SERVING, threading.Event()) is False


def test_what_is_kept_decides_for_later_starts(tmp_path: Path) -> None:
    port = upgrade(tmp_path)
    assert port.wanted(SERVING)
    port.keep(replace(SERVING, backend="torch"))
    assert kept_choice(tmp_path, DEMO, FP32) == "torch"
    assert not port.wanted(SERVING)
    again = upgrade(tmp_path)
    assert not again.wanted(replace(SERVING, backend="torch"))
    assert considered_by_auto(again.selection)[0].encoder == TORCH


def test_what_cannot_be_kept_is_not_measured_twice_by_one_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = upgrade(tmp_path / "cache")
    (tmp_path / "cache").touch()
    port.keep(SERVING)
    assert "cannot be saved" in caplog.text
    (tmp_path / "cache").unlink()
    assert not port.wanted(SERVING)
