"""Batching: order, identity, company, cancellation, and failures that stay where they belong."""

import asyncio

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import EncoderFault, ModelNotReady, ServiceUnavailable
from tests.support.encoders import (
    Loader,
    RecordingEncoder,
    pixels_of,
    settle,
    supervisor,
    vector_of,
    warm,
)
from tests.support.requests import Requests


async def occupy(requests: Requests, encoder: RecordingEncoder) -> "asyncio.Task[object]":
    """Keep the encoder busy with image 999 until its gate is opened."""
    encoder.gate.clear()
    task: asyncio.Task[object] = asyncio.create_task(requests.encode_image(pixels_of(999)))
    await asyncio.to_thread(encoder.busy.wait, 5)
    return task


async def test_a_lone_request_is_not_held_back(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    embedding = await requests.encode_image(pixels_of(7))
    assert embedding.vector == pytest.approx(vector_of(7))
    assert encoder.image_batches == [[7.0]]


async def test_what_waits_shares_batches_up_to_the_limit(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    first = await occupy(requests, encoder)
    waiting = [asyncio.create_task(requests.encode_image(pixels_of(n))) for n in range(6)]
    await settle()
    encoder.gate.set()
    responses = await asyncio.gather(*waiting)
    await first
    assert encoder.image_batches == [[999.0], [0.0, 1.0, 2.0, 3.0], [4.0, 5.0]]
    for number, response in enumerate(responses):
        assert response.vector == pytest.approx(vector_of(number))


async def test_texts_are_not_starved_by_images(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    first = await occupy(requests, encoder)
    order: list[str] = []

    async def image(number: int) -> None:
        await requests.encode_image(pixels_of(number))
        order.append(f"image {number}")

    async def texts() -> None:
        await requests.encode_texts(["1", "2"])
        order.append("texts")

    waiting = [asyncio.create_task(image(0)), asyncio.create_task(texts())]
    waiting += [asyncio.create_task(image(n)) for n in range(1, 8)]
    await settle()
    encoder.gate.set()
    await asyncio.gather(first, *waiting)
    assert order.index("texts") == 4


async def test_a_caller_that_left_costs_nothing(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    first = await occupy(requests, encoder)
    waiting = [asyncio.create_task(requests.encode_image(pixels_of(n))) for n in range(3)]
    await settle()
    waiting[1].cancel()
    await settle()
    encoder.gate.set()
    responses = await asyncio.gather(*waiting, return_exceptions=True)
    await first
    assert encoder.image_batches[1:] == [[0.0, 2.0]]
    assert isinstance(responses[1], asyncio.CancelledError)


async def test_levels_and_normalised_pixels_never_share_a_batch(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    first = await occupy(requests, encoder)
    kinds = (np.float32, np.uint8, np.uint8, np.float32)
    waiting = [
        asyncio.create_task(requests.encode_image(pixels_of(number).astype(kind)))
        for number, kind in enumerate(kinds)
    ]
    await settle()
    encoder.gate.set()
    responses = await asyncio.gather(*waiting)
    await first
    assert encoder.image_batches[1:] == [[0.0, 3.0], [1.0, 2.0]]
    for number, response in enumerate(responses):
        assert response.vector == pytest.approx(vector_of(number))


async def test_one_bad_image_fails_alone(requests: Requests, encoder: RecordingEncoder) -> None:
    first = await occupy(requests, encoder)
    encoder.poison = 1.0
    waiting = [asyncio.create_task(requests.encode_image(pixels_of(n))) for n in range(3)]
    await settle()
    encoder.gate.set()
    responses = await asyncio.gather(*waiting, return_exceptions=True)
    await first
    assert isinstance(responses[1], RuntimeError)
    for number in (0, 2):
        response = responses[number]
        assert not isinstance(response, BaseException)
        assert response.vector == pytest.approx(vector_of(number))


async def test_an_encoder_that_is_away_is_not_asked_for_each_image(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    first = await occupy(requests, encoder)
    away = ServiceUnavailable("no replica answered.", code="encoder_unreachable")

    def leave(_: object) -> np.ndarray:
        raise away

    encoder.response = leave
    waiting = [asyncio.create_task(requests.encode_image(pixels_of(n))) for n in range(3)]
    await settle()
    encoder.gate.set()
    responses = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert responses == [away] * 4
    assert encoder.image_batches == [[999.0], [0.0, 1.0, 2.0]]


async def test_nan_is_never_sent_on(requests: Requests, encoder: RecordingEncoder) -> None:
    encoder.response = lambda rows: np.full_like(rows, np.nan)
    with pytest.raises(EncoderFault):
        await requests.encode_image(pixels_of(1))
    with pytest.raises(EncoderFault):
        await requests.encode_texts(["1"])


async def test_too_few_answers_are_never_handed_out(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    encoder.response = lambda rows: rows[:-1]
    with pytest.raises(EncoderFault, match=r"shape \(1, 4\) instead of \(2, 4\)"):
        await requests.encode_texts(["1", "2"])


async def test_without_a_model_the_caller_is_told() -> None:
    requests = Requests(supervisor(Loader(RecordingEncoder())))
    with pytest.raises(ModelNotReady):
        await requests.encode_image(pixels_of(1))
    requests.close()


async def test_an_encoder_that_takes_several_calls_gets_them_at_once(
    encoder: RecordingEncoder,
) -> None:
    requests = Requests(warm(encoder, concurrent_calls=3), max_batch=2)
    encoder.gate.clear()
    waiting = [asyncio.create_task(requests.encode_image(pixels_of(n))) for n in range(9)]
    await asyncio.to_thread(encoder.several_busy, 3)
    assert sorted(encoder.image_batches) == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    encoder.gate.set()
    responses = await asyncio.gather(*waiting)
    for number, response in enumerate(responses):
        assert response.vector == pytest.approx(vector_of(number))
    requests.close()


step = st.tuples(
    st.sampled_from(["image", "texts", "cancel", "pause"]), st.integers(min_value=0, max_value=900)
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(step, min_size=1, max_size=60),
    st.integers(min_value=1, max_value=5),
    st.sampled_from([1, 3]),
)
def test_everyone_gets_their_own_answer_in_any_interleaving(
    steps: list[tuple[str, int]], max_batch: int, concurrent_calls: int
) -> None:
    async def scenario() -> None:
        encoder = RecordingEncoder()
        requests = Requests(warm(encoder, concurrent_calls=concurrent_calls), max_batch=max_batch)
        asked: list[tuple[list[int], asyncio.Task[object]]] = []

        async def ask_image(number: int) -> object:
            return [await requests.encode_image(pixels_of(number))]

        async def ask_texts(numbers: list[int]) -> object:
            return await requests.encode_texts([str(number) for number in numbers])

        for kind, number in steps:
            if kind == "image":
                asked.append(([number], asyncio.create_task(ask_image(number))))
            elif kind == "texts":
                numbers = [number, number + 1, number + 2]
                asked.append((numbers, asyncio.create_task(ask_texts(numbers))))
            elif kind == "cancel" and asked:
                asked[number % len(asked)][1].cancel()
            else:
                await asyncio.sleep(0.0005 * (number % 3))
        responses = await asyncio.gather(*(task for _, task in asked), return_exceptions=True)
        requests.close()
        for (numbers, task), response in zip(asked, responses, strict=True):
            if task.cancelled():
                continue
            assert isinstance(response, list), response
            for expected, embedding in zip(numbers, response, strict=True):
                np.testing.assert_allclose(embedding.vector, vector_of(expected), atol=1e-6)
        assert all(len(batch) <= max_batch for batch in encoder.image_batches)

    asyncio.run(scenario())
