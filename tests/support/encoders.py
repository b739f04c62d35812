"""Encoders and loaders that record what they were told or misbehave on purpose."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from application.model.states import Ready, State
from application.model.supervisor import Supervisor
from application.ports import (
    UNOBSERVED,
    ClockPort,
    Device,
    EncoderDescription,
    EncoderLoaderPort,
    EncoderMeasurementPort,
    EncoderPort,
    EncoderUpgradePort,
    ImageInput,
    MemoryPort,
    ObserverPort,
    PixelBatch,
    Pixels,
    RawEmbeddings,
    TokenCount,
)
from domain.embedding import Embedding
from tests.support.clock import FakeClock

DIMENSION = 4


def pixels_of(number: float) -> Pixels:
    """A stand-in for a preprocessed image, recognisable by its number."""
    return np.full((3, 2, 2), number, dtype=np.float32)


def vector_of(number: float) -> np.ndarray:
    """What `RecordingEncoder` returns for that number; a unit vector, different for each."""
    angle = number / 1000
    return np.array([np.cos(angle), np.sin(angle), 0.0, 0.0], dtype=np.float32)


SAMPLES = np.stack([pixels_of(1), pixels_of(500)])
"""What two encoders are compared on."""


class RecordingEncoder(EncoderPort):
    """Returns `vector_of` each input's number and records every batch.

    ``gate`` holds it back: clear it, and the encoder stays busy until it is set again.
    """

    def __init__(self) -> None:
        self.image_batches: list[list[float]] = []
        self.text_batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()
        self.poison: float | None = None
        self.response: Callable[[RawEmbeddings], RawEmbeddings] = lambda rows: rows

    @property
    def description(self) -> EncoderDescription:
        return EncoderDescription(
            model="recording",
            fingerprint="r",
            backend="fake",
            precision="fp32",
            device=Device("cpu", cuda_available=False),
            embedding_dimension=DIMENSION,
            logit_scale=100.0,
        )

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        numbers = [float(pixels.flat[0]) for pixels in batch]
        self._record(self.image_batches, numbers)
        if self.poison in numbers:
            raise RuntimeError("poisoned")
        return self.response(np.stack([vector_of(number) for number in numbers]))

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        self._record(self.text_batches, list(texts))
        numbers = [float(text) if text.isdigit() else 0.0 for text in texts]
        return self.response(np.stack([vector_of(number) for number in numbers]))

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """Two for each text; of one with more than ten letters, one is cut off."""
        return TokenCount(2 * len(texts), sum(len(text) > 10 for text in texts))

    def device_memory_used(self) -> int | None:
        return None

    def several_busy(self, calls: int) -> None:
        """Return once so many calls have begun."""
        for _ in range(1000):
            if len(self.image_batches) + len(self.text_batches) >= calls:
                return
            time.sleep(0.005)
        raise AssertionError(f"fewer than {calls} calls have begun")

    def _record(self, batches: list, batch: list) -> None:  # type: ignore[type-arg]
        batches.append(batch)
        self.busy.set()
        assert self.gate.wait(10), "the test never opened the gate"


class Loader(EncoderLoaderPort):
    """Loads what it was given, or raises it; keeps count.

    ``outcome`` may be changed between loads; a function is called for each. ``gate`` holds loads
    back: clear it, and they wait until it is set again.
    """

    def __init__(self, outcome: EncoderPort | Exception | Callable[[], EncoderPort]) -> None:
        self.outcome = outcome
        self.loads = 0
        self.gate = threading.Event()
        self.gate.set()

    def probe_device(self) -> Device:
        return Device("cpu", cuda_available=False)

    def load(self) -> EncoderPort:
        assert self.gate.wait(10), "the test never opened the gate"
        self.loads += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome if isinstance(self.outcome, EncoderPort) else self.outcome()


def supervisor(
    loader: EncoderLoaderPort,
    *,
    memory: MemoryPort | None = None,
    clock: ClockPort | None = None,
    upgrade: EncoderUpgradePort | None = None,
    measurement: EncoderMeasurementPort | None = None,
    observer: ObserverPort = UNOBSERVED,
    concurrent_calls: int = 1,
    call_timeout_s: float | None = None,
    idle_s: float | None = None,
    state: State | None = None,
) -> Supervisor:
    """A supervisor with fakes for all ports that are not given."""
    return Supervisor(
        loader,
        memory=memory or FakeMemory(),
        clock=clock or FakeClock(),
        upgrade=upgrade or Upgrade(None),
        measurement=measurement,
        observer=observer,
        concurrent_calls=concurrent_calls,
        call_timeout_s=call_timeout_s,
        idle_s=idle_s,
        state=state,
    )


def warm(encoder: EncoderPort, *, concurrent_calls: int = 1) -> Supervisor:
    """A supervisor whose encoder is there from the start."""
    return supervisor(Loader(encoder), concurrent_calls=concurrent_calls, state=Ready(encoder))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Upgrade(EncoderUpgradePort):
    """Returns what it was given, once ``gate`` is open, or raises it."""

    def __init__(self, outcome: EncoderPort | Exception | None) -> None:
        self.outcome = outcome
        self.gate = threading.Event()
        self.gate.set()
        self.preparing = threading.Event()
        self.expected: Sequence[Embedding] = ()

    def wanted(self, serving: EncoderDescription) -> bool:
        return self.outcome is not None

    def samples(self, image_input: ImageInput) -> PixelBatch:
        return SAMPLES

    def build(self, serving: EncoderPort, expected: Sequence[Embedding]) -> EncoderPort:
        self.preparing.set()
        assert self.gate.wait(10)
        self.expected = expected
        if isinstance(self.outcome, Exception):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome


class Measurement(Upgrade, EncoderMeasurementPort):
    """Measures until ``done`` is set or it is stopped, and builds what it was given.

    Without anything to build, no other encoder is faster.
    """

    def __init__(self, outcome: EncoderPort | Exception | None, *, wanted: bool = True) -> None:
        super().__init__(outcome)
        self._wanted = wanted
        self.done = threading.Event()
        self.fault: Exception | None = None
        self.begun = 0
        self.stopped = 0
        self.kept: list[str] = []

    def wanted(self, serving: EncoderDescription) -> bool:
        return self._wanted

    def texts(self) -> Sequence[str]:
        return ("1", "500")

    def measure(self, serving: EncoderDescription, stop: threading.Event) -> bool | None:
        self.begun += 1
        while not self.done.is_set():
            if stop.wait(0.002):
                self.stopped += 1
                return None
        if self.fault is not None:
            raise self.fault
        return self.outcome is not None

    def keep(self, encoder: EncoderDescription) -> None:
        self.kept.append(encoder.backend)


class FakeMemory(MemoryPort):
    """Keeps, for each release, how many of the watched encoders were still in memory."""

    def __init__(self, watched: list[weakref.ref[EncoderPort]] | None = None) -> None:
        self.watched = [] if watched is None else watched
        self.alive_at_release: list[int] = []

    def release(self) -> None:
        if self.watched:  # it takes seconds where many other tests ran before
            gc.collect()
        self.alive_at_release.append(sum(encoder() is not None for encoder in self.watched))
