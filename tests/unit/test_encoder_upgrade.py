"""Switching over under load: nothing lost, nothing mixed, and every failure told once."""

import asyncio
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.inference.batcher import EncodingQueue
from application.model.encoder_upgrade import EncoderUpgrade
from application.model.model_lifecycle import ModelLifecycle, ModelState
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
    Loader,
    RecordingEncoder,
    TidiedMemory,
    Upgrade,
    Warm,
    pixels_of,
    vector_of,
)

FASTER = np.array([0.0, 0.0, 0.05, 0.0], dtype=np.float32)
"""What the faster encoder adds to every image's embedding, so that its answers are known."""


class FasterEncoder(RecordingEncoder):
    """Agrees with the other to 0.999, and yet its answers can be told apart."""

    def __init__(self, difference: np.ndarray = FASTER) -> None:
        super().__init__()
        self._difference = difference

    @property
    def description(self) -> EncoderDescription:
        return replace(super().description, backend="faster")

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        return np.asarray(super().encode_images(batch) + self._difference)


def assembled(
    outcome: EncoderPort | Exception | None, max_batch: int = 4
) -> tuple[Warm, EncodingQueue, Upgrade, EncoderUpgrade]:
    model = Warm(RecordingEncoder())
    queue = EncodingQueue(model, max_batch=max_batch)
    port = Upgrade(outcome)
    return model, queue, port, upgrade_of(port, model, queue)


def upgrade_of(
    port: Upgrade, model: ModelLifecycle, queue: EncodingQueue, memory: TidiedMemory | None = None
) -> EncoderUpgrade:
    return EncoderUpgrade(port, model=model, queue=queue, memory=memory or TidiedMemory())


async def test_the_faster_encoder_takes_over() -> None:
    model, queue, port, upgrade = assembled(FasterEncoder())
    serving = model.encoder()
    await upgrade.run()
    assert model.encoder() is port.outcome
    assert upgrade.reason is None
    assert [row.vector[0] for row in port.expected] == pytest.approx(
        [vector_of(1)[0], vector_of(500)[0]]
    )
    assert isinstance(serving, RecordingEncoder)
    assert serving.image_batches == [[1.0], [500.0]]
    queue.close()


async def test_nobody_holds_the_encoder_that_was_replaced() -> None:
    model, queue, port, _ = assembled(FasterEncoder())
    memory = TidiedMemory()
    upgrade = upgrade_of(port, model, queue, memory)
    memory.replaced = weakref.ref(model.encoder())
    model.forget_the_loader()
    await queue.encode_image(pixels_of(3))
    await upgrade.run()
    assert upgrade.reason is None
    assert memory.tidied_up == 1
    queue.close()


async def test_meanwhile_the_reason_is_told_and_requests_are_answered() -> None:
    _, queue, port, upgrade = assembled(FasterEncoder())
    port.gate.clear()
    running = asyncio.create_task(upgrade.run())
    await asyncio.to_thread(port.preparing.wait, 10)
    assert "being prepared" in str(upgrade.reason)
    answer = await queue.encode_image(pixels_of(7))
    np.testing.assert_allclose(answer.vector, vector_of(7), atol=1e-6)
    port.gate.set()
    await running
    assert upgrade.reason is None
    answer = await queue.encode_image(pixels_of(7))
    assert answer.vector[2] > 0.04
    queue.close()


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
    model, queue, _, upgrade = assembled(outcome)
    serving = model.encoder()
    await upgrade.run()
    assert model.encoder() is serving
    assert reason in str(upgrade.reason)
    assert "secret" not in str(upgrade.reason)
    assert len([r for r in caplog.records if r.levelname in {"WARNING", "ERROR"}]) == 1
    await queue.encode_image(pixels_of(1))
    queue.close()


async def test_what_nobody_wants_is_not_looked_for() -> None:
    _, queue, port, upgrade = assembled(None)
    await upgrade.run()
    assert port.expected == ()
    assert upgrade.reason is None
    queue.close()


async def test_without_a_model_nothing_is_upgraded() -> None:
    model = ModelLifecycle(Loader(EncoderUnavailable("missing")))
    queue = EncodingQueue(model, max_batch=1)
    upgrade = upgrade_of(Upgrade(FasterEncoder()), model, queue)
    await model.bring_up()
    await upgrade.run()
    assert model.state is ModelState.FAILED
    queue.close()


async def test_a_model_that_went_away_meanwhile_is_not_brought_back() -> None:
    model, queue, port, upgrade = assembled(FasterEncoder())
    port.gate.clear()
    running = asyncio.create_task(upgrade.run())
    await asyncio.to_thread(port.preparing.wait, 10)
    model.lose(model.encoder(), "gone")
    port.gate.set()
    await running
    assert model.state is ModelState.FAILED
    queue.close()


async def test_a_lost_device_makes_the_service_unready() -> None:
    class Lost(RecordingEncoder):
        def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
            raise EncoderLost("the GPU failed: cudaErrorECCUncorrectable in cudaStreamSynchronize.")

    model = Warm(Lost())
    queue = EncodingQueue(model, max_batch=4)
    answers = await asyncio.gather(
        *(queue.encode_image(pixels_of(n)) for n in range(6)), return_exceptions=True
    )
    assert all(isinstance(answer, ModelNotReady) for answer in answers)
    assert model.state is ModelState.FAILED
    assert "cudaErrorECCUncorrectable" in str(model.failure)
    queue.close()


step = st.tuples(
    st.sampled_from(["image", "texts", "several", "pause", "prepared"]),
    st.integers(min_value=1, max_value=900),
)


def made_by_the_faster(number: int, embedding: Embedding) -> bool:
    """Which encoder an answer is of; fails if it is of neither."""
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
        model = Warm(slow)
        queue = EncodingQueue(model, max_batch=max_batch)
        port = Upgrade(fast)
        port.gate.clear()
        upgrade = upgrade_of(port, model, queue)
        running = asyncio.create_task(upgrade.run())

        async def images(number: int, count: int) -> list[Embedding]:
            """A request of several images, one after the other."""
            with model.one_encoder():
                made = []
                for place in range(count):
                    made.append(await queue.encode_image(pixels_of(number + place)))
                    await asyncio.sleep(0.0005 * (number % 4))
                return made

        async def texts(number: int) -> list[Embedding]:
            return await queue.encode_texts([str(number)])

        asked: list[tuple[str, int, bool, asyncio.Task[list[Embedding]]]] = []
        for kind, number in steps:
            after = model.encoder() is fast
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
        answers = await asyncio.gather(*(task for *_, task in asked))
        await running
        assert model.encoder() is fast
        for (kind, number, after, _), made in zip(asked, answers, strict=True):
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
            len(made) for (kind, *_), made in zip(asked, answers, strict=True) if kind != "texts"
        )
        encoded = [n for batch in slow.image_batches + fast.image_batches for n in batch]
        assert len(encoded) == count + 2 * len(SAMPLES) + 1
        queue.close()

    asyncio.run(scenario())
