"""How fast this machine encodes with each of its encoders, measured on the real model.

Each candidate runs in its own process: two runtimes in one process would compete for the cores, and
the memory and crashes of one would affect the other. Run as a module, this file is that process: it
reads an `Order` from its arguments and prints a `Figures`.
"""

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import msgspec
import numpy as np

from adapters.artifacts.store import reason_of
from adapters.encoders.cuda import CALLS_UNTIL_FINAL
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.images.photos import samples
from adapters.models.precision import Precision
from adapters.system.hardware import core_time
from adapters.system.installation import is_installed
from adapters.system.parent import end_with_the_parent
from application.ports import EncoderPort, EncoderUnavailable
from domain.embedding import Embedding, agrees, smallest_cosine
from domain.errors import EncoderFault

CALLS_S: Final = 3.0
"""How long calls are timed for each batch size."""

_PATIENCE_S: Final = 900.0
"""Timeout for one candidate: the first time, the model is compiled or quantised."""

_LOOK_EVERY_S: Final = 0.05
"""How often to check whether to stop the process."""

POLITE: Final = 19
"""The niceness of a process that measures beside a server: all other work takes precedence."""

_CLEARLY: Final = 1.1
"""How many times as fast another candidate must be to be worth a change; the noise is smaller."""

TEXTS: Final = (
    "a photo of a cat",
    "two people in front of a door at night",
    "Ein Lastwagen fährt rückwärts in eine enge Einfahrt, während es regnet.",
    "a long text that is cut " * 30,
)
"""Texts for comparing two text towers."""

_MODULES: Final = {EncoderChoice.OPENVINO: "openvino", EncoderChoice.TORCH: "torch"}

BUSY: Final = 0.25
"""The largest share of its time that a process may have waited for a core. Above that, the figures
mean little: on a busy machine it was two thirds, and a runtime seemed ten times as slow."""

CARD_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128)
"""Batch sizes to measure on a GPU."""

_NEARLY: Final = 0.95
"""A batch size with this share of the highest throughput is large enough: larger ones would only
make each response wait longer."""


class Candidate(msgspec.Struct, frozen=True):
    """One way of running the model.

    Attributes:
        encoder: the runtime.
        precision: the type that the towers compute in.
        streams: parts of a batch that OpenVINO computes in parallel.
    """

    encoder: EncoderChoice
    precision: Precision
    streams: int = 1

    @property
    def name(self) -> str:
        """A name to display."""
        runtime = {EncoderChoice.OPENVINO: "OpenVINO", EncoderChoice.TORCH: "PyTorch"}
        streams = f", {self.streams} streams" if self.streams > 1 else ""
        return f"{runtime.get(self.encoder, self.encoder)} {self.precision}{streams}"

    @property
    def settings(self) -> str:
        """The variables that select it."""
        streams = f" CLIP_OPENVINO_STREAMS={self.streams}" if self.streams > 1 else ""
        return f"CLIP_ENCODER={self.encoder} CLIP_PRECISION={self.precision}{streams}"


class Figures(msgspec.Struct, frozen=True):
    """The measurements of one candidate.

    Attributes:
        per_second: images a second, by batch size.
        rows: embeddings of the sample photos, then of `TEXTS`.
        peak_bytes: the process's peak memory.
        waited: share of the time that the process waited for a core; it seems slower by that much.
    """

    per_second: dict[int, float]
    rows: list[list[float]]
    peak_bytes: int
    waited: float = 0.0

    @property
    def embeddings(self) -> Sequence[Embedding]:
        """The rows as embeddings."""
        return [Embedding.from_encoder(np.asarray(row, np.float32)) for row in self.rows]


class Order(msgspec.Struct, frozen=True):
    """What the measuring process should measure.

    Attributes:
        candidate: which candidate.
        checkpoint: the value of ``CLIP_MODEL_PATH``.
        cache: directory for compiled models; None if none can be written.
        batches: batch sizes.
        niceness: added to the process's own.
        seconds: how long calls are timed for each size.
    """

    candidate: Candidate
    checkpoint: str
    cache: str | None
    batches: Sequence[int]
    niceness: int = 0
    seconds: float = CALLS_S


class MeasuringStopped(Exception):
    """The measurement was stopped before it was finished."""


def candidates(
    installed: Collection[str], *, bf16: bool, int8: bool, cores: int
) -> Sequence[Candidate]:
    """All candidates for this machine; the first one is exact.

    Args:
        installed: which of ``openvino``, ``torch`` and ``nncf`` are installed.
        bf16: whether the processor has bfloat16 instructions.
        int8: whether it has int8 instructions.
        cores: the number of cores that this process may use.
    """
    found: list[Candidate] = []
    if "openvino" in installed:
        precisions = [Precision.FP32]
        precisions += [Precision.BF16] if bf16 else []
        precisions += [Precision.INT8] if int8 and "nncf" in installed else []
        streams = (1, 2) if cores > 1 else (1,)
        found += [
            Candidate(EncoderChoice.OPENVINO, precision, each)
            for precision in precisions
            for each in streams
        ]
    if "torch" in installed:
        found.append(Candidate(EncoderChoice.TORCH, Precision.FP32))
        found += [Candidate(EncoderChoice.TORCH, Precision.BF16)] if bf16 else []
    return found


def considered_by_auto(selection: EncoderSelection) -> Sequence[Candidate]:
    """The candidates of ``CLIP_ENCODER=auto`` on this processor; the first is the current choice.

    They differ only in the runtime: precision and streams are those of the settings. Empty if the
    current choice does not run on the processor.
    """
    taken, _ = replace(selection, choice=EncoderChoice.AUTO).preferred()
    elsewhere = selection.openvino_device != "CPU" or selection.probe_device().cuda_available
    if elsewhere or not is_installed(_MODULES[taken]):
        return ()
    precision = selection.processor_precision
    possible = [Candidate(EncoderChoice.OPENVINO, precision, selection.openvino_streams)]
    # Only OpenVINO computes in int8.
    if precision is not Precision.INT8:
        possible.append(Candidate(EncoderChoice.TORCH, precision))
    installed = [each for each in possible if is_installed(_MODULES[each.encoder])]
    return sorted(installed, key=lambda each: each.encoder is not taken)


def clearly_faster(
    measured: dict[Candidate, Figures], than: Candidate, batch: int
) -> Candidate | None:
    """The fastest candidate for this batch size, if it is clearly faster; else None."""
    best = max(measured, key=lambda each: measured[each].per_second[batch])
    if measured[best].per_second[batch] < _CLEARLY * measured[than].per_second[batch]:
        return None
    return best


def fastest_runtime(
    considered: Sequence[Candidate], measured: Mapping[Candidate, Figures], largest: int
) -> EncoderChoice:
    """The runtime that ``auto`` should choose from now on.

    Another one is chosen only if it is clearly faster with single images, not slower with full
    batches, and its embeddings agree with those of the current one.

    Args:
        considered: from `considered_by_auto`; not empty.
        measured: the figures of those that could be measured, and maybe of others.
        largest: images in a full batch.
    """
    now, *others = considered
    if now not in measured:
        return now.encoder
    rates, exact = measured[now].per_second, measured[now].embeddings
    for other in others:
        if other not in measured:
            continue
        single = measured[other].per_second[1] >= _CLEARLY * rates[1]
        full = measured[other].per_second[largest] >= rates[largest]
        if single and full and agrees(measured[other].embeddings, exact):
            return other.encoder
    return now.encoder


def best_batch(per_second: Mapping[int, float]) -> int:
    """The smallest batch size that nearly reaches the highest throughput.

    Args:
        per_second: images a second, by batch size; not empty.
    """
    enough = _NEARLY * max(per_second.values())
    return min(size for size, rate in per_second.items() if rate >= enough)


def cosine(figures: Figures, exact: Figures) -> float:
    """The smallest cosine between the embeddings of two candidates."""
    return smallest_cosine(figures.embeddings, exact.embeddings)


def measure(order: Order, *, stop: threading.Event | None = None) -> Figures:
    """Measure one candidate in its own process. Takes seconds, the first time minutes.

    Args:
        order: what to measure.
        stop: set by another thread to end the process at once.

    Raises:
        EncoderUnavailable: it cannot be measured; says why.
        MeasuringStopped: ``stop`` was set.
    """
    arguments = msgspec.json.encode(order).decode()
    try:
        # A file: the output is larger than a pipe's buffer, and nobody reads it until the end.
        with (
            TemporaryFile() as printed,
            subprocess.Popen(  # noqa: S603 our own module
                [sys.executable, "-m", "adapters.encoders.measuring", arguments],
                stdin=subprocess.PIPE,  # closed when this process ends, so that the child ends too
                stdout=printed,
                stderr=subprocess.DEVNULL,
            ) as process,
        ):
            try:
                _wait(process, stop or threading.Event())
            finally:
                process.kill()
            printed.seek(0)
            lines = printed.read().splitlines()
    except OSError as failure:
        raise EncoderUnavailable(
            f"its process cannot be started: {reason_of(failure)}."
        ) from failure
    last = lines[-1] if lines else b""
    if process.returncode == 0:
        return msgspec.json.decode(last, type=Figures)
    reason = last.decode(errors="replace").strip()
    raise EncoderUnavailable(reason or f"its process ended with status {process.returncode}.")


def _wait(process: "subprocess.Popen[bytes]", stop: threading.Event) -> None:
    end = time.monotonic() + _PATIENCE_S
    while process.poll() is None:
        if stop.wait(_LOOK_EVERY_S):
            raise MeasuringStopped
        if time.monotonic() > end:
            raise EncoderUnavailable(f"it took more than {_PATIENCE_S:g} seconds.")


def images_a_second(encoder: EncoderPort, batch: int, seconds: float) -> float:
    """The rate over all calls in the given time, after some warm-up calls."""
    side = encoder.description.image_input.size
    shape = (batch, 3, side, side)
    pixels = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    # Warm-up; on CUDA until this size runs as a graph.
    for _ in range(CALLS_UNTIL_FINAL if encoder.description.device.cuda_available else 2):
        encoder.encode_images(pixels)
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        encoder.encode_images(pixels)
        calls += 1
    return calls * batch / elapsed


def main(arguments: str) -> int:
    """Run as the measuring process; returns its exit status."""
    order = msgspec.json.decode(arguments, type=Order)
    if order.niceness and hasattr(os, "nice"):
        os.nice(order.niceness)
    end_with_the_parent()
    try:
        encoder = EncoderSelection(
            order.candidate.encoder,
            order.checkpoint,
            precision=order.candidate.precision,
            openvino_streams=order.candidate.streams,
            cache=None if order.cache is None else Path(order.cache),
        ).load()
        pictures = samples(encoder.description.image_input)
        before = core_time()
        per_second = {size: images_a_second(encoder, size, order.seconds) for size in order.batches}
        waited = core_time().waited_since(before)
        figures = Figures(
            per_second=per_second,
            rows=[*encoder.encode_images(pictures).tolist(), *encoder.encode_texts(TEXTS).tolist()],
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            waited=waited,
        )
        assert figures.embeddings  # raises if a row is not an embedding
    except (EncoderUnavailable, EncoderFault) as failure:
        sys.stdout.write(" ".join(str(failure).split()) + "\n")
        return 1
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
