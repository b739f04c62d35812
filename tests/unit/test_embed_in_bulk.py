"""Bulk runs: every file its row, in order, few under way at once, nothing lost at the end."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

import numpy as np
import pytest

from application.bulk_ports import (
    EmbeddedFile,
    EmbeddingsFilePort,
    ImageFile,
    Progress,
)
from application.inference.inference import ImagePreparation
from application.ports import EncoderDescription
from application.use_cases.bulk import EmbedInBulk
from domain.errors import InvalidImage, ModelNotReady
from tests.support.encoders import Loader, RecordingEncoder, supervisor, vector_of
from tests.support.image_files import MemoryFiles
from tests.support.numbers import NumberedImages
from tests.support.requests import Requests

DAMAGED = {b"13": InvalidImage("image is truncated.", code="damaged_image")}


def numbered_files(count: int, *, unreadable: Sequence[int] = ()) -> MemoryFiles:
    """Files that are named by their number and hold it."""
    files = {str(number): str(number).encode() for number in range(count)}
    return MemoryFiles(files, unreadable=[str(number) for number in unreadable])


class MemoryOutput(EmbeddingsFilePort):
    """Keeps what is recorded; each row once."""

    def __init__(self, done: Sequence[str] = ()) -> None:
        self.rows: list[EmbeddedFile] = []
        self.finished = False
        self.closed = False
        self._done = done
        self._remaining: list[ImageFile] = []

    def resume(self, model: EncoderDescription, files: Iterable[ImageFile]) -> Progress:
        listed = list(files)
        self._remaining = [file for file in listed if file.path not in self._done]
        return Progress(total=len(listed), done=len(self._done), failed=0)

    def remaining(self) -> Iterator[ImageFile]:
        return iter(self._remaining)

    def record(self, rows: Sequence[EmbeddedFile]) -> None:
        self.rows.extend(rows)

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
async def bulk(requests: Requests) -> AsyncIterator[EmbedInBulk]:
    images = ImagePreparation(NumberedImages(DAMAGED), at_once=2)
    yield EmbedInBulk(model=requests.model, images=images, batcher=requests.batcher, max_batch=4)
    await images.close()


async def test_every_file_gets_its_own_row_in_order(bulk: EmbedInBulk) -> None:
    output = MemoryOutput()
    seen: list[Progress] = []
    finished = await bulk(numbered_files(40, unreadable=[7]), output, on_progress=seen.append)
    assert [row.file.path for row in output.rows] == [str(number) for number in range(40)]
    errors = {row.file.path: row.error for row in output.rows if row.embedding is None}
    assert errors == {
        "7": "unreadable_file: Permission denied",
        "13": "damaged_image: image is truncated.",
    }
    for row in output.rows:
        if row.embedding is not None:
            np.testing.assert_allclose(row.embedding.vector, vector_of(float(row.file.path)))
    assert finished == seen[-1] == Progress(total=40, done=40, failed=2)
    assert [progress.done for progress in seen] == list(range(41))
    assert output.finished
    assert output.closed


async def test_images_share_batches(
    bulk: EmbedInBulk, encoder: RecordingEncoder, requests: Requests
) -> None:
    encoder.gate.clear()
    run = asyncio.create_task(bulk(numbered_files(40), MemoryOutput(), on_progress=lambda _: None))
    async with asyncio.timeout(30):
        while requests.batcher.depth < 8:  # noqa: ASYNC110 # prepared while the encoder is busy
            await asyncio.sleep(0.001)
    encoder.gate.set()
    await run
    sizes = [len(batch) for batch in encoder.image_batches]
    assert sizes[1:3] == [4, 4]
    assert max(sizes) == 4


async def test_what_is_done_is_not_done_again(bulk: EmbedInBulk, encoder: RecordingEncoder) -> None:
    output = MemoryOutput(done=["0", "2"])
    finished = await bulk(numbered_files(4), output, on_progress=lambda _: None)
    assert [row.file.path for row in output.rows] == ["1", "3"]
    assert finished.done == 4
    assert sorted(number for batch in encoder.image_batches for number in batch) == [1, 3]


async def test_no_more_is_under_way_than_four_batches(
    bulk: EmbedInBulk, encoder: RecordingEncoder
) -> None:
    encoder.gate.clear()
    files = numbered_files(1000)
    run = asyncio.create_task(bulk(files, MemoryOutput(), on_progress=lambda _: None))
    await asyncio.to_thread(encoder.busy.wait, 5)
    await asyncio.sleep(0.1)
    assert files.read_so_far == 4 * 4
    encoder.gate.set()
    await run
    assert files.read_so_far == 1000


async def test_a_stopped_run_records_what_it_has_and_writes_nothing(bulk: EmbedInBulk) -> None:
    output = MemoryOutput()
    done = 0

    def stop_at_fifty(progress: Progress) -> None:
        nonlocal done
        done = progress.done
        if done == 50:
            run.cancel()

    run = asyncio.create_task(bulk(numbered_files(1000), output, on_progress=stop_at_fifty))
    with pytest.raises(asyncio.CancelledError):
        await run
    assert len(output.rows) == done < 1000
    assert output.closed
    assert not output.finished


async def test_a_broken_encoder_stops_the_run_and_loses_no_row(
    bulk: EmbedInBulk, encoder: RecordingEncoder
) -> None:
    encoder.poison = 20.0
    output = MemoryOutput()
    with pytest.raises(RuntimeError, match="poisoned"):
        await bulk(numbered_files(40), output, on_progress=lambda _: None)
    assert [row.file.path for row in output.rows] == [str(number) for number in range(20)]
    assert not output.finished


async def test_nan_is_an_error_of_its_row(bulk: EmbedInBulk, encoder: RecordingEncoder) -> None:
    encoder.response = lambda rows: np.full_like(rows, np.nan)
    output = MemoryOutput()
    await bulk(numbered_files(1), output, on_progress=lambda _: None)
    assert output.rows[0].embedding is None
    assert str(output.rows[0].error).startswith("encoder_fault: ")


async def test_without_a_model_nothing_is_begun(requests: Requests) -> None:
    images = ImagePreparation(NumberedImages(DAMAGED), at_once=1)
    model = supervisor(Loader(RecordingEncoder()))
    bulk = EmbedInBulk(model=model, images=images, batcher=requests.batcher, max_batch=4)
    output = MemoryOutput()
    with pytest.raises(ModelNotReady):
        await bulk(numbered_files(1), output, on_progress=lambda _: None)
    await images.close()
    assert output.rows == []
