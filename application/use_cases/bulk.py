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
from application.inference.batcher import Batcher
from application.inference.inference import ImagePreparation
from application.model.states import Lease
from application.model.supervisor import Supervisor
from domain.errors import EncoderFault, InvalidInput

_RECORD_ROWS: Final = 256
_RECORD_SECONDS: Final = 1.0
"""Rows are recorded after this many or this long: a kill loses no more than that."""

_AHEAD_BATCHES: Final = 4
"""Batches of files in progress: one in the encoder, one ready for it, two being decoded."""


class EmbedInBulk:
    """Embeds files as ``POST /embed`` embeds images: same preparation, same queue, same batches.

    A fixed number of files is in progress at any time. While the encoder has a batch, the files
    after it are read and decoded; memory does not grow with the number of files.
    """

    def __init__(
        self,
        *,
        model: Supervisor,
        images: ImagePreparation,
        batcher: Batcher,
        max_batch: int,
    ) -> None:
        """Embed with one model.

        Args:
            model: must be loaded when a run begins.
            images: prepares the files.
            batcher: encodes them.
            max_batch: images that it encodes at once.
        """
        self._model = model
        self._images = images
        self._batcher = batcher
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
        Called again with the same output, it continues from there.

        Args:
            files: what to embed.
            output: where to write.
            on_progress: called at the beginning and after each file.

        Raises:
            ModelNotReady: no model is loaded.
            BulkFailure: as the ports say.
        """
        async with self._model.lease() as lease:
            try:
                progress = output.resume(lease.encoder.description, files.listing())
                on_progress(progress)
                return await self._run(files, output, lease, progress, on_progress)
            finally:
                output.close()

    async def _run(
        self,
        files: ImageFilesPort,
        output: EmbeddingsFilePort,
        lease: Lease,
        progress: Progress,
        on_progress: Callable[[Progress], None],
    ) -> Progress:
        fresh: list[EmbeddedFile] = []
        recorded_at = time.monotonic()
        try:
            async with aclosing(self._embedded(files, output.remaining(), lease)) as rows:
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
        return progress

    async def _embedded(
        self, files: ImageFilesPort, remaining: Iterator[ImageFile], lease: Lease
    ) -> AsyncGenerator[EmbeddedFile, None]:
        """A row for each file, in order, with as many in progress as allowed."""
        coming: deque[asyncio.Task[EmbeddedFile]] = deque()
        try:
            for file in remaining:
                coming.append(asyncio.create_task(self._embed(files, file, lease)))
                if len(coming) >= self._ahead:
                    yield await coming.popleft()
            while coming:
                yield await coming.popleft()
        finally:
            for task in coming:
                task.cancel()

    async def _embed(self, files: ImageFilesPort, file: ImageFile, lease: Lease) -> EmbeddedFile:
        try:
            data = await asyncio.to_thread(files.read, file)
            pixels = await self._images.prepare(data, lease.image_input)
            embedding = await self._batcher.encode_image(pixels, lease)
        except (InvalidInput, EncoderFault, OSError) as failure:
            return EmbeddedFile(file, embedding=None, error=error_of(failure))
        return EmbeddedFile(file, embedding, error=None)


def _counted(progress: Progress, row: EmbeddedFile) -> Progress:
    return replace(
        progress, done=progress.done + 1, failed=progress.failed + (row.error is not None)
    )
