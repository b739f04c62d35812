"""Decoding a few images at the same time: turns, cancellation, closing."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from application.inference.inference import ImagePreparation
from application.ports import CLIPS_INPUT, ImageInput, Pixels
from domain.errors import InvalidImage
from tests.support.encoders import settle
from tests.support.numbers import NumberedImages


class Gated(NumberedImages):
    """Takes files that hold a number; each waits until the gate opens for one. Refuses 0."""

    def __init__(self) -> None:
        super().__init__({b"0": InvalidImage("image is nothing.")})
        self.begun: list[int] = []
        self.gate = asyncio.Semaphore(0)
        self.started = self.closed = False

    async def start(self) -> None:
        self.started = True

    async def prepare(self, data: bytes, image_input: ImageInput = CLIPS_INPUT) -> Pixels:
        self.begun.append(int(data))
        await self.gate.acquire()
        return await super().prepare(data, image_input)

    async def close(self) -> None:
        self.closed = True

    def open_for(self, count: int) -> None:
        for _ in range(count):
            self.gate.release()


@pytest.fixture
def port() -> Gated:
    return Gated()


@pytest.fixture
async def images(port: Gated) -> AsyncIterator[ImagePreparation]:
    images = ImagePreparation(port, at_once=1)
    images.start()
    yield images
    assert port.started
    await images.close()
    assert port.closed


def asked(images: ImagePreparation, number: int, client: str = "") -> asyncio.Task[Pixels]:
    return asyncio.create_task(images.prepare(b"%d" % number, CLIPS_INPUT, client=client))


async def test_clients_take_turns(images: ImagePreparation, port: Gated) -> None:
    tasks = [asked(images, number, "much") for number in (1, 2, 3, 4)]
    await settle()
    tasks.append(asked(images, 9, "little"))
    await settle()
    port.open_for(5)
    assert [int(pixels.flat[0]) for pixels in await asyncio.gather(*tasks)] == [1, 2, 3, 4, 9]
    assert port.begun == [1, 2, 9, 3, 4]


async def test_who_leaves_while_waiting_costs_nothing(
    images: ImagePreparation, port: Gated
) -> None:
    first, second, third = (asked(images, number) for number in (1, 2, 3))
    await settle()
    second.cancel()
    await settle()
    port.open_for(2)
    await asyncio.gather(first, third)
    assert port.begun == [1, 3]


async def test_a_place_is_taken_until_the_image_is_prepared_even_if_its_caller_left(
    images: ImagePreparation, port: Gated
) -> None:
    first, second = asked(images, 0), asked(images, 2)
    await settle()
    first.cancel()
    await settle()
    assert port.begun == [0]
    port.open_for(2)
    await second
    assert port.begun == [0, 2]


async def test_who_leaves_at_the_moment_of_his_turn_hands_it_on(
    images: ImagePreparation, port: Gated
) -> None:
    first, second, third = (asked(images, number) for number in (1, 2, 3))
    await settle()
    port.open_for(1)
    await first
    second.cancel()
    port.open_for(2)
    await third
    assert 3 in port.begun


async def test_a_failure_frees_the_place(images: ImagePreparation, port: Gated) -> None:
    port.open_for(100)
    for _ in range(10):
        with pytest.raises(InvalidImage):
            await images.prepare(b"0", CLIPS_INPUT)
    assert (await images.prepare(b"7", CLIPS_INPUT)).flat[0] == 7


async def test_two_hundred_who_mostly_leave(images: ImagePreparation, port: Gated) -> None:
    tasks = [asked(images, number + 1, str(number % 3)) for number in range(200)]
    await settle()
    for number, task in enumerate(tasks):
        if number % 5:
            task.cancel()
    port.open_for(1000)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for number, outcome in enumerate(outcomes):
        if number % 5 == 0:
            assert not isinstance(outcome, BaseException)
            assert outcome.flat[0] == number + 1
    assert (await images.prepare(b"7", CLIPS_INPUT)).flat[0] == 7
