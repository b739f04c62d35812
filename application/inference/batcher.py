"""Turns concurrent requests into batches for the encoder."""

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from application.model.model_lifecycle import ModelLifecycle
from application.model.self_test import check_shape
from application.ports import (
    UNOBSERVED,
    EncoderLost,
    EncoderPort,
    ObserverPort,
    Pixels,
    RawEmbeddings,
    Stage,
)
from domain.embedding import Embedding
from domain.errors import (
    ClipError,
    EncoderDoubted,
    EncoderHanging,
    ModelNotReady,
    ServiceUnavailable,
)

_T = TypeVar("_T")

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True, kw_only=True)
class _Entry:
    """What waits, and when it did what, by `time.perf_counter`."""

    appended_s: float = field(default_factory=time.perf_counter)
    started_s: float = 0.0
    ended_s: float = 0.0


@dataclass(eq=False, slots=True)
class _ImageEntry(_Entry):
    """One image waiting for its embedding."""

    pixels: Pixels
    encoder: EncoderPort
    answer: asyncio.Future[Embedding]


@dataclass(eq=False, slots=True)
class _TextsEntry(_Entry):
    """The texts of one request waiting for their embeddings."""

    texts: Sequence[str]
    encoder: EncoderPort
    answer: asyncio.Future[list[Embedding]]


class EncodingQueue:
    """Feeds the encoder from threads of its own, so that the event loop never blocks.

    While the encoder is busy, requests pile up; when it is free it takes what is waiting: up to
    ``max_batch`` images as one batch, or the texts of one request. An idle encoder is given a
    lone request at once: nothing is ever held back to wait for company. An entry whose caller
    has gone is dropped when the batch is formed. The oldest entry always goes next. Each is encoded
    by the encoder that was loaded when it came, so that a batch has one encoder only.

    An encoder in this process is busy with one call. One that stands for many on other machines
    takes several at once, or all but one of them would stand idle.

    An encoder whose answer is no embedding, or that fails, is not asked again before it has been
    tested (`ModelLifecycle.doubt`); what waits for it is told so. A call that does not return
    fails all that wait, since there is no way to interrupt it.

    How much may wait is bounded by `Admission`, in front of the use cases.
    """

    def __init__(
        self,
        model: ModelLifecycle,
        *,
        max_batch: int,
        concurrent_calls: int = 1,
        call_timeout_s: float | None = None,
        observer: ObserverPort = UNOBSERVED,
    ) -> None:
        """Make one.

        Args:
            model: its encoder is asked.
            max_batch: images per call.
            concurrent_calls: calls at the same time; more than 1 only for encoders that allow it.
            call_timeout_s: seconds after which a call counts as hanging; None: never.
            observer: is told of doubts and batches, and of each entry's wait and encoding.
        """
        self._model = model
        self._observer = observer
        self._max_batch = max_batch
        self._waiting: deque[_ImageEntry | _TextsEntry] = deque()
        self._concurrent_calls = concurrent_calls
        self._call_timeout_s = call_timeout_s
        self._workers: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(concurrent_calls, thread_name_prefix="encoder")

    @property
    def depth(self) -> int:
        """Images, and requests' texts, that wait for the encoder and are still wanted."""
        return sum(not entry.answer.done() for entry in self._waiting)

    @property
    def busy(self) -> bool:
        """Whether anything waits or is being encoded."""
        return any(not worker.done() for worker in self._workers)

    async def encode_image(self, pixels: Pixels) -> Embedding:
        """Embedding of one preprocessed image, float32 ``[3, 224, 224]``.

        Raises:
            ServiceUnavailable: no model is loaded, or it must not answer now.
            EncoderFault: the encoder broke its contract on this image.
        """
        answer: asyncio.Future[Embedding] = asyncio.get_running_loop().create_future()
        entry = _ImageEntry(pixels, self._model.encoder(), answer)
        return await self._answered(entry, answer, Stage.IMAGE_QUEUE, Stage.IMAGE_ENCODE)

    async def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """Embeddings of the texts, in their order.

        Raises:
            ServiceUnavailable: no model is loaded, or it must not answer now.
            EncoderFault: the encoder broke its contract on one of the texts.
        """
        answer: asyncio.Future[list[Embedding]] = asyncio.get_running_loop().create_future()
        entry = _TextsEntry(texts, self._model.encoder(), answer)
        return await self._answered(entry, answer, Stage.TEXT_QUEUE, Stage.TEXT_ENCODE)

    async def prove(self, encoder: EncoderPort) -> None:
        """Test a doubted encoder as `ModelLifecycle.prove` does, beside no other call of it.

        Raises:
            EncoderHanging: that takes too long.
            EncoderFault: it fails; or whatever the encoder raises.
        """
        await self._in_thread(lambda: self._model.prove(encoder), ())

    def close(self) -> None:
        """Let the threads end once they have finished what they are doing."""
        self._threads.shutdown(wait=False)

    async def _answered(
        self,
        entry: _ImageEntry | _TextsEntry,
        answer: asyncio.Future[_T],
        waiting: Stage,
        encoding: Stage,
    ) -> _T:
        """Have the entry encoded, and tell the observer how long it waited and was encoded."""
        self._append(entry)
        result = await answer
        self._observer.stage_passed(waiting, entry.appended_s, entry.started_s)
        self._observer.stage_passed(encoding, entry.started_s, entry.ended_s)
        return result

    def _append(self, entry: _ImageEntry | _TextsEntry) -> None:
        self._waiting.append(entry)
        # Looked at now and not left to a callback: a worker that has just ended takes no entry.
        self._workers = [worker for worker in self._workers if not worker.done()]
        if len(self._workers) < self._concurrent_calls:
            # In a context of its own: it works for all requests, not for the one that woke it.
            self._workers.append(
                asyncio.get_running_loop().create_task(self._work(), context=contextvars.Context())
            )

    async def _work(self) -> None:
        """Encode until nothing waits. There are never more of these tasks than concurrent calls."""
        while self._waiting:
            first = self._waiting.popleft()
            if first.answer.done():  # cancelled: its caller has gone
                continue
            if isinstance(first, _TextsEntry):
                await self._answer_texts(first)
            else:
                await self._answer_images([first, *self._more_images(first.encoder)])

    def _more_images(self, encoder: EncoderPort) -> list[_ImageEntry]:
        """Up to ``max_batch - 1`` further images for this encoder, wherever they stand."""
        taken: list[_ImageEntry] = []
        passed: list[_ImageEntry | _TextsEntry] = []
        while self._waiting and len(taken) < self._max_batch - 1:
            entry = self._waiting.popleft()
            if entry.answer.done():
                continue
            if isinstance(entry, _ImageEntry) and entry.encoder is encoder:
                taken.append(entry)
            else:
                passed.append(entry)
        self._waiting.extendleft(reversed(passed))
        return taken

    async def _answer_images(self, entries: list[_ImageEntry]) -> None:
        try:
            embeddings = await self._call(
                lambda encoder: encoder.encode_images(np.stack([each.pixels for each in entries])),
                entries,
                len(entries),
            )
        except ServiceUnavailable as unavailable:  # no image's fault: trying each would not help
            _fail_all(entries, unavailable)
            return
        except Exception as failure:
            if len(entries) == 1:
                self._doubt(entries[0].encoder, failure)
                _fail(entries[0].answer, failure)
                return
            # One bad image must not fail the others that happened to share its batch.
            logger.warning("a batch of %d images failed; encoding them singly", len(entries))
            for entry in entries:
                if not entry.answer.done():
                    await self._answer_images([entry])
            return
        self._observer.batch_encoded(len(entries))
        for entry, embedding in zip(entries, embeddings, strict=True):
            _resolve(entry.answer, embedding)

    async def _answer_texts(self, entry: _TextsEntry) -> None:
        try:
            embeddings = await self._call(
                lambda encoder: encoder.encode_texts(entry.texts), [entry], len(entry.texts)
            )
        except Exception as failure:
            if not isinstance(failure, ServiceUnavailable):
                self._doubt(entry.encoder, failure)
            _fail(entry.answer, failure)
        else:
            _resolve(entry.answer, embeddings)

    async def _call(
        self,
        encode: Callable[[EncoderPort], RawEmbeddings],
        entries: Sequence[_ImageEntry] | Sequence[_TextsEntry],
        count: int,
    ) -> list[Embedding]:
        """Run ``encode`` in a thread and check that it gave ``count`` embeddings."""
        encoder = entries[0].encoder  # the same for all of a batch

        def timed() -> RawEmbeddings:
            started_s = time.perf_counter()
            rows = encode(encoder)
            ended_s = time.perf_counter()
            for entry in entries:
                entry.started_s, entry.ended_s = started_s, ended_s
            return rows

        self._model.check(encoder)
        doubts = self._model.doubts
        try:
            rows = await self._in_thread(timed, entries)
        except EncoderLost as lost:
            self._model.lose(encoder, str(lost))
            raise ModelNotReady(f"no model is loaded: {lost}", retry_after_s=30) from lost
        if self._model.doubts != doubts:  # raised by a call beside this one
            raise EncoderDoubted("the encoder was doubted while it answered this.", retry_after_s=2)
        check_shape(encoder, rows, count)
        return [Embedding.from_encoder(row) for row in rows]

    async def _in_thread(
        self,
        work: Callable[[], _T],
        entries: Sequence[_ImageEntry | _TextsEntry],
    ) -> _T:
        """Run ``work`` in one of the encoder's threads.

        Raises:
            EncoderHanging: it took longer than allowed, and was waited for until it returned. The
                ``entries`` that it was for, and all that waits, have been told at once.
        """
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        patience_s = self._call_timeout_s if self._model.watched else None
        done, _ = await asyncio.wait((running,), timeout=patience_s)
        if done:
            return running.result()
        hanging = self._model.hang()
        self._observer.encoder_doubted("hanging")
        logger.error("a call of the encoder has not returned within %s seconds", patience_s)
        self._fail_waiting(hanging)
        _fail_all(entries, hanging)
        await asyncio.wait((running,))
        logger.error("the call of the encoder that was hanging has returned; its result is dropped")
        running.exception()  # looked at, or Python warns of it
        self._model.returned()
        raise hanging

    def _doubt(self, encoder: EncoderPort, failure: Exception) -> None:
        """What is the encoder's own fault, and not for want of trying, makes it doubtful."""
        fault = failure.detail if isinstance(failure, ClipError) else "a call of it failed"
        if self._model.doubt(encoder, fault):
            known = isinstance(failure, ClipError)
            logger.error(
                "the encoder is doubted: %s", repr(failure), exc_info=None if known else failure
            )
            self._observer.encoder_doubted("fault")
            self._fail_waiting(EncoderDoubted(str(self._model.failure), retry_after_s=2), encoder)

    def _fail_waiting(
        self, failure: EncoderDoubted | EncoderHanging, encoder: EncoderPort | None = None
    ) -> None:
        """Fail all that waits, or what waits for one encoder."""
        _fail_all([e for e in self._waiting if encoder is None or e.encoder is encoder], failure)


def _resolve(answer: asyncio.Future[_T], result: _T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[_T], failure: Exception) -> None:
    if not answer.done():
        answer.set_exception(failure)


def _fail_all(entries: Sequence[_ImageEntry | _TextsEntry], failure: Exception) -> None:
    for entry in entries:
        if not entry.answer.done():
            entry.answer.set_exception(failure)
