"""Switching over under load: nothing lost, nothing mixed, every failure logged once."""

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.inference.batcher import Batcher
from application.model.states import Lease, Phase
from application.model.supervisor import UPGRADING, Supervisor
from application.ports import (
    EncoderDescription,
    EncoderLost,
    EncoderPort,
    EncoderUnavailable,
    PixelBatch,
    RawEmbeddings,
)
from domain.embedding import Embedding
from domain.errors import ModelNotReady
from tests.support.encoders import (
    SAMPLES,
    FakeMemory,
    Loader,
    RecordingEncoder,
    Upgrade,
    pixels_of,
    supervisor,
    vector_of,
)
from tests.support.requests import Requests
from tests.support.supervision import supervised, until

FASTER = np.array([0.0, 0.0, 0.05, 0.0], dtype=np.float32)
"""What the faster encoder adds to every image's embedding, so that its responses are known."""


class FasterEncoder(RecordingEncoder):
    """Agrees with the other to 0.999, and yet its responses can be told apart."""

    def __init__(self, difference: np.ndarray = FASTER) -> None:
        super().__init__()
        self._difference = difference

    @property
    def description(self) -> EncoderDescription:
        return replace(super().description, backend="faster")

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        return np.asarray(super().encode_images(batch) + self._difference)


@asynccontextmanager
async def upgrading(
    outcome: EncoderPort | Exception | None, memory: FakeMemory | None = None
) -> AsyncIterator[tuple[Supervisor, Upgrade]]:
    """A supervised encoder for which a faster one is prepared, once the gate is open."""
    port = Upgrade(outcome)
    port.gate.clear()
    model = supervisor(Loader(RecordingEncoder), upgrade=port, memory=memory)
    async with supervised(model):
        yield model, port


async def switched(model: Supervisor, port: Upgrade) -> None:
    """Open the gate and wait for the end of it, whatever it is."""
    port.gate.set()
    await until(lambda: port.expected != () and model.upgrade_reason != UPGRADING)


class ConcurrentEncoder(FasterEncoder):
    """Takes two calls at once."""

    @property
    def description(self) -> EncoderDescription:
        return replace(super().description, concurrent_calls=2)


@pytest.mark.parametrize("concurrent", [False, True])
async def test_as_many_calls_as_the_encoder_takes(concurrent: bool) -> None:
    encoder = ConcurrentEncoder() if concurrent else FasterEncoder()
    model = supervisor(Loader(encoder))
    async with supervised(model):
        requests = Requests(model)
        assert model.concurrent_calls == (2 if concurrent else 1)
        encoder.gate.clear()
        done = len(encoder.image_batches)
        begun = done + len(encoder.text_batches)
        asked = [asyncio.create_task(requests.encode_image(pixels_of(n))) for n in range(6)]
        if concurrent:
            await asyncio.to_thread(encoder.several_busy, begun + 2)
        else:
            await until(lambda: len(encoder.image_batches) > done)
            await asyncio.sleep(0.05)
            assert len(encoder.image_batches) == done + 1
        encoder.gate.set()
        for number, response in enumerate(await asyncio.gather(*asked)):
            expected = vector_of(number) + FASTER
            assert response.vector == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


async def test_the_slower_encoder_still_gets_one_call_at_a_time_after_the_switch() -> None:
    """Its leases stay good, while there are already as many workers as the faster one takes."""
    slow, running, most = RecordingEncoder(), 0, 0
    model = supervisor(Loader(slow), upgrade=Upgrade(ConcurrentEncoder()))
    lock = threading.Lock()

    def work(encoder: EncoderPort) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return most

    async with supervised(model):
        await until(lambda: model.concurrent_calls == 2)
        assert model.encoder is not slow
        old = Lease(slow, epoch=0)
        await asyncio.gather(*(model.call(old, work) for _ in range(6)))
        assert most == 1
        assert model.encoder is not None
        new = Lease(model.encoder, epoch=0)
        await asyncio.gather(*(model.call(new, work) for _ in range(6)))
        assert most == 2


async def test_the_faster_encoder_takes_over() -> None:
    async with upgrading(FasterEncoder()) as (model, port):
        serving = model.encoder
        assert isinstance(serving, RecordingEncoder)
        await switched(model, port)
        assert model.encoder is port.outcome
        assert model.upgrade_reason is None
        assert [row.vector[0] for row in port.expected] == pytest.approx(
            [vector_of(1)[0], vector_of(500)[0]]
        )
        assert serving.image_batches[1:] == [[1.0], [500.0]]  # after the first verification


async def test_nobody_holds_the_encoder_that_was_replaced() -> None:
    memory = FakeMemory()
    async with upgrading(FasterEncoder(), memory) as (model, port):
        await Requests(model).encode_image(pixels_of(3))
        await until(lambda: len(memory.alive_at_release) == 1)  # after loading
        assert model.encoder is not None
        memory.watched.append(weakref.ref(model.encoder))
        await switched(model, port)
        await until(lambda: len(memory.alive_at_release) == 2)
        assert memory.alive_at_release[-1] == 0
        assert model.upgrade_reason is None


async def test_meanwhile_the_reason_is_given_and_requests_are_served() -> None:
    async with upgrading(FasterEncoder()) as (model, port):
        requests = Requests(model)
        await asyncio.to_thread(port.preparing.wait, 10)
        assert "being built" in str(model.upgrade_reason)
        embedding = await requests.encode_image(pixels_of(7))
        np.testing.assert_allclose(embedding.vector, vector_of(7), atol=1e-6)
        await switched(model, port)
        assert model.upgrade_reason is None
        embedding = await requests.encode_image(pixels_of(7))
        assert embedding.vector[2] > 0.04


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (EncoderUnavailable("no GPU here"), "no GPU here"),
        (RuntimeError("secret path"), "failed unexpectedly"),
        (FasterEncoder(np.array([0, 0, 0.2, 0], dtype=np.float32)), "faster does not agree"),
        (FasterEncoder(np.full(4, np.nan, dtype=np.float32)), "zero or not finite"),
    ],
)
async def test_any_failure_leaves_the_service_as_it_is(
    outcome: EncoderPort | Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with upgrading(outcome) as (model, port):
        serving = model.encoder
        await switched(model, port)
        assert model.encoder is serving
        assert reason in str(model.upgrade_reason)
        assert "secret" not in str(model.upgrade_reason)
        assert len([r for r in caplog.records if r.levelname in {"WARNING", "ERROR"}]) == 1
        await Requests(model).encode_image(pixels_of(1))


async def test_what_nobody_wants_is_not_looked_for() -> None:
    async with upgrading(None) as (model, port):
        port.gate.set()
        await Requests(model).encode_image(pixels_of(1))
        assert port.expected == ()
        assert model.upgrade_reason is None


async def test_without_a_model_nothing_is_upgraded() -> None:
    port = Upgrade(FasterEncoder())
    model = supervisor(Loader(EncoderUnavailable("missing")), upgrade=port)
    async with supervised(model):
        assert model.health.phase is Phase.FAILED
        assert not port.preparing.is_set()


async def test_a_model_that_was_lost_meanwhile_stays_lost() -> None:
    async with upgrading(FasterEncoder()) as (model, port):
        await asyncio.to_thread(port.preparing.wait, 10)
        serving = model.encoder
        assert isinstance(serving, RecordingEncoder)
        serving.response = gone
        with pytest.raises(ModelNotReady, match="gone"):
            await Requests(model).encode_image(pixels_of(1))
        await switched(model, port)
        assert model.health.phase is Phase.LOST


def gone(_: RawEmbeddings) -> RawEmbeddings:
    raise EncoderLost("the GPU is gone.")


async def test_a_lost_device_makes_the_service_neither_ready_nor_alive() -> None:
    encoder = RecordingEncoder()
    async with supervised(supervisor(Loader(encoder))) as model:
        encoder.response = gone
        requests = Requests(model)
        outcomes = await asyncio.gather(
            *(requests.encode_image(pixels_of(n)) for n in range(6)), return_exceptions=True
        )
        assert all(isinstance(outcome, ModelNotReady) for outcome in outcomes)
        assert model.health.phase is Phase.LOST
        assert not model.health.ready
        assert not model.health.alive
        assert model.reason == "the GPU is gone."


step = st.tuples(
    st.sampled_from(["image", "texts", "several", "pause", "prepared"]),
    st.integers(min_value=1, max_value=900),
)


def made_by_the_faster(number: int, embedding: Embedding) -> bool:
    """Which encoder a response is of; fails if it is of neither."""
    by_faster = bool(embedding.vector[2] > 0.01)
    whole = vector_of(number) + (FASTER if by_faster else 0)
    np.testing.assert_allclose(embedding.vector, whole / np.linalg.norm(whole), atol=1e-6)
    return by_faster


@settings(max_examples=60, deadline=None)
@given(st.lists(step, min_size=1, max_size=50), st.integers(min_value=1, max_value=5))
def test_under_load_no_request_is_lost_and_none_is_answered_by_a_mix(
    steps: list[tuple[str, int]], max_batch: int
) -> None:
    async def scenario() -> None:
        slow, fast = RecordingEncoder(), FasterEncoder()
        port = Upgrade(fast)
        port.gate.clear()
        model = supervisor(Loader(slow), upgrade=port)
        batcher = Requests(model, max_batch=max_batch).batcher
        async with supervised(model):
            await load(model, batcher, slow, fast, port)

    async def load(
        model: Supervisor,
        batcher: Batcher,
        slow: RecordingEncoder,
        fast: RecordingEncoder,
        port: Upgrade,
    ) -> None:
        async def images(number: int, count: int) -> list[Embedding]:
            """A request of several images, one after the other."""
            async with model.lease() as lease:
                made = []
                for place in range(count):
                    made.append(await batcher.encode_image(pixels_of(number + place), lease))
                    await asyncio.sleep(0.0005 * (number % 4))
                return made

        async def texts(number: int) -> list[Embedding]:
            async with model.lease() as lease:
                return await batcher.encode_texts([str(number)], lease)

        asked: list[tuple[str, int, bool, asyncio.Task[list[Embedding]]]] = []
        for kind, number in steps:
            after = model.encoder is fast
            if kind == "texts":
                asked.append((kind, number, after, asyncio.create_task(texts(number))))
            elif kind in {"image", "several"}:
                count = 1 if kind == "image" else 4
                asked.append((kind, number, after, asyncio.create_task(images(number, count))))
            elif kind == "prepared":
                port.gate.set()
            else:
                await asyncio.sleep(0.0005 * (number % 3))
        port.gate.set()
        responses = await asyncio.gather(*(task for *_, task in asked))
        await until(lambda: model.encoder is fast)
        for (kind, number, after, _), made in zip(asked, responses, strict=True):
            if kind == "texts":
                np.testing.assert_allclose(made[0].vector, vector_of(number), atol=1e-6)
                continue
            by_faster = {
                made_by_the_faster(number + place, embedding)
                for place, embedding in enumerate(made)
            }
            assert len(by_faster) == 1, "one request was answered by two encoders"
            assert by_faster == {True} or not after, "answered by the one that was replaced"
        count = sum(
            len(made) for (kind, *_), made in zip(asked, responses, strict=True) if kind != "texts"
        )
        encoded = [n for batch in slow.image_batches + fast.image_batches for n in batch]
        assert len(encoded) == 1 + count + 2 * len(SAMPLES)  # 1 of the first verification

    asyncio.run(scenario())
