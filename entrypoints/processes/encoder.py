"""The process that owns the encoder: batches all fronts' requests and keeps the text cache."""

import asyncio
import logging
import os
import signal
import socket
from typing import Final

import numpy as np
import uvloop

from adapters.encoders.process.messages import (
    Array,
    CountTokens,
    Embeddings,
    EncodeImages,
    EncoderReport,
    EncodeTexts,
    Failure,
    Reply,
    Report,
    Request,
    Tokens,
    pack,
    read_request,
)
from adapters.observability.observers import EncoderEventsOnly
from application.model.states import Lease
from domain.embedding import Embedding
from domain.errors import ModelNotReady, ServiceUnavailable
from entrypoints.container import Container, close_threads, measure_encoders
from entrypoints.processes.member import Membership, enter, seen_to_work

logger = logging.getLogger(__name__)

_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Read-ahead buffer of one connection, in bytes."""

_LOOK_EVERY_SECONDS: Final = 0.25


def run_encoder(member: Membership, listening: socket.socket) -> None:
    """Serve the fronts until the parent ends this process.

    Args:
        member: this process.
        listening: the Unix socket that fronts connect to. The parent keeps it open too, so that
            they can connect to a process that replaces this one.
    """
    enter(member)
    container = Container(settings=member.settings)
    container.observer.override(EncoderEventsOnly(container.metrics()))
    measure_encoders(container)
    uvloop.run(_run(EncoderProcess(container), member, listening))
    # A thread may still be inside a library call that cannot be interrupted.
    os._exit(0)


async def _run(encoder: "EncoderProcess", member: Membership, listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, encoder.end)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    async with seen_to_work(member, encoder.end_without_fronts):
        await encoder.serve(listening)


class EncoderProcess:
    """Replies to the fronts' requests with the service's own supervisor, batcher and cache."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._model = container.model()
        self._batcher = container.batcher()
        self._texts = container.texts()
        self._report_health = container.report_health()
        self._report_load = container.report_load()
        self._serving: set[asyncio.Task[None] | None] = set()
        self._ends_without_fronts = False
        self._end = asyncio.Event()

    async def serve(self, listening: socket.socket) -> None:
        """Load the model, and reply until the process ends."""
        server = await asyncio.start_unix_server(self._serve, sock=listening, limit=_BUFFER_BYTES)
        tasks = [
            asyncio.create_task(self._model.run()),
            asyncio.create_task(self._end_if_only_a_new_process_helps()),
        ]
        await self._end.wait()
        server.close()
        tasks += (task for task in self._serving if task is not None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await close_threads(self._container)

    def end(self) -> None:
        """Have `serve` return."""
        self._end.set()

    def end_without_fronts(self) -> None:
        """Make `serve` return once the fronts have finished their requests and are gone."""
        self._ends_without_fronts = True
        self._end_if_fronts_are_gone()

    def _end_if_fronts_are_gone(self) -> None:
        if self._ends_without_fronts and not self._serving:
            self._end.set()

    async def _end_if_only_a_new_process_helps(self) -> None:
        while (health := self._report_health()).alive:  # noqa: ASYNC110 there is no event for it
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        logger.critical("ending the encoder's process: %s", health.reason)
        await asyncio.sleep(_LOOK_EVERY_SECONDS)  # waiting requests get their 503 first
        os._exit(1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reply to one connection's requests, one after the other."""
        self._serving.add(asyncio.current_task())
        try:
            while True:
                request, array = await read_request(reader)
                reply, rows = await self._reply(request, array)
                writer.writelines(pack(reply, rows))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # a front, or one of its threads, has ended
        except asyncio.CancelledError:
            return  # this process ends; Python 3.11 logs a cancelled task of a stream as an error
        finally:
            self._serving.discard(asyncio.current_task())
            writer.close()
            self._end_if_fronts_are_gone()

    async def _reply(
        self, request: Request | Reply, array: Array | None
    ) -> tuple[Reply, Array | None]:
        try:
            match request:
                case EncodeImages(fingerprint) if array is not None:
                    return Embeddings(), await self._encode_images(fingerprint, array)
                case EncodeTexts(fingerprint, texts):
                    async with self._model.lease() as lease:
                        _check(lease, fingerprint)
                        return Embeddings(), _rows(await self._texts.encode(texts, lease))
                case CountTokens(fingerprint, texts):
                    async with self._model.lease() as lease:
                        _check(lease, fingerprint)
                        count = await asyncio.to_thread(lease.encoder.count_tokens, texts)
                        return Tokens(count.read, count.cut), None
                case Report():
                    load = self._report_load()
                    report = EncoderReport(
                        self._report_health(), load.queue_depth, load.cached_texts
                    )
                    return report, None
                case _:
                    raise TypeError(f"{type(request).__name__} is not a request")
        except ServiceUnavailable as unavailable:
            return Failure.of(unavailable), None
        except Exception as failure:
            logger.warning("a request from a front failed: %s", repr(failure), exc_info=failure)
            return Failure.of(failure), None

    async def _encode_images(self, fingerprint: str, images: Array) -> Array:
        async with self._model.lease() as lease:
            _check(lease, fingerprint)
            embeddings = await asyncio.gather(
                *(self._batcher.encode_image(pixels, lease) for pixels in images)
            )
            return _rows(embeddings)


def _check(lease: Lease, fingerprint: str) -> None:
    """Refuse a request for another model.

    Raises:
        ModelNotReady: the front does not know yet which model is loaded now.
    """
    loaded = lease.encoder.description.fingerprint
    if loaded != fingerprint:
        raise ModelNotReady(
            f"the model is being changed from {fingerprint} to {loaded}.",
            code="model_changing",
            retry_after_s=5,
        )


def _rows(embeddings: "list[Embedding] | tuple[Embedding, ...]") -> Array:
    return np.stack([embedding.vector for embedding in embeddings])
