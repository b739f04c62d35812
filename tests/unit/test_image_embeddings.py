"""Many images of one request: in full batches, in bounded memory, in their order."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from domain.embedding import Embedding
from domain.errors import EncoderFault, ImageTooLarge, InvalidImage
from tests.support.encoders import RecordingEncoder, pixels_of, settle, vector_of
from tests.support.numbers import NumberedImages
from tests.support.requests import ImageRequests, Requests


def files(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.fixture
def port() -> NumberedImages:
    return NumberedImages(
        {
            b"bad": InvalidImage("image is bad.", code="not_an_image"),
            b"big": ImageTooLarge("image is big."),
        }
    )


@pytest.fixture
async def images(requests: Requests, port: NumberedImages) -> AsyncIterator[ImageRequests]:
    images = ImageRequests(requests, port, at_once=2, group=4)
    yield images
    await images.close()


async def patiently(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came true")


async def test_full_batches_in_the_order_given(
    images: ImageRequests, encoder: RecordingEncoder
) -> None:
    outcomes = await images.encode_each(files(10))
    assert encoder.image_batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, Embedding)
        assert outcome.vector == pytest.approx(vector_of(number))


async def test_two_images_go_to_the_encoder_together(
    images: ImageRequests, encoder: RecordingEncoder
) -> None:
    await images.encode_all({"image_a": b"1", "image_b": b"2"})
    assert encoder.image_batches == [[1, 2]]


async def test_at_most_two_groups_are_under_way(
    images: ImageRequests, encoder: RecordingEncoder, port: NumberedImages
) -> None:
    encoder.gate.clear()
    asked = asyncio.create_task(images.encode_each(files(40)))
    await patiently(lambda: len(port.prepared) >= 8)
    await asyncio.sleep(0.05)  # time in which more would be prepared
    assert len(port.prepared) == 8
    encoder.gate.set()
    assert len(await asked) == 40


async def test_another_image_waits_for_two_batches_at_most(
    images: ImageRequests, encoder: RecordingEncoder, requests: Requests, port: NumberedImages
) -> None:
    encoder.gate.clear()
    many = asyncio.create_task(images.encode_each(files(40)))
    await patiently(lambda: len(port.prepared) >= 8)
    await settle()
    lone = asyncio.create_task(requests.encode_image(pixels_of(99)))
    await settle()
    encoder.gate.set()
    await asyncio.gather(many, lone)
    assert next(place for place, batch in enumerate(encoder.image_batches) if 99 in batch) <= 2


async def test_each_has_its_own_failure(images: ImageRequests, encoder: RecordingEncoder) -> None:
    encoder.response = lambda rows: rows * 0 if len(rows) == 1 else rows
    outcomes = await images.encode_each([b"1", b"bad", b"2", b"big", b"7"])
    assert [type(outcome) for outcome in outcomes] == [
        Embedding,
        InvalidImage,
        Embedding,
        ImageTooLarge,
        EncoderFault,
    ]


async def test_nothing_but_failures_never_reaches_the_encoder(
    images: ImageRequests, encoder: RecordingEncoder
) -> None:
    outcomes = await images.encode_each([b"bad", b"big"])
    assert [type(outcome) for outcome in outcomes] == [InvalidImage, ImageTooLarge]
    assert encoder.image_batches == []


async def test_all_or_none_names_the_first_that_is_bad_and_stops(
    images: ImageRequests, encoder: RecordingEncoder
) -> None:
    sent = dict(enumerate(files(40)))
    named = {f"images[{place}]": data for place, data in sent.items()}
    named["images[2]"], named["images[1]"] = b"big", b"bad"
    with pytest.raises(InvalidImage, match=r"images\[1\]: image is bad") as caught:
        await images.encode_all(named)
    assert caught.value.code == "not_an_image"
    await settle()
    assert len(encoder.image_batches) <= 2


async def test_a_caller_that_leaves_is_not_encoded_any_further(
    images: ImageRequests, encoder: RecordingEncoder, port: NumberedImages
) -> None:
    encoder.gate.clear()
    asked = asyncio.create_task(images.encode_each(files(40)))
    await patiently(lambda: len(port.prepared) >= 8)
    await settle()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    encoder.gate.set()
    await asyncio.sleep(0.05)
    assert encoder.image_batches == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("count", "groups"), [(0, 0), (1, 1), (4, 1), (5, 2), (64, 16)])
async def test_how_many_groups_images_make(images: ImageRequests, count: int, groups: int) -> None:
    assert images.images.groups_of(count) == groups
