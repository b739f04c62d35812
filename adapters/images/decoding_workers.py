"""Decodes pictures in worker processes, each with a budget of memory and time."""

import asyncio
import errno
import functools
import json
import logging
import mmap
import os
import signal
import socket
import threading
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias, cast

import numpy as np

from adapters.images.decoding_worker import (
    DECODED,
    LONGEST_REPLY,
    MACHINE_SHORT,
    NO_MEMORY,
    REFUSED,
    REPLY,
    REQUEST,
)
from adapters.images.fork_server import ForkServer, ForkServerLost, shared_memory
from application.ports import CLIPS_INPUT, ImageInput, ImagePreparationPort, Pixels
from domain.errors import (
    ClipError,
    Draining,
    ImageTooLarge,
    InvalidImage,
    OutOfMemory,
    ServiceUnavailable,
)
from domain.limits import (
    MAX_DECODED_PIXELS,
    MAX_DECODING_BYTES,
    MAX_DECODING_CPU_SECONDS,
    MAX_DECODING_SECONDS,
)

logger = logging.getLogger(__name__)

DECODER: Final = "adapters.images.picture:decode_picture"

_CRASHES: Final = 2
"""How many workers one picture may crash before it is refused."""

_KILLS: Final = 4
"""How many workers may be killed from outside during one picture before giving up.

The kernel does that when memory runs out: it is not the picture's fault.
"""


_MACHINE_SHORT: Final = "there is not enough memory to decode the image now."

_ERRORS: Final[dict[str, type[ClipError]]] = {
    kind.__name__: kind for kind in (InvalidImage, ImageTooLarge, OutOfMemory)
}
"""Errors that workers may report, by name."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget for decoding one picture; a worker that takes more is ended.

    Attributes:
        memory_bytes: address space beyond that of an idle worker. Enforced on Linux only.
        cpu_s: seconds of processor time.
        wall_s: seconds of real time, for a worker that is stopped or gets no processor.
    """

    memory_bytes: int = MAX_DECODING_BYTES
    cpu_s: float = MAX_DECODING_CPU_SECONDS
    wall_s: float = MAX_DECODING_SECONDS


def workers_possible() -> bool:
    """Whether this system supports such workers: Linux and macOS do, Windows does not."""
    return hasattr(os, "fork") and hasattr(socket, "send_fds")


_Reply: TypeAlias = tuple[bytes, list[Any]]
"""The outcome, and what the worker says about it."""


class _WorkerLost(Exception):
    """A worker ended before or during a picture."""


class _Worker(asyncio.Protocol):
    """One worker process and the connection to it.

    Attributes:
        side: pixels on each side of the largest result that fits its memory.
    """

    def __init__(self, pid: int, shared: mmap.mmap, side: int, fork_server: ForkServer) -> None:
        """Describe one that was just forked; see `_started`."""
        self.side = side
        self._pid = pid
        self._shared = shared
        self._fork_server = fork_server
        self._transport: asyncio.Transport | None = None
        self._disconnected = asyncio.Event()
        self._received = bytearray()
        self._reply: asyncio.Future[_Reply] | None = None

    @property
    def usable(self) -> bool:
        """Whether it can take another picture."""
        return self._transport is not None and self._reply is None

    async def decode(self, data: bytes, image_input: ImageInput, budget: Budget) -> Pixels:
        """Levels of one file, uint8 ``[3, size, size]``.

        Raises:
            _WorkerLost: the worker has ended.
            TimeoutError: it took too long.
            ClipError: the worker's error for the picture.
            RuntimeError: the decoder raised an error that is not a domain error.
        """
        if self._transport is None:
            raise _WorkerLost
        loop = asyncio.get_running_loop()
        self._reply = loop.create_future()
        wanted = _as_json(image_input)
        # In one call, so that the worker wakes once. The rest of a large file follows.
        self._transport.writelines((REQUEST.pack(len(wanted), len(data)) + wanted, data))
        deadline = loop.call_later(budget.wall_s, self._give_up, TimeoutError())
        try:
            outcome, told = await self._reply
        finally:
            deadline.cancel()
        self._reply = None  # only now: without a reply it may still be busy with this picture
        if outcome != DECODED:
            raise _error(outcome, told, budget)
        side = image_input.size
        pixels = np.frombuffer(self._shared, np.uint8, 3 * side * side)
        # A copy, since the worker writes the next picture to the same place.
        return pixels.reshape(3, side, side).copy()

    async def end(self) -> int | None:
        """End the process, and close what belongs to it; see `ForkServer.end`."""
        self._hang_up()
        self._shared.close()
        status = await asyncio.to_thread(self._fork_server.end, self._pid)
        await self._disconnected.wait()
        return status

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take a part of a reply. If it makes no sense, the worker is lost."""
        self._received += data
        try:
            if self._reply is None or self._reply.done():
                raise ValueError("no picture was sent")
            if (reply := _reply_in(self._received)) is not None:
                self._received.clear()
                self._reply.set_result(reply)
        except ValueError:
            self._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended, or is about to."""
        self._transport = None
        self._disconnected.set()
        self._give_up(_WorkerLost())

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()  # and `connection_lost` is called soon
            self._transport = None

    def _give_up(self, reason: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(reason)


class DecodingWorkers(ImagePreparationPort):
    """A pool with one worker process for each picture decoded at once, for one event loop.

    If a picture takes more than the budget or crashes the decoder, its worker is replaced. If a
    worker is lost for another reason, it is replaced too, and the new one retries the picture. Idle
    workers wait in a stack, so that only a few are kept warm. The event loop itself speaks with
    them: a thread for each picture cost a third as much as the rest of a small request.

    Existing pools (pebble, loky, `concurrent.futures`) pass work through their own queues and
    threads, import everything again for each worker and have no memory limit. They also send
    results as pickles, so that a compromised worker could take over the server.
    """

    def __init__(
        self,
        workers: int,
        *,
        budget: Budget | None = None,
        max_pixels: int = MAX_DECODED_PIXELS,
        decoder: str = DECODER,
    ) -> None:
        """Make one; nothing is started before `start` or the first picture.

        Args:
            workers: processes; pictures that are decoded at once.
            budget: for each picture; None: that of `domain.limits`.
            max_pixels: see `adapters.images.picture.decode_picture`.
            decoder: the decoding function, as ``module:function``.
        """
        self._budget = budget or Budget()
        self._configuration = {
            "decoder": decoder,
            "options": {"max_pixels": max_pixels},
            "memory_bytes": self._budget.memory_bytes,
            "cpu_s": self._budget.cpu_s,
        }
        self._count = workers
        self._closed = False
        self._lock = threading.Lock()
        self._fork_server: ForkServer | None = None
        self._places = asyncio.Semaphore(workers)
        self._idle: list[_Worker] = []

    async def start(self) -> None:
        """See `ImagePreparationPort.start`. If a worker cannot start now, it starts when needed."""
        async with AsyncExitStack() as places:
            for _ in range(self._count):
                await places.enter_async_context(self._places)
            try:
                while len(self._idle) < self._count and not self._closed:
                    self._idle.append(await self._started_worker(CLIPS_INPUT.size))
            except ServiceUnavailable as failure:
                logger.warning("%s", failure.detail)

    async def prepare(self, data: bytes, image_input: ImageInput = CLIPS_INPUT) -> Pixels:
        """See `ImagePreparationPort.prepare`. Waits until a worker is idle.

        Raises:
            InvalidImage: ``image_too_expensive`` over the budget, ``decoder_crashed`` if the
                decoder crashes; else as `decode_picture` says.
            OutOfMemory: the machine has less memory than the budget allows.
            ServiceUnavailable: no worker can be started, or the pool is closed.
        """
        async with self._places:
            worker = await self._idle_worker(image_input.size)
            crashes = kills = 0
            try:
                while True:
                    worker = worker or await self._started_worker(image_input.size)
                    try:
                        return await worker.decode(data, image_input, self._budget)
                    except TimeoutError:
                        raise ServiceUnavailable(
                            f"the image was not decoded within {self._budget.wall_s:g} seconds, "
                            "the limit: the machine is too busy.",
                            code="decoding_timed_out",
                            retry_after_s=5,
                        ) from None
                    except _WorkerLost:
                        lost, worker = worker, None
                        status = await lost.end()
                    if status == -signal.SIGPROF:
                        raise _too_slow(self._budget)
                    if status in {None, -signal.SIGKILL}:
                        kills += 1
                        if kills == _KILLS:
                            raise OutOfMemory(_MACHINE_SHORT)
                    else:
                        crashes += 1
                        logger.warning("a decoder crashed with %s", _ending(status))
                        if crashes == _CRASHES:
                            raise InvalidImage(
                                f"image makes the decoder crash ({_ending(status)}).",
                                code="decoder_crashed",
                            )
            finally:
                if worker is not None and worker.usable:
                    self._idle.append(worker)
                elif worker is not None:
                    await worker.end()

    async def close(self) -> None:
        """See `ImagePreparationPort.close`."""
        self._closed = True
        await asyncio.to_thread(self._end_fork_server)  # and with it its workers
        idle, self._idle = self._idle, []
        for worker in idle:
            await worker.end()

    def _end_fork_server(self) -> None:
        with self._lock:
            if self._fork_server is not None:
                self._fork_server.close()
                self._fork_server = None

    async def _idle_worker(self, side: int) -> _Worker | None:
        """A running worker with room for pixels of this size; None if there is none."""
        while self._idle:
            worker = self._idle.pop()
            if worker.usable and worker.side >= side:
                return worker
            await worker.end()
        return None

    async def _started_worker(self, side: int) -> _Worker:
        """A new worker with room for pixels of this size.

        If the fork server has ended, a new one is started.

        Raises:
            ServiceUnavailable: it cannot be started, or the pool is closed.
        """
        for _ in range(2):
            if self._closed:
                raise Draining("the server is shutting down and decodes no more pictures.")
            try:
                fork_server = await asyncio.to_thread(self._running_fork_server)
                return await _started(fork_server, side)
            except ForkServerLost:
                await asyncio.to_thread(self._forget, fork_server)
            except OSError as failure:
                if failure.errno == errno.ENOMEM:
                    raise OutOfMemory(_MACHINE_SHORT) from failure
                raise ServiceUnavailable(
                    f"no process can be started to decode pictures: {failure.strerror}.",
                    code="no_decoder",
                ) from failure
        raise ServiceUnavailable(
            "the process that starts decoders ends as soon as it is started.", code="no_decoder"
        )

    def _running_fork_server(self) -> ForkServer:
        with self._lock:
            if self._fork_server is None:
                self._fork_server = ForkServer(self._configuration)
            return self._fork_server

    def _forget(self, lost: ForkServer) -> None:
        with self._lock:
            if self._fork_server is lost:
                logger.warning("the process that starts decoders has ended; starting another")
                self._fork_server = None
                lost.close()


async def _started(fork_server: ForkServer, side: int) -> _Worker:
    """A new worker with room for results of ``side`` pixels on each side.

    Raises:
        ForkServerLost: the fork server has ended.
        OSError: no process can be started, or there are no more file descriptors.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            file, shared = shared_memory(3 * side * side)
            try:
                pid = await asyncio.to_thread(fork_server.fork, (theirs.fileno(), file))
            finally:
                os.close(file)
    except BaseException:
        ours.close()
        raise
    worker = _Worker(pid, shared, side, fork_server)
    # The socket belongs to the transport from now on.
    await asyncio.get_running_loop().create_unix_connection(lambda: worker, sock=ours)
    return worker


def _reply_in(received: bytearray) -> _Reply | None:
    """A worker's reply; None if it is not complete yet.

    Raises:
        ValueError: it is too long, or not a reply.
    """
    if len(received) < REPLY.size:
        return None
    outcome, length = REPLY.unpack_from(received)
    if length > LONGEST_REPLY:
        raise ValueError(f"a reply of {length} bytes")
    if len(received) < REPLY.size + length:
        return None
    text = received[REPLY.size :]
    return outcome, json.loads(text) if text else []


@functools.cache
def _as_json(image_input: ImageInput) -> bytes:
    return json.dumps(asdict(image_input)).encode()


def _error(outcome: bytes, told: list[Any], budget: Budget) -> Exception:
    """The error from a worker that could not decode a picture."""
    if outcome == REFUSED:
        name, detail, code = map(str, told)
        kind = _ERRORS.get(name, InvalidImage)
        return kind(detail, code=code)
    if outcome == NO_MEMORY:
        return InvalidImage(
            f"image needs more than {budget.memory_bytes // 2**20} MiB of memory to decode, the "
            "limit.",
            code="image_too_expensive",
        )
    if outcome == MACHINE_SHORT:
        return OutOfMemory(_MACHINE_SHORT)
    return RuntimeError(f"decoding failed: {told}")


def _too_slow(budget: Budget) -> InvalidImage:
    return InvalidImage(
        f"image takes more than {budget.cpu_s:g} seconds of processor time to decode, the limit.",
        code="image_too_expensive",
    )


def _ending(status: int) -> str:
    """How a process ended, by name."""
    if status < 0:
        return signal.Signals(-status).name
    return f"exit status {status}"
