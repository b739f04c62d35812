"""Measuring encoders while the server is idle: when it starts, what stops it, and the result."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest

from application.model.states import Phase
from application.model.supervisor import LONGEST_QUIET_S, QUIET_S, Supervisor
from application.ports import (
    EncoderDescription,
    EncoderPort,
    EncoderUnavailable,
    EncoderUpgradePort,
    RawEmbeddings,
)
from domain.errors import ClipError
from tests.support.clock import FakeClock
from tests.support.encoders import (
    FakeMemory,
    Loader,
    Measurement,
    RecordingEncoder,
    Upgrade,
    pixels_of,
    settle,
    supervisor,
    vector_of,
)
from tests.support.requests import Requests
from tests.support.supervision import supervised, until


class Faster(RecordingEncoder):
    """Another runtime; ``text_difference`` is what it adds to every text's embedding."""

    def __init__(self, text_difference: float = 0.0) -> None:
        super().__init__()
        self._text_difference = np.array([0, 0, text_difference, 0], dtype=np.float32)

    @property
    def description(self) -> EncoderDescription:
        return replace(super().description, backend="faster")

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        return np.asarray(super().encode_texts(texts) + self._text_difference)


@dataclass
class Server:
    """A supervised model, with time in the test's hands."""

    port: Measurement
    model: Supervisor
    clock: FakeClock
    memory: FakeMemory
    sleepers: int
    """Who sleep at rest: it, and what unloads an idle model."""

    async def ask(self) -> None:
        embedding = await Requests(self.model).encode_image(pixels_of(7))
        np.testing.assert_allclose(embedding.vector, vector_of(7), atol=1e-6)

    async def measuring(self, times: int = 1) -> None:
        """Let the first pause pass, and wait until it measures."""
        await self.clock.advance(QUIET_S)
        await until(lambda: self.port.begun == times)

    async def measured(self) -> None:
        """Let it measure, and wait until something was kept."""
        await self.measuring()
        self.port.done.set()
        await until(lambda: self.port.kept != [])

    async def resting(self) -> None:
        """Wait until it waits for the next pause."""
        await until(lambda: self.clock.sleepers == self.sleepers)


@asynccontextmanager
async def server(
    outcome: EncoderPort | Exception | None = None,
    *,
    upgrade: EncoderUpgradePort | None = None,
    idle_s: float | None = None,
) -> AsyncIterator[Server]:
    port, clock, memory = Measurement(outcome), FakeClock(), FakeMemory()
    model = supervisor(
        Loader(RecordingEncoder),
        measurement=port,
        clock=clock,
        memory=memory,
        upgrade=upgrade,
        idle_s=idle_s,
    )
    async with supervised(model):
        running = Server(port, model, clock, memory, sleepers=1 if idle_s is None else 2)
        if upgrade is None:
            await running.resting()
        yield running


async def test_it_measures_once_nothing_was_asked_for_a_while() -> None:
    async with server() as running:
        await running.clock.advance(QUIET_S - 1)
        assert running.port.begun == 0
        await running.ask()
        await running.clock.advance(QUIET_S - 1)
        assert running.port.begun == 0
        await running.clock.advance(1)
        await until(lambda: running.port.begun == 1)


async def test_it_does_not_measure_while_a_request_is_inside() -> None:
    async with server() as running:
        async with running.model.lease():
            for _ in range(5):
                await running.clock.advance(QUIET_S)
            await settle()
        assert running.port.begun == 0
        await running.measuring()


async def test_a_request_is_answered_while_it_measures_and_ends_that() -> None:
    async with server() as running:
        await running.measuring()
        await running.ask()
        await until(lambda: running.port.stopped == 1)


async def test_after_each_interruption_it_waits_twice_as_long() -> None:
    async with server() as running:
        await running.measuring()
        quiet_s, times = QUIET_S, 1
        for _ in range(9):
            await running.ask()
            await until(lambda: running.port.stopped == times)  # noqa: B023 it runs at once
            await running.resting()
            quiet_s = min(2 * quiet_s, LONGEST_QUIET_S)
            await running.clock.advance(quiet_s - 1)
            assert running.port.begun == times
            times += 1
            await running.clock.advance(1)
            await until(lambda: running.port.begun == times)  # noqa: B023
        assert quiet_s == LONGEST_QUIET_S


async def test_the_faster_one_takes_over_and_is_kept() -> None:
    async with server(Faster()) as running:
        assert running.model.encoder is not None
        running.memory.watched.append(weakref.ref(running.model.encoder))
        releases = len(running.memory.alive_at_release)
        await running.measured()
        assert running.model.encoder is running.port.outcome
        assert running.port.kept == ["faster"]
        await until(lambda: len(running.memory.alive_at_release) > releases)
        assert running.memory.alive_at_release[-1] == 0
        await running.ask()
        assert running.model.upgrade_reason is None


async def test_where_none_is_faster_the_serving_one_is_kept() -> None:
    async with server() as running:
        serving = running.model.encoder
        await running.measured()
        assert running.port.kept == ["fake"]
        assert running.model.encoder is serving
        assert not running.port.preparing.is_set()


@pytest.mark.parametrize(("difference", "kept"), [(0.1, "faster"), (0.2, "fake")])
async def test_its_texts_must_agree_too(
    difference: float, kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with server(Faster(difference)) as running:
        await running.measured()
        assert running.port.kept == [kept]
        assert running.model.described().backend == kept
        assert ("does not agree" in caplog.text) is (kept == "fake")


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (EncoderUnavailable("no room for it"), "no room for it"),
        (RuntimeError("secret path"), "unexpected failure"),
    ],
)
@pytest.mark.parametrize("while_measuring", [True, False])
async def test_any_failure_leaves_the_service_as_it_is(
    failure: Exception, said: str, while_measuring: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with server(Faster() if while_measuring else failure) as running:
        running.port.fault = failure if while_measuring else None
        serving = running.model.encoder
        await running.measuring()
        running.port.done.set()
        await until(lambda: said in caplog.text)
        await running.ask()
        assert running.model.encoder is serving
        assert running.port.kept == []
        assert running.model.upgrade_reason is None


async def test_it_waits_for_the_encoder_that_is_being_prepared() -> None:
    upgrade = Upgrade(EncoderUnavailable("no GPU here"))
    upgrade.gate.clear()
    async with server(upgrade=upgrade) as running:
        await asyncio.to_thread(upgrade.preparing.wait, 10)
        await running.clock.advance(QUIET_S)
        assert running.port.begun == 0
        upgrade.gate.set()
        await running.resting()
        await running.measured()
        assert running.model.upgrade_reason == "no GPU here"  # still the reason


async def test_what_is_not_wanted_is_not_measured() -> None:
    port, clock = Measurement(Faster(), wanted=False), FakeClock()
    model = supervisor(Loader(RecordingEncoder), measurement=port, clock=clock)
    async with supervised(model):
        await Requests(model).encode_image(pixels_of(7))
        await clock.advance(QUIET_S)
        await settle()
        assert not clock.sleeping
        assert port.begun == 0


async def test_a_model_that_was_loaded_again_is_not_measured_twice_at_once() -> None:
    async with server() as running:
        broken = running.model.encoder
        assert isinstance(broken, RecordingEncoder)
        broken.response = lambda rows: np.full_like(rows, np.nan)
        with pytest.raises(ClipError):
            await Requests(running.model).encode_image(pixels_of(7))
        await until(lambda: running.model.encoder not in (None, broken))
        await settle()
        for _ in range(3):
            await running.clock.advance(QUIET_S)
        await until(lambda: running.port.begun > 0)
        await settle()
        assert running.port.begun == 1


async def test_it_ends_with_the_server() -> None:
    async with server() as running:
        await running.measuring()
    await until(lambda: running.port.stopped == 1)


async def test_a_model_that_was_unloaded_meanwhile_is_loaded_to_be_compared() -> None:
    async with server(Faster(), idle_s=QUIET_S + 1) as running:
        await running.measuring()
        await running.clock.advance(1)
        assert running.model.health.phase is Phase.UNLOADED
        running.port.done.set()
        await until(lambda: running.port.kept != [])
        assert running.model.encoder is running.port.outcome
