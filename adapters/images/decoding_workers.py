"""Decodes pictures in worker processes, each with a budget of memory and time."""

import errno
import functools
import json
import logging
import os
import queue
import signal
import socket
import threading
import weakref
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.images.decoding_worker import (
    DECODED,
    MACHINE_SHORT,
    NO_MEMORY,
    REFUSED,
    REPLY,
    REQUEST,
)
from adapters.images.fork_server import ForkServer, ForkServerLost, shared_memory
from adapters.images.preprocessing import channels_first
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


class _WorkerLost(Exception):
    """A worker ended before or during a picture."""


class _Worker:
    """One worker process, used by one thread at a time.

    Attributes:
        usable: whether it can take another picture.
        side: pixels on each side of the largest result that fits its memory.
    """

    def __init__(self, fork_server: ForkServer, side: int) -> None:
        """Start it.

        Raises:
            ForkServerLost: the fork server has ended.
            OSError: no process can be started, or there are no more file descriptors.
        """
        self.usable = True
        self.side = side
        self._fork_server = fork_server
        self._connection, theirs = socket.socketpair()
        weakref.finalize(self, self._connection.close)  # if `end` was never called
        try:
            with theirs:
                file, shared = shared_memory(3 * side * side)
                try:
                    self._pid = fork_server.fork((theirs.fileno(), file))
                finally:
                    os.close(file)
        except BaseException:
            self._connection.close()
            raise
        self._pixels = np.frombuffer(shared, dtype=np.uint8)

    def decode(self, data: bytes, image_input: ImageInput, budget: Budget) -> NDArray[np.uint8]:
        """Levels of one file, uint8 ``[size, size, 3]``, valid until the next one is decoded.

        Raises:
            _WorkerLost: the worker has ended.
            TimeoutError: it took too long.
            ClipError: the worker's error for the picture.
            RuntimeError: the decoder raised an error that is not a domain error.
        """
        self.usable = False
        self._connection.settimeout(budget.wall_s)
        try:
            wanted = _as_json(image_input)
            header = REQUEST.pack(len(wanted), len(data)) + wanted
            # One call for both, so that the worker wakes once. The rest of a large file follows.
            sent = self._connection.sendmsg((header, data)) - len(header)
            if sent < len(data):
                self._connection.sendall(memoryview(data)[sent:])
            outcome, length = REPLY.unpack(self._received(REPLY.size))
            told = json.loads(self._received(length)) if length else []
        except TimeoutError:
            raise
        except (OSError, ValueError) as lost:  # ValueError: its message makes no sense
            raise _WorkerLost from lost
        self.usable = True
        if outcome == DECODED:
            side = image_input.size
            return self._pixels[: 3 * side * side].reshape(side, side, 3)
        raise _error(outcome, told, budget)

    def end(self) -> int | None:
        """End the process; see `ForkServer.end`."""
        self.usable = False
        self._connection.close()
        return self._fork_server.end(self._pid)

    def _received(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            more = self._connection.recv(size - len(received))
            if not more:
                raise ConnectionResetError
            received += more
        return received


class DecodingWorkers(ImagePreparationPort):
    """A pool with one worker process for each picture decoded at once; thread-safe.

    If a picture takes more than the budget or crashes the decoder, its worker is replaced. If a
    worker is lost for another reason, it is replaced too, and the new one retries the picture. Idle
    workers wait in a stack, so that only a few are kept warm.

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
        # One entry for each idle worker; None: not started yet.
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(None)

    def start(self) -> None:
        """See `ImagePreparationPort.start`. If a worker cannot start now, it starts when needed."""
        taken = [self._idle.get() for _ in range(self._count)]
        for worker in taken:
            try:
                self._idle.put(worker or self._started_worker(CLIPS_INPUT.size))
            except ServiceUnavailable as failure:
                logger.warning("%s", failure.detail)
                self._idle.put(None)

    def prepare(self, data: bytes, image_input: ImageInput = CLIPS_INPUT) -> Pixels:
        """See `ImagePreparationPort.prepare`. Waits until a worker is idle.

        Raises:
            InvalidImage: ``image_too_expensive`` over the budget, ``decoder_crashed`` if the
                decoder crashes; else as `decode_picture` says.
            OutOfMemory: the machine has less memory than the budget allows.
            ServiceUnavailable: no worker can be started.
        """
        worker = self._idle.get()
        try:
            if self._closed:
                raise Draining("the server is shutting down and decodes no more pictures.")
            crashes = kills = 0
            while True:
                if worker is not None and worker.side < image_input.size:
                    worker.end()
                    worker = None
                worker = worker or self._started_worker(image_input.size)
                try:
                    return channels_first(worker.decode(data, image_input, self._budget))
                except TimeoutError:
                    raise ServiceUnavailable(
                        f"the image was not decoded within {self._budget.wall_s:g} seconds, the "
                        "limit: the machine is too busy.",
                        code="decoding_timed_out",
                        retry_after_s=5,
                    ) from None
                except _WorkerLost:
                    status = worker.end()
                    worker = None
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
            if worker is not None and not worker.usable:
                worker.end()
                worker = None
            self._idle.put(worker)

    def close(self) -> None:
        """See `ImagePreparationPort.close`."""
        self._closed = True
        for worker in [self._idle.get() for _ in range(self._count)]:
            if worker is not None:
                worker.end()
            self._idle.put(None)
        with self._lock:
            if self._fork_server is not None:
                self._fork_server.close()
                self._fork_server = None

    def _started_worker(self, side: int) -> _Worker:
        """A new worker with room for pixels of this size.

        If the fork server has ended, a new one is started.

        Raises:
            ServiceUnavailable: it cannot be started.
        """
        for _ in range(2):
            try:
                fork_server = self._running_fork_server()
                return _Worker(fork_server, side)
            except ForkServerLost:
                self._forget(fork_server)
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
