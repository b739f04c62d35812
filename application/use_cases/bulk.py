"""Use case: the embeddings of any number of image files, in one file."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from application.bulk_ports import (
    EmbeddedFile,
    EmbeddingsFilePort,
    ImageFile,
    ImageFilesPort,
    Progress,
    error_of,
)
from application.inference.batcher import EncodingQueue
from application.inference.image_preparation import ImagePreparation
from application.model.model_lifecycle import ModelLifecycle
from domain.errors import EncoderFault, InvalidInput

_RECORD_ROWS: Final = 256
_RECORD_SECONDS: Final = 1.0
"""Rows are recorded after so many, or so long: the most that a kill can cost."""

_AHEAD_BATCHES: Final = 4
"""Batches' worth of files under way: one with the encoder, one ready for it, two being decoded."""


class EmbedInBulk:
    """Embeds files as ``POST /embed`` embeds images: same preparation, same queue, same batches.

    A fixed number of files is under way at any time. While the encoder has a batch, the files
    after it are read and decoded; memory does not grow with the number of files.
    """

    def __init__(
        self,
        *,
        model: ModelLifecycle,
        images: ImagePreparation,
        queue: EncodingQueue,
        max_batch: int,
    ) -> None:
        """Make one.

        Args:
            model: must be ready when a run begins.
            images: prepares the files.
            queue: encodes them.
            max_batch: images that it encodes at once.
        """
        self._model = model
        self._images = images
        self._queue = queue
        self._ahead = _AHEAD_BATCHES * max_batch

    async def __call__(
        self,
        files: ImageFilesPort,
        output: EmbeddingsFilePort,
        *,
        on_progress: Callable[[Progress], None],
    ) -> Progress:
        """Give every file its row, and write the output once all have one.

        Cancelled, the run records what it has; killed, it loses at most the last second's work.
        Called again with the same output, it goes on from there.

        Args:
            files: what to embed.
            output: where to.
            on_progress: told about the beginning and about each file.

        Raises:
            ModelNotReady: no model is loaded.
            BulkFailure: as the ports say.
        """
        model = self._model.encoder().description
        try:
            progress = output.resume(model, files.listing())
            on_progress(progress)
            fresh: list[EmbeddedFile] = []
            recorded_at = time.monotonic()
            try:
                async with aclosing(self._embedded(files, output.remaining())) as rows:
                    async for row in rows:
                        fresh.append(row)
                        progress = _counted(progress, row)
                        on_progress(progress)
                        now = time.monotonic()
                        if len(fresh) >= _RECORD_ROWS or now - recorded_at >= _RECORD_SECONDS:
                            output.record(fresh)
                            fresh.clear()
                            recorded_at = now
            finally:
                output.record(fresh)
            output.finish()
        finally:
            output.close()
        return progress

    async def _embedded(
        self, files: ImageFilesPort, remaining: Iterator[ImageFile]
    ) -> AsyncGenerator[EmbeddedFile, None]:
        """A row for each file, in order, with as many under way as allowed."""
        coming: deque[asyncio.Task[EmbeddedFile]] = deque()
        try:
            for file in remaining:
                coming.append(asyncio.create_task(self._embed(files, file)))
                if len(coming) >= self._ahead:
                    yield await coming.popleft()
            while coming:
                yield await coming.popleft()
        finally:
            for task in coming:
                task.cancel()

    async def _embed(self, files: ImageFilesPort, file: ImageFile) -> EmbeddedFile:
        try:
            data = await asyncio.to_thread(files.read, file)
            embedding = await self._queue.encode_image(await self._images.prepare(data))
        except (InvalidInput, EncoderFault, OSError) as failure:
            return EmbeddedFile(file, embedding=None, error=error_of(failure))
        return EmbeddedFile(file, embedding, error=None)


def _counted(progress: Progress, row: EmbeddedFile) -> Progress:
    return replace(
        progress, done=progress.done + 1, failed=progress.failed + (row.error is not None)
    )
