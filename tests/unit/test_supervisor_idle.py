"""The model unloaded after a while without requests, and loaded again for the next one."""

import asyncio
import weakref
from collections.abc import AsyncIterator

import pytest

from application.inference.admission import Admission
from application.model.states import Phase
from application.ports import EncoderPort, EncoderUnavailable
from application.use_cases.health import Health, ReportHealth
from domain.errors import ModelNotReady
from domain.limits import MAX_RELOAD_SECONDS
from tests.support.clock import FakeClock
from tests.support.encoders import (
    FakeMemory,
    Loader,
    RecordingEncoder,
    pixels_of,
    settle,
    supervisor,
)
from tests.support.requests import Requests
from tests.support.supervision import supervised, until

IDLE_S = 60.0


class RecordedLoader(Loader):
    """Makes a new encoder each time and keeps none."""

    def __init__(self) -> None:
        super().__init__(self.fresh)
        self.made: list[weakref.ref[EncoderPort]] = []

    def fresh(self) -> EncoderPort:
        encoder = RecordingEncoder()
        self.made.append(weakref.ref(encoder))
        return encoder


class Service:
    """A supervised model, with time in the test's hands."""

    def __init__(self, idle_s: float | None = IDLE_S) -> None:
        self.clock = FakeClock()
        self.loader = RecordedLoader()
        self.memory = FakeMemory(self.loader.made)
        self.model = supervisor(self.loader, memory=self.memory, clock=self.clock, idle_s=idle_s)
        self.requests = Requests(self.model)

    @property
    def phase(self) -> Phase:
        return self.model.health.phase

    async def ask(self) -> EncoderPort:
        async with self.model.lease() as lease:
            return lease.encoder

    async def unload(self, seconds: float = IDLE_S) -> None:
        """Let so much time pass; then it must be unloaded."""
        releases = len(self.memory.alive_at_release)
        await self.clock.advance(seconds)
        await until(lambda: len(self.memory.alive_at_release) > releases)
        assert self.phase is Phase.UNLOADED

    def health(self) -> Health:
        return ReportHealth(
            model=self.model, admission=Admission(capacity=1), promised_dimension=4
        )()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    async with supervised(service.model):
        await until(lambda: bool(service.memory.alive_at_release))  # what loading has left over
        await settle()
        yield service


async def test_after_the_idle_time_the_encoder_is_gone_before_memory_is_released(
    service: Service,
) -> None:
    await service.clock.advance(IDLE_S - 1)
    assert service.phase is Phase.READY
    await service.unload()
    assert service.memory.alive_at_release == [1, 0]  # after loading, after unloading


async def test_a_request_starts_the_idle_time_again(service: Service) -> None:
    await service.clock.advance(IDLE_S - 1)
    await service.ask()
    await service.clock.advance(IDLE_S - 1)
    assert service.phase is Phase.READY
    await service.unload(1)


async def test_what_is_in_use_is_never_unloaded(service: Service) -> None:
    async with service.model.lease():
        for _ in range(5):
            await service.clock.advance(IDLE_S)
        assert service.phase is Phase.READY
    await service.unload()


async def test_nor_while_it_encodes_for_those_who_left(service: Service) -> None:
    encoder = service.model.encoder
    assert isinstance(encoder, RecordingEncoder)
    encoder.busy.clear()
    encoder.gate.clear()
    leaving = asyncio.create_task(service.requests.encode_image(pixels_of(1)))
    await asyncio.to_thread(encoder.busy.wait, 5)
    leaving.cancel()
    for _ in range(3):
        await service.clock.advance(IDLE_S)
    assert service.phase is Phase.READY
    encoder.gate.set()
    del encoder


async def test_requests_wait_for_one_load_and_are_all_answered(service: Service) -> None:
    await service.unload()
    service.loader.gate.clear()
    asked = [asyncio.create_task(service.ask()) for _ in range(5)]
    await settle()
    leaving = asked.pop()
    leaving.cancel()
    await settle()
    assert not any(request.done() for request in asked)
    service.loader.gate.set()
    encoders = await asyncio.gather(*asked)
    assert all(encoder is service.model.encoder for encoder in encoders)
    assert len(service.loader.made) == 2
    assert service.phase is Phase.READY


async def test_it_happens_again_and_again(service: Service) -> None:
    for cycle in range(1, 4):
        await service.unload()
        await service.ask()
        assert len(service.loader.made) == cycle + 1


async def test_waiting_has_an_end(service: Service) -> None:
    await service.unload()
    service.loader.gate.clear()
    asked = asyncio.create_task(service.ask())
    await settle()
    await service.clock.advance(MAX_RELOAD_SECONDS)
    with pytest.raises(ModelNotReady, match="still being loaded") as caught:
        await asked
    assert caught.value.code == "model_starting"
    service.loader.gate.set()
    await service.ask()


async def test_a_load_that_fails_is_told_and_tried_again_by_the_next_request(
    service: Service,
) -> None:
    await service.unload()
    missing = "the card has no memory left"
    service.loader.outcome = EncoderUnavailable(missing)
    with pytest.raises(ModelNotReady, match="no memory left") as caught:
        await service.ask()
    assert caught.value.code == "model_not_loaded"
    health = service.health()
    assert (health.ready, health.healthy, health.reason) == (True, False, missing)
    service.loader.outcome = service.loader.fresh
    await service.ask()
    assert service.health().healthy


async def test_health_tells_without_loading(service: Service) -> None:
    loaded = service.health()
    await service.unload()
    health = service.health()
    assert (health.ready, health.healthy, health.reason) == (True, True, None)
    assert health.phase is Phase.UNLOADED
    assert health.encoder == loaded.encoder
    assert len(service.loader.made) == 1


async def test_without_an_idle_time_nothing_is_ever_unloaded() -> None:
    service = Service(idle_s=None)
    async with supervised(service.model):
        await service.clock.advance(1_000_000)
        assert service.phase is Phase.READY


async def test_before_the_first_load_requests_are_refused_and_not_kept_waiting() -> None:
    service = Service()
    with pytest.raises(ModelNotReady, match="still being loaded"):
        await service.ask()
