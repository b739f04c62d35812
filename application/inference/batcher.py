"""Turns concurrent requests into batches for the encoder."""

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np

from application.inference.fair_queue import FairQueue
from application.model.states import Lease
from application.model.supervisor import Supervisor
from application.model.verification import check_shape
from application.ports import (
    UNOBSERVED,
    EncoderPort,
    ObserverPort,
    PixelBatch,
    Pixels,
    RawEmbeddings,
    Stage,
)
from domain.embedding import Embedding
from domain.errors import ServiceUnavailable

_T = TypeVar("_T")

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True, kw_only=True)
class _Entry:
    """Something that waits for the encoder, and its times by `time.perf_counter`."""

    appended_s: float = field(default_factory=time.perf_counter)
    started_s: float = 0.0
    ended_s: float = 0.0


@dataclass(eq=False, slots=True)
class ImageEntry(_Entry):
    """One image waiting for its embedding."""

    pixels: Pixels
    lease: Lease
    result: asyncio.Future[Embedding]


@dataclass(eq=False, slots=True)
class TextsEntry(_Entry):
    """The texts of one request waiting for their embeddings."""

    texts: Sequence[str]
    lease: Lease
    result: asyncio.Future[list[Embedding]]


Entry: TypeAlias = ImageEntry | TextsEntry


class WaitingEntries:
    """Decides which entries are encoded next: clients take turns, each with its oldest first.

    An entry whose caller has gone is dropped when a batch is formed.
    """

    def __init__(self) -> None:
        self._entries: FairQueue[Entry] = FairQueue(_is_gone)

    def __len__(self) -> int:
        """Number of entries whose caller still waits."""
        return sum(not _is_gone(entry) for entry in self._entries)

    def append(self, entry: Entry) -> None:
        """Put an entry behind all others of its client."""
        self._entries.append(entry, entry.lease.client)

    def next_batch(self, max_images: int) -> TextsEntry | list[ImageEntry] | None:
        """The texts of one request, or up to ``max_images`` images for one encoder; None if empty.

        The other images of a batch may be anywhere in the queue. All are levels or all are
        normalised.
        """
        first = self._entries.pop()
        if first is None or isinstance(first, TextsEntry):
            return first
        encoder, kind = first.lease.encoder, first.pixels.dtype

        def shares_the_batch(entry: Entry) -> bool:
            return (
                isinstance(entry, ImageEntry)
                and entry.lease.encoder is encoder
                and entry.pixels.dtype == kind
            )

        batch = [first]
        while len(batch) < max_images and (more := self._entries.pop(shares_the_batch)) is not None:
            assert isinstance(more, ImageEntry)
            batch.append(more)
        return batch


def _is_gone(entry: Entry) -> bool:
    return entry.result.done()


class Batcher:
    """Feeds the encoder, so that the event loop never blocks and batches are as full as they can.

    While the encoder is busy, requests pile up; when it is free it takes what is waiting: up to
    ``max_batch`` images as one batch, or the texts of one request. An idle encoder gets a single
    request at once: nothing is held back to fill a batch. Each entry is encoded by the encoder of
    its lease, so that a batch has only one encoder.

    How much may wait is bounded by `Admission`, in front of the use cases.
    """

    def __init__(
        self, model: Supervisor, *, max_batch: int, observer: ObserverPort = UNOBSERVED
    ) -> None:
        """Batch for one supervisor.

        Args:
            model: calls the encoder, and is notified of its faults.
            max_batch: images per call.
            observer: is notified of batches, and of each entry's wait and encoding.
        """
        self._model = model
        self._observer = observer
        self._max_batch = max_batch
        self._waiting = WaitingEntries()
        self._workers: list[asyncio.Task[None]] = []

    @property
    def depth(self) -> int:
        """Number of waiting images and requests' texts whose caller is still there."""
        return len(self._waiting)

    async def encode_image(self, pixels: Pixels, lease: Lease) -> Embedding:
        """Embedding of one preprocessed image.

        Raises:
            ServiceUnavailable: the lease's encoder must not be used now.
            EncoderFault: the encoder returned something that is not an embedding.
        """
        result: asyncio.Future[Embedding] = asyncio.get_running_loop().create_future()
        entry = ImageEntry(pixels, lease, result)
        return await self._encoded(entry, result, Stage.IMAGE_QUEUE, Stage.IMAGE_ENCODE)

    async def encode_texts(self, texts: Sequence[str], lease: Lease) -> list[Embedding]:
        """Embeddings of the texts, in their order.

        Raises:
            ServiceUnavailable: the lease's encoder must not be used now.
            EncoderFault: the encoder returned something that is not an embedding for one of them.
        """
        result: asyncio.Future[list[Embedding]] = asyncio.get_running_loop().create_future()
        entry = TextsEntry(texts, lease, result)
        return await self._encoded(entry, result, Stage.TEXT_QUEUE, Stage.TEXT_ENCODE)

    async def _encoded(
        self, entry: Entry, result: asyncio.Future[_T], waiting: Stage, encoding: Stage
    ) -> _T:
        """Have the entry encoded, and tell the observer how long it waited and was encoded."""
        self._append(entry)
        encoded = await result
        self._observer.stage_passed(waiting, entry.appended_s, entry.started_s)
        self._observer.stage_passed(encoding, entry.started_s, entry.ended_s)
        return encoded

    def _append(self, entry: Entry) -> None:
        self._waiting.append(entry)
        # Checked now, not in a callback: a worker that has just ended takes no entry.
        self._workers = [worker for worker in self._workers if not worker.done()]
        if len(self._workers) < self._model.concurrent_calls:
            # In a context of its own: it works for all requests, not for the one that woke it.
            self._workers.append(
                asyncio.get_running_loop().create_task(self._work(), context=contextvars.Context())
            )

    async def _work(self) -> None:
        """Encode until nothing waits. There are never more of these tasks than concurrent calls."""
        while (batch := self._waiting.next_batch(self._max_batch)) is not None:
            if isinstance(batch, TextsEntry):
                await self._encode_texts(batch)
            else:
                await self._encode_images(batch)

    async def _encode_images(self, entries: list[ImageEntry]) -> None:
        try:
            embeddings = await self._call(
                lambda encoder: encoder.encode_images(_batch([each.pixels for each in entries])),
                entries,
                len(entries),
            )
        except ServiceUnavailable as unavailable:  # not the images' fault: a retry would not help
            for entry in entries:
                _fail(entry.result, unavailable)
            return
        except Exception as failure:
            if len(entries) == 1:
                self._model.report_fault(entries[0].lease, failure)
                _fail(entries[0].result, failure)
                return
            # One bad image must not fail the others that happened to share its batch.
            logger.warning("a batch of %d images failed; encoding them singly", len(entries))
            for entry in entries:
                if not entry.result.done():
                    await self._encode_images([entry])
            return
        self._observer.batch_encoded(len(entries))
        for entry, embedding in zip(entries, embeddings, strict=True):
            _resolve(entry.result, embedding)

    async def _encode_texts(self, entry: TextsEntry) -> None:
        try:
            embeddings = await self._call(
                lambda encoder: encoder.encode_texts(entry.texts), [entry], len(entry.texts)
            )
        except Exception as failure:
            if not isinstance(failure, ServiceUnavailable):
                self._model.report_fault(entry.lease, failure)
            _fail(entry.result, failure)
        else:
            _resolve(entry.result, embeddings)

    async def _call(
        self,
        encode: Callable[[EncoderPort], RawEmbeddings],
        entries: Sequence[Entry],
        count: int,
    ) -> list[Embedding]:
        """Run ``encode`` for all entries and check that it returned ``count`` embeddings."""
        lease = entries[0].lease  # the same encoder for all of a batch

        def timed(encoder: EncoderPort) -> RawEmbeddings:
            started_s = time.perf_counter()
            rows = encode(encoder)
            ended_s = time.perf_counter()
            for entry in entries:
                entry.started_s, entry.ended_s = started_s, ended_s
            return rows

        rows = await self._model.call(lease, timed)
        check_shape(lease.encoder, rows, count)
        return [Embedding.from_encoder(row) for row in rows]


def _batch(images: list[Pixels]) -> PixelBatch:
    """The images as one array; a single one is not copied."""
    return images[0][np.newaxis] if len(images) == 1 else np.stack(images)


def _resolve(result: asyncio.Future[_T], value: _T) -> None:
    if not result.done():
        result.set_result(value)


def _fail(result: asyncio.Future[_T], failure: Exception) -> None:
    if not result.done():
        result.set_exception(failure)
