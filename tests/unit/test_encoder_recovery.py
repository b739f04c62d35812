"""An encoder that breaks its contract: nobody is answered by it until it has proven itself."""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from adapters.observability.observers import Observers
from application.inference.batcher import EncodingQueue
from application.inference.text_cache import TextEmbeddings
from application.model.encoder_recovery import EncoderRecovery
from application.model.encoder_upgrade import EncoderUpgrade
from application.model.model_lifecycle import ModelLifecycle, ModelState
from application.ports import (
    Device,
    EncoderLoaderPort,
    EncoderPort,
    EncoderUnavailable,
    ObserverPort,
    RawEmbeddings,
)
from domain.errors import EncoderDoubted, EncoderFault, EncoderHanging
from tests.support.clock import FakeClock
from tests.support.encoders import (
    RecordingEncoder,
    TidiedMemory,
    Upgrade,
    pixels_of,
    settle,
    vector_of,
)


class Workshop(EncoderLoaderPort):
    """Makes encoders and keeps none of them; can be told to fail."""

    def __init__(self) -> None:
        self.loads = 0
        self.missing: str | None = None

    def probe_device(self) -> Device:
        return Device("cpu", cuda_available=False)

    def load(self) -> EncoderPort:
        self.loads += 1
        if self.missing is not None:
            raise EncoderUnavailable(self.missing)
        return RecordingEncoder()


class Tally(ObserverPort):
    """Counts doubts and loads."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encoder_doubted(self, cause: str) -> None:
        self.seen.append(cause)

    def encoder_loaded_anew(self, *, succeeded: bool) -> None:
        self.seen.append("loaded" if succeeded else "not loaded")


class Service:
    """A queue and what sees to its encoder."""

    def __init__(self, *, concurrent_calls: int = 1, call_timeout_s: float | None = None) -> None:
        self.loader = Workshop()
        self.clock = FakeClock()
        self.memory = TidiedMemory()
        self.tally = Tally()
        self.model = ModelLifecycle(self.loader)
        observer = Observers(self.tally)
        self.queue = EncodingQueue(
            self.model,
            max_batch=4,
            concurrent_calls=concurrent_calls,
            call_timeout_s=call_timeout_s,
            observer=observer,
        )
        self.recovery = EncoderRecovery(
            self.model, self.queue, memory=self.memory, clock=self.clock, observer=observer
        )
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Service":
        self._running = asyncio.create_task(self.recovery.run())
        await self.model.bring_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        self.queue.close()

    @property
    def encoder(self) -> RecordingEncoder:
        encoder = self.model.loaded
        assert isinstance(encoder, RecordingEncoder)
        return encoder

    async def ask(self, number: int) -> object:
        """The answer to one image, or the error."""
        try:
            return (await self.queue.encode_image(pixels_of(number))).vector
        except Exception as failure:
            return failure

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let threads and tasks go on until something holds."""
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.to_thread(time.sleep, 0.002)

    async def until_ready(self) -> None:
        await self.until(lambda: self.model.state is ModelState.READY)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with Service() as service:
        yield service


def nan(rows: RawEmbeddings) -> RawEmbeddings:
    return np.full_like(rows, np.nan)


def other(rows: RawEmbeddings) -> RawEmbeddings:
    """Embeddings that look right and are not."""
    return np.roll(rows, 1, axis=1)


def raising(_: RawEmbeddings) -> RawEmbeddings:
    raise RuntimeError("an internal matter")


def too_long(rows: RawEmbeddings) -> RawEmbeddings:
    return np.concatenate([rows, rows], axis=1)


def then_busy(
    encoder: RecordingEncoder, fault: Callable[[RawEmbeddings], RawEmbeddings]
) -> Callable[[RawEmbeddings], RawEmbeddings]:
    """The fault, after which the self-test is held back until the gate is opened."""

    def answer(rows: RawEmbeddings) -> RawEmbeddings:
        if len(rows) == 1:  # a batch that fails is tried singly before anybody doubts
            encoder.gate.clear()
        return fault(rows)

    return answer


@pytest.mark.parametrize("fault", [nan, raising, too_long])
async def test_one_fault_and_the_encoder_is_tested_before_it_answers_again(
    service: Service, fault: Callable[[RawEmbeddings], RawEmbeddings]
) -> None:
    encoder = service.encoder
    encoder.gate.clear()
    encoder.answer = then_busy(encoder, fault)
    asked = [asyncio.create_task(service.ask(number)) for number in range(6)]
    await asyncio.to_thread(encoder.several_busy, 3)  # two of the self-test at the beginning
    encoder.gate.set()
    answers = await asyncio.gather(*asked)
    assert isinstance(answers[0], (EncoderFault, RuntimeError))
    assert all(isinstance(answer, EncoderDoubted) for answer in answers[1:])
    refused = await service.ask(7)
    assert isinstance(refused, EncoderDoubted)
    assert refused.code == "encoder_doubted"
    assert "internal" not in refused.detail
    encoder.answer = lambda rows: rows
    encoder.gate.set()
    await service.until_ready()
    assert service.encoder is encoder
    assert await service.ask(7) == pytest.approx(vector_of(7))
    assert service.tally.seen == ["fault"]
    assert service.loader.loads == 1


@pytest.mark.parametrize("fault", [nan, raising, other])
async def test_a_failed_self_test_has_the_model_loaded_anew_with_growing_pauses(
    service: Service, fault: Callable[[RawEmbeddings], RawEmbeddings]
) -> None:
    encoder = service.encoder
    replaced = weakref.ref(encoder)
    service.loader.missing = "/models/x is gone"
    encoder.answer = then_busy(encoder, nan)
    refused = isinstance(await service.ask(1), EncoderFault)  # apart: an assertion keeps its parts
    assert refused
    encoder.answer = fault
    encoder.gate.set()
    del encoder
    for loads, pause_s in ((2, 1), (3, 2), (4, 4), (5, 8)):
        await service.until(lambda loads=loads: len(service.tally.seen) == loads)  # type: ignore[misc]
        assert service.loader.loads == loads
        assert "/models/x is gone" in str(service.model.failure)
        await service.until(lambda: service.clock.sleeping)
        await service.clock.advance(pause_s - 0.5)
        assert service.loader.loads == loads
        if loads == 5:
            service.loader.missing = None
        await service.clock.advance(0.5)
    await service.until_ready()
    assert service.tally.seen == ["fault", *["not loaded"] * 4, "loaded"]
    assert await service.ask(7) == pytest.approx(vector_of(7))
    assert service.model.failure is None
    if fault is not raising:  # pytest keeps what is logged, a traceback with its frames too
        await service.until(lambda: gc.collect() >= 0 and replaced() is None)


async def test_an_encoder_that_makes_something_else_is_not_taken_when_loaded_anew(
    service: Service,
) -> None:
    service.encoder.answer = other
    await service.model.bring_up()
    other_one = RecordingEncoder()
    other_one.answer = other
    with pytest.raises(EncoderFault, match="something else than before"):
        service.model.prove(other_one)


async def test_one_that_makes_no_embeddings_is_not_even_loaded() -> None:
    service = Service()
    service.loader.load = lambda: _broken()  # type: ignore[method-assign]
    await service.model.bring_up()
    assert service.model.state is ModelState.FAILED
    assert "self-test" in str(service.model.failure)
    service.queue.close()


def _broken() -> RecordingEncoder:
    encoder = RecordingEncoder()
    encoder.answer = nan
    return encoder


async def test_no_memory_for_the_self_test_is_no_verdict(service: Service) -> None:
    def exhausted(_: RawEmbeddings) -> RawEmbeddings:
        raise MemoryError

    encoder = service.encoder
    encoder.answer = exhausted
    assert isinstance(await service.ask(1), MemoryError)
    calls = len(encoder.image_batches)
    await service.until(lambda: len(encoder.image_batches) > calls)
    encoder.answer = lambda rows: rows
    await service.until(lambda: service.clock.sleeping)
    await service.clock.advance(1)
    await service.until_ready()
    assert service.encoder is encoder


async def test_a_call_that_does_not_return_fails_all_and_is_dropped_when_it_does() -> None:
    async with Service(call_timeout_s=0.05) as service:
        encoder = service.encoder
        encoder.gate.clear()
        asked = [asyncio.create_task(service.ask(number)) for number in range(9)]
        answers = await asyncio.gather(*asked)
        assert all(isinstance(answer, EncoderHanging) for answer in answers)
        assert service.model.state is ModelState.HANGING
        assert isinstance(await service.ask(7), EncoderHanging)
        assert service.tally.seen == ["hanging"]
        encoder.gate.set()
        await service.until_ready()
        assert service.encoder is encoder
        assert await service.ask(7) == pytest.approx(vector_of(7))


async def test_a_self_test_that_hangs_is_hanging_too() -> None:
    async with Service(call_timeout_s=0.05) as service:
        encoder = service.encoder
        encoder.answer = then_busy(encoder, nan)
        assert isinstance(await service.ask(1), EncoderFault)
        encoder.answer = lambda rows: rows
        await service.until(lambda: service.model.state is ModelState.HANGING)
        encoder.gate.set()
        await service.until_ready()
        assert await service.ask(7) == pytest.approx(vector_of(7))


async def test_what_was_under_way_beside_a_fault_is_not_sent_on() -> None:
    async with Service(concurrent_calls=2) as service:
        encoder = service.encoder
        encoder.gate.clear()
        good = asyncio.create_task(service.queue.encode_texts(["7"]))
        await asyncio.to_thread(encoder.several_busy, 3)
        assert service.model.doubt(encoder, "a test says so")
        await settle()
        encoder.gate.set()
        with pytest.raises(EncoderDoubted):
            await good
        await service.until_ready()


async def test_a_request_never_goes_on_with_an_encoder_that_failed_its_test(
    service: Service,
) -> None:
    with service.model.one_encoder():
        service.encoder.answer = nan
        assert isinstance(await service.ask(1), EncoderFault)
        await service.until(lambda: "loaded" in service.tally.seen)
        with pytest.raises(EncoderDoubted, match="began with"):
            await service.queue.encode_texts(["7"])
    assert await service.ask(7) == pytest.approx(vector_of(7))


async def test_texts_of_an_encoder_that_failed_its_test_are_forgotten(service: Service) -> None:
    texts = TextEmbeddings(service.queue, service.model, capacity=10)
    service.encoder.answer = other
    (wrong,) = await texts.encode(["7"])
    assert wrong.vector != pytest.approx(vector_of(7))
    service.encoder.answer = nan
    await service.ask(1)
    await service.until(lambda: "loaded" in service.tally.seen)
    (right,) = await texts.encode(["7"])
    assert right.vector == pytest.approx(vector_of(7))


async def test_nothing_is_switched_over_from_an_encoder_in_doubt(service: Service) -> None:
    port = Upgrade(RecordingEncoder())
    port.gate.clear()
    upgrade = EncoderUpgrade(port, model=service.model, queue=service.queue, memory=service.memory)
    running = asyncio.create_task(upgrade.run())
    await asyncio.to_thread(port.preparing.wait, 10)
    serving = service.encoder
    serving.gate.clear()
    assert service.model.doubt(serving, "a test says so")
    port.gate.set()
    await running
    serving.gate.set()
    await service.until_ready()
    assert service.encoder is serving
    assert "in doubt" in str(upgrade.reason)
