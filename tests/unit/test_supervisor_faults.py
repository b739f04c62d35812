"""An encoder that misbehaves: it serves nobody until it has passed its verification."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from adapters.observability.observers import Observers
from application.model.states import Lease, Phase, grant
from application.model.verification import Verification
from application.ports import EncoderLost, EncoderUnavailable, RawEmbeddings
from domain.errors import (
    EncoderFault,
    EncoderHung,
    EncoderSuspect,
    ModelNotReady,
    ServiceUnavailable,
)
from tests.support.clock import FakeClock
from tests.support.encoders import (
    Loader,
    RecordingEncoder,
    Upgrade,
    pixels_of,
    settle,
    supervisor,
    vector_of,
)
from tests.support.observers import RecordingObserver
from tests.support.requests import Requests, TextRequests
from tests.support.supervision import supervised, until


class Service:
    """Requests to a supervised encoder."""

    def __init__(
        self,
        *,
        concurrent_calls: int = 1,
        call_timeout_s: float | None = None,
        upgrade: Upgrade | None = None,
    ) -> None:
        self.loader = Loader(RecordingEncoder)
        self.clock = FakeClock()
        self.observer = RecordingObserver()
        observer = Observers(self.observer)
        self.model = supervisor(
            self.loader,
            clock=self.clock,
            upgrade=upgrade,
            observer=observer,
            concurrent_calls=concurrent_calls,
            call_timeout_s=call_timeout_s,
        )
        self.requests = Requests(self.model, observer=observer)

    @property
    def encoder(self) -> RecordingEncoder:
        encoder = self.model.encoder
        assert isinstance(encoder, RecordingEncoder)
        return encoder

    async def ask(self, number: int) -> object:
        """The embedding of one image, or the error."""
        try:
            return (await self.requests.encode_image(pixels_of(number))).vector
        except Exception as failure:
            return failure

    async def until_ready(self) -> None:
        await until(lambda: self.model.health.ready)


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[Service]:
    async with supervised(service.model):
        yield service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running(Service()) as service:
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
    """The fault, after which the verification is held back until the gate is opened."""

    def response(rows: RawEmbeddings) -> RawEmbeddings:
        if len(rows) == 1:  # a batch that fails is tried singly before the encoder is suspect
            encoder.gate.clear()
        return fault(rows)

    return response


@pytest.mark.parametrize("fault", [nan, raising, too_long])
async def test_one_fault_and_the_encoder_is_verified_before_it_serves_again(
    service: Service, fault: Callable[[RawEmbeddings], RawEmbeddings]
) -> None:
    encoder = service.encoder
    encoder.gate.clear()
    encoder.response = then_busy(encoder, fault)
    asked = [asyncio.create_task(service.ask(number)) for number in range(6)]
    await asyncio.to_thread(encoder.several_busy, 3)  # two of the first verification
    encoder.gate.set()
    responses = await asyncio.gather(*asked)
    assert isinstance(responses[0], (EncoderFault, RuntimeError))
    assert all(isinstance(response, EncoderSuspect) for response in responses[1:])
    refused = await service.ask(7)
    assert isinstance(refused, EncoderSuspect)
    assert refused.code == "encoder_doubted"
    assert "internal" not in refused.detail
    encoder.response = lambda rows: rows
    encoder.gate.set()
    await service.until_ready()
    assert service.encoder is encoder
    assert await service.ask(7) == pytest.approx(vector_of(7))
    assert service.observer.faults_and_reloads == ["fault"]
    assert service.loader.loads == 1


@pytest.mark.parametrize("fault", [nan, raising, other])
async def test_a_failed_verification_has_the_model_reloaded_with_growing_pauses(
    service: Service, fault: Callable[[RawEmbeddings], RawEmbeddings]
) -> None:
    encoder = service.encoder
    replaced = weakref.ref(encoder)
    service.loader.outcome = EncoderUnavailable("/models/x is gone")
    encoder.response = then_busy(encoder, nan)
    refused = isinstance(await service.ask(1), EncoderFault)  # apart: an assertion keeps its parts
    assert refused
    encoder.response = fault
    encoder.gate.set()
    del encoder
    for loads, pause_s in ((2, 1), (3, 2), (4, 4), (5, 8)):
        await until(lambda loads=loads: len(service.observer.faults_and_reloads) == loads)  # type: ignore[misc]
        assert service.loader.loads == loads
        assert "/models/x is gone" in str(service.model.reason)
        await until(lambda: service.clock.sleeping)
        await service.clock.advance(pause_s - 0.5)
        assert service.loader.loads == loads
        if loads == 5:
            service.loader.outcome = RecordingEncoder
        await service.clock.advance(0.5)
    await service.until_ready()
    assert service.observer.faults_and_reloads == ["fault", *["not loaded"] * 4, "loaded"]
    assert await service.ask(7) == pytest.approx(vector_of(7))
    assert service.model.reason is None
    if fault is not raising:  # pytest keeps what is logged, a traceback with its frames too
        await until(lambda: gc.collect() >= 0 and replaced() is None)


def test_an_encoder_that_makes_something_else_than_before_fails() -> None:
    verification = Verification()
    first, second = RecordingEncoder(), RecordingEncoder()
    second.response = other
    verification.verify(first)
    with pytest.raises(EncoderFault, match="differ from before"):
        verification.verify(second)


async def test_one_that_makes_no_embeddings_is_not_even_loaded() -> None:
    model = supervisor(Loader(_broken))
    await model.load()
    assert model.health.phase is Phase.FAILED
    assert "fails its verification" in str(model.reason)


def _broken() -> RecordingEncoder:
    encoder = RecordingEncoder()
    encoder.response = nan
    return encoder


@pytest.mark.parametrize("of_the_device", [False, True], ids=["main memory", "device memory"])
async def test_no_memory_for_the_verification_is_no_verdict(
    service: Service, of_the_device: bool
) -> None:
    def exhausted(_: RawEmbeddings) -> RawEmbeddings:
        if of_the_device and len(encoder.image_batches) > calls:
            raise ServiceUnavailable("no room for one image", code="out_of_device_memory")
        raise MemoryError

    encoder = service.encoder
    calls = len(encoder.image_batches) + 1
    encoder.response = exhausted
    assert isinstance(await service.ask(1), MemoryError)
    # The verification may have been made by now.
    await until(lambda: len(encoder.image_batches) > calls)
    encoder.response = lambda rows: rows
    await until(lambda: service.clock.sleeping)
    await service.clock.advance(1)
    await service.until_ready()
    assert service.encoder is encoder


async def test_a_call_that_does_not_return_fails_all_and_is_dropped_when_it_does() -> None:
    async with running(Service(call_timeout_s=0.05)) as service:
        encoder = service.encoder
        encoder.gate.clear()
        asked = [asyncio.create_task(service.ask(number)) for number in range(9)]
        responses = await asyncio.gather(*asked)
        assert all(isinstance(response, EncoderHung) for response in responses)
        assert service.model.health.phase is Phase.HUNG
        assert isinstance(await service.ask(7), EncoderHung)
        assert service.observer.faults_and_reloads == ["hanging"]
        encoder.gate.set()
        await service.until_ready()
        assert service.encoder is encoder
        assert await service.ask(7) == pytest.approx(vector_of(7))


async def test_a_verification_that_hangs_is_a_hung_call_too() -> None:
    async with running(Service(call_timeout_s=0.05)) as service:
        encoder = service.encoder
        encoder.response = then_busy(encoder, nan)
        assert isinstance(await service.ask(1), EncoderFault)
        encoder.response = lambda rows: rows
        await until(lambda: service.model.health.phase is Phase.HUNG)
        encoder.gate.set()
        await service.until_ready()
        assert await service.ask(7) == pytest.approx(vector_of(7))


async def test_what_was_under_way_beside_a_fault_is_not_sent_on() -> None:
    async with running(Service(concurrent_calls=2)) as service:
        encoder = service.encoder
        encoder.gate.clear()
        good = asyncio.create_task(service.requests.encode_texts(["7"]))
        await asyncio.to_thread(encoder.several_busy, 3)
        lease = grant(service.model.state)
        service.model.report_fault(lease, EncoderFault("a test says so"))
        await settle()
        encoder.gate.set()
        with pytest.raises(EncoderSuspect):
            await good
        await service.until_ready()
        assert encoder.text_batches[-1] != ["7"], "verified only after the call beside it"


async def encode_beside_a_fault(service: Service, lease: Lease) -> None:
    """Encode an image; then another request finds the encoder at fault, and it stays suspect."""
    await service.requests.batcher.encode_image(pixels_of(7), lease)
    service.encoder.response = then_busy(service.encoder, nan)
    assert isinstance(await service.ask(1), EncoderFault)


async def pass_the_verification(service: Service, encoder: RecordingEncoder) -> None:
    encoder.response = lambda rows: rows
    encoder.gate.set()
    await service.until_ready()


async def test_a_response_is_not_sent_once_its_encoder_is_suspect(service: Service) -> None:
    encoder = service.encoder

    async def request() -> None:
        async with service.model.lease() as lease:
            await encode_beside_a_fault(service, lease)

    with pytest.raises(EncoderSuspect, match="being verified"):
        await request()
    await pass_the_verification(service, encoder)


async def test_a_response_made_beside_a_fault_is_not_sent_after_the_verification_either(
    service: Service,
) -> None:
    encoder = service.encoder

    async def request() -> None:
        async with service.model.lease() as lease:
            await encode_beside_a_fault(service, lease)
            await pass_the_verification(service, encoder)

    with pytest.raises(EncoderSuspect, match="while this request"):
        await request()
    assert service.encoder is encoder
    assert await service.ask(7) == pytest.approx(vector_of(7))


async def test_a_request_never_goes_on_with_an_encoder_that_failed_its_verification(
    service: Service,
) -> None:
    async def request() -> None:
        async with service.model.lease() as lease:
            service.encoder.response = nan
            assert isinstance(await service.ask(1), EncoderFault)
            await until(lambda: "loaded" in service.observer.faults_and_reloads)
            await service.requests.batcher.encode_texts(["7"], lease)

    with pytest.raises(EncoderSuspect, match="while this request"):
        await request()
    assert await service.ask(7) == pytest.approx(vector_of(7))


async def test_texts_of_an_encoder_that_failed_its_verification_are_forgotten(
    service: Service,
) -> None:
    texts = TextRequests(service.requests)
    service.encoder.response = other
    (wrong,) = await texts.encode(["7"])
    assert wrong.vector != pytest.approx(vector_of(7))
    service.encoder.response = nan
    await service.ask(1)
    await until(lambda: "loaded" in service.observer.faults_and_reloads)
    (right,) = await texts.encode(["7"])
    assert right.vector == pytest.approx(vector_of(7))


async def test_nothing_is_switched_over_from_a_suspect_encoder() -> None:
    port = Upgrade(RecordingEncoder())
    port.gate.clear()
    async with running(Service(upgrade=port)) as service:
        await asyncio.to_thread(port.preparing.wait, 10)
        serving = service.encoder
        serving.response = then_busy(serving, nan)
        assert isinstance(await service.ask(1), EncoderFault)
        serving.response = lambda rows: rows
        port.gate.set()
        await until(lambda: "suspect" in str(service.model.upgrade_reason))
        serving.gate.set()
        await service.until_ready()
        assert service.encoder is serving


async def test_a_device_lost_while_verified_is_lost(service: Service) -> None:
    def lost(_: RawEmbeddings) -> RawEmbeddings:
        raise EncoderLost("the GPU failed: cudaErrorIllegalAddress.")

    encoder = service.encoder
    encoder.response = then_busy(encoder, nan)
    assert isinstance(await service.ask(1), EncoderFault)
    encoder.response = lost
    encoder.gate.set()
    await until(lambda: service.model.health.phase is Phase.LOST)
    assert not service.model.health.alive
    assert isinstance(await service.ask(1), ModelNotReady)
