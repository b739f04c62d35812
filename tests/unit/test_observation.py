"""What the application tells its observer, and in whose name."""

import asyncio

import pytest

from adapters.observability.observers import Observers
from adapters.observability.stage_times import StageTimes
from application.inference.inference import ImagePreparation
from application.ports import CLIPS_INPUT, ObserverPort, Stage
from domain.errors import InvalidImage
from tests.support.encoders import RecordingEncoder, pixels_of, settle, warm
from tests.support.numbers import NumberedImages
from tests.support.observers import REQUEST, RecordingObserver
from tests.support.requests import Requests, TextRequests


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def observed(encoder: RecordingEncoder, observer: RecordingObserver) -> Requests:
    return Requests(warm(encoder), observer=Observers(observer, ObserverPort()))


async def test_each_request_learns_of_its_own_stages(
    observed: Requests, encoder: RecordingEncoder, observer: RecordingObserver
) -> None:
    async def ask(name: str, number: int) -> None:
        REQUEST.set(name)
        await observed.encode_image(pixels_of(number))

    encoder.gate.clear()
    asked = [asyncio.create_task(ask("first", 1))]
    await asyncio.to_thread(encoder.busy.wait, 5)
    asked += [asyncio.create_task(ask(name, n)) for n, name in enumerate(("second", "third"))]
    await settle()
    assert observed.batcher.depth == 2
    encoder.gate.set()
    await asyncio.gather(*asked)
    await settle()
    assert observed.batcher.depth == 0
    assert observer.stages == [
        (name, stage)
        for name in ("first", "second", "third")
        for stage in (Stage.IMAGE_QUEUE, Stage.IMAGE_ENCODE)
    ]
    # The one that shared no batch waited for nobody; the others waited while it was encoded.
    queued, encoded = observer.times[2], observer.times[1]
    assert queued[0] <= encoded[1] <= queued[1]
    # A batch is nobody's: not even of the request that woke the worker up.
    assert observer.batches == [("nobody", 1), ("nobody", 2)]
    observed.close()


async def test_who_left_does_not_count_as_waiting(
    observed: Requests, encoder: RecordingEncoder
) -> None:
    encoder.gate.clear()
    first = asyncio.create_task(observed.encode_image(pixels_of(1)))
    await asyncio.to_thread(encoder.busy.wait, 5)
    leaving = asyncio.create_task(observed.encode_image(pixels_of(2)))
    await settle()
    leaving.cancel()
    await settle()
    assert observed.batcher.depth == 0
    encoder.gate.set()
    await first
    observed.close()


async def test_texts_that_are_known_or_coming_are_hits(
    observed: Requests, encoder: RecordingEncoder, observer: RecordingObserver
) -> None:
    texts = TextRequests(observed, observer=observer)
    await texts.encode(["1", "2"])
    await texts.encode(["2", "3", "4"])
    assert observer.lookups == [(0, 2), (1, 2)]
    assert texts.cache.kept == 4
    assert [stage for _, stage in observer.stages] == [Stage.TEXT_QUEUE, Stage.TEXT_ENCODE] * 2
    observed.close()


async def test_waiting_for_a_decoder_is_told_from_decoding(observer: RecordingObserver) -> None:
    images = ImagePreparation(
        NumberedImages({b"": InvalidImage("image is empty.")}), at_once=1, observer=observer
    )
    await images.prepare(b"12", CLIPS_INPUT)
    assert [stage for _, stage in observer.stages] == [Stage.DECODE_QUEUE, Stage.DECODE]
    (asked, started), (started_again, ended) = observer.times
    assert asked <= started == started_again <= ended
    with pytest.raises(InvalidImage):
        await images.prepare(b"", CLIPS_INPUT)
    await images.close()


async def test_stages_add_up_for_the_request_that_passed_them() -> None:
    times = StageTimes()

    async def request(seconds: float) -> dict[Stage, float]:
        with times.of_request() as spent:
            times.stage_passed(Stage.DECODE, 1.0, 1.0 + seconds)
            # As the use cases do it: part of the work is done by tasks of their own.
            child = asyncio.create_task(asyncio.sleep(0))
            await child
            await asyncio.gather(*(passed(Stage.IMAGE_ENCODE, seconds) for _ in range(2)))
        return spent

    async def passed(stage: Stage, seconds: float) -> None:
        times.stage_passed(stage, 0.0, seconds)

    one, two = await asyncio.gather(request(1.0), request(2.0))
    assert one == {Stage.DECODE: 1.0, Stage.IMAGE_ENCODE: 2.0}
    assert two == {Stage.DECODE: 2.0, Stage.IMAGE_ENCODE: 4.0}
    times.stage_passed(Stage.DECODE, 0.0, 1.0)  # outside of any request: nobody's
