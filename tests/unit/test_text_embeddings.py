"""The text cache: one encoding per text, regardless of who asks and who leaves."""

import asyncio

import pytest

from tests.support.encoders import RecordingEncoder, settle, vector_of
from tests.support.requests import Requests, TextRequests


async def test_what_is_known_is_not_encoded_again(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    texts = TextRequests(requests)
    await texts.encode(["1", "2"])
    responses = await texts.encode(["3", "2", "1"])
    assert encoder.text_batches == [["1", "2"], ["3"]]
    for number, response in zip((3, 2, 1), responses, strict=True):
        assert response.vector == pytest.approx(vector_of(number))


async def test_a_text_that_is_asked_twice_in_one_request(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    responses = await TextRequests(requests).encode(["1", "1"])
    assert encoder.text_batches == [["1"]]
    assert responses[0] is responses[1]


async def test_concurrent_misses_share_one_encoding(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    texts = TextRequests(requests)
    encoder.gate.clear()
    asked = [asyncio.create_task(texts.encode(["1", "2"])) for _ in range(5)]
    asked.append(asyncio.create_task(texts.encode(["2", "3"])))
    await settle()
    encoder.gate.set()
    responses = await asyncio.gather(*asked)
    assert sorted(text for batch in encoder.text_batches for text in batch) == ["1", "2", "3"]
    assert responses[5][1].vector == pytest.approx(vector_of(3))


async def test_a_caller_that_leaves_takes_nothing_from_the_others(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    texts = TextRequests(requests)
    encoder.gate.clear()
    leaving = asyncio.create_task(texts.encode(["1"]))
    await settle()
    staying = asyncio.create_task(texts.encode(["1"]))
    await settle()
    leaving.cancel()
    await settle()
    encoder.gate.set()
    (response,) = await staying
    assert response.vector == pytest.approx(vector_of(1))
    assert encoder.text_batches == [["1"]]


async def test_a_failure_reaches_all_who_wait_and_is_not_kept(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    texts = TextRequests(requests)
    encoder.response = lambda rows: rows[:0]
    results = await asyncio.gather(texts.encode(["1"]), texts.encode(["1"]), return_exceptions=True)
    assert all(isinstance(result, Exception) for result in results)
    encoder.response = lambda rows: rows
    (response,) = await texts.encode(["1"])
    assert response.vector == pytest.approx(vector_of(1))


async def test_the_longest_unasked_is_forgotten(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    texts = TextRequests(requests, capacity=2)
    await texts.encode(["1"])
    await texts.encode(["2"])
    await texts.encode(["1"])
    await texts.encode(["3"])
    await texts.encode(["1"])
    await texts.encode(["2"])
    assert encoder.text_batches == [["1"], ["2"], ["3"], ["2"]]


async def test_no_capacity_keeps_nothing_and_still_answers(
    requests: Requests, encoder: RecordingEncoder
) -> None:
    texts = TextRequests(requests, capacity=0)
    for _ in range(2):
        responses = await texts.encode(["1", "2", "3"])
        assert responses[2].vector == pytest.approx(vector_of(3))
    assert encoder.text_batches == [["1", "2", "3"]] * 2
