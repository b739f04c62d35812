"""Pictures are decoded in worker processes, each with a budget of memory and time."""

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
"""Workers that one picture may crash before it is refused."""

_KILLS: Final = 4
"""Workers that may be killed by others while they have one picture before it is given up.

The kernel does that when memory runs out: no fault of the picture's.
"""


_MACHINE_SHORT: Final = "there is not enough memory to decode the image now."

_ERRORS: Final[dict[str, type[ClipError]]] = {
    kind.__name__: kind for kind in (InvalidImage, ImageTooLarge, OutOfMemory)
}
"""What workers may say of a picture, by name."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What decoding one picture may take; the worker that takes more is ended.

    Attributes:
        memory_bytes: of address space beyond what an idle worker has. Enforced on Linux only.
        cpu_s: seconds of processor time.
        wall_s: seconds in all, for a worker that is stopped or gets no processor.
    """

    memory_bytes: int = MAX_DECODING_BYTES
    cpu_s: float = MAX_DECODING_CPU_SECONDS
    wall_s: float = MAX_DECODING_SECONDS


def workers_possible() -> bool:
    """Whether this system can have such workers: Linux and macOS can, Windows cannot."""
    return hasattr(os, "fork") and hasattr(socket, "send_fds")


class _WorkerLost(Exception):
    """A worker ended while it had a picture, or before."""


class _Worker:
    """One worker process, used by one thread at a time.

    Attributes:
        usable: whether it can be given another picture.
        side: pixels of each side of the largest result that it has room for.
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
        weakref.finalize(self, self._connection.close)  # where nobody has called `end`
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
            ClipError: what it says of the picture.
            RuntimeError: the decoder raised something that is no domain error.
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
        except (OSError, ValueError) as lost:  # ValueError: what it sends makes no sense
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
    """As many worker processes as pictures are decoded at once; thread-safe.

    A picture that takes more than the budget, or crashes the decoder, costs its worker, which is
    replaced. A worker that is lost through no fault of its picture's is replaced, and the new one
    is given the picture. Idle workers wait in a stack, so that few of them are kept warm.

    Pools that exist (pebble, loky, `concurrent.futures`) hand work over through queues and threads
    of their own, import everything again for each worker, know no limit of memory, and send
    results as pickles, with which a worker that was taken over could take over the server.
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
            budget: for each picture; None: as `domain.limits` has it.
            max_pixels: see `adapters.images.picture.decode_picture`.
            decoder: the function that does it, as ``module:function``.
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
        # One for each worker that is idle; None: it has yet to be started.
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(None)

    def start(self) -> None:
        """See `ImagePreparationPort.start`. What cannot be started now, is when it is needed."""
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
            InvalidImage: ``image_too_expensive`` over the budget, ``decoder_crashed`` where the
                decoder crashes; else as `decode_picture` says.
            OutOfMemory: the machine has less than the budget allows.
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
        """A new worker with room for pixels of that size.

        From a new fork server if the one that was has ended.

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
                    f"no process can be started to decode pictures in: {failure.strerror}.",
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
    """What a worker that could not decode a picture says of it."""
    if outcome == REFUSED:
        name, detail, code = map(str, told)
        kind = _ERRORS.get(name, InvalidImage)
        return kind(detail, code=code)
    if outcome == NO_MEMORY:
        return InvalidImage(
            f"image needs more than {budget.memory_bytes // 2**20} MiB of memory to be decoded, "
            "the limit.",
            code="image_too_expensive",
        )
    if outcome == MACHINE_SHORT:
        return OutOfMemory(_MACHINE_SHORT)
    return RuntimeError(f"decoding failed: {told}")


def _too_slow(budget: Budget) -> InvalidImage:
    return InvalidImage(
        f"image takes more than {budget.cpu_s:g} seconds of processor time to be decoded, "
        "the limit.",
        code="image_too_expensive",
    )


def _ending(status: int) -> str:
    """How a process ended, by name."""
    if status < 0:
        return signal.Signals(-status).name
    return f"exit status {status}"
