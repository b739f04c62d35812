"""The processes that decode pictures: one fork server, and the workers that it forks.

Run as a program by `DecodingWorkers`. The fork server imports everything once, has no threads and
does nothing but fork, so that a worker starts within milliseconds and shares its pages with the
others. Nothing heavy is imported here.

Messages, all over stream sockets, numbers in the machine's own byte order:

- to the fork server: `ORDER` (`FORK` with two file descriptors, or `END` with a worker's process
  id); it replies with `RESULT`: the new process id or the exit status, and an errno or 0.
- to a worker: `REQUEST`, the wanted `ImageInput` as JSON and the bytes of a file; it replies with
  `REPLY` and, unless the outcome is `DECODED`, JSON that says what happened. The pixels are at the
  beginning of the memory that both share, in the encoders' layout, ``[3, size, size]``.
"""

import ctypes
import errno
import functools
import importlib
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from application.ports import Fit, ImageInput
from domain.errors import ClipError

Decoder: TypeAlias = Callable[..., NDArray[np.uint8]]
"""Like `adapters.images.picture.decode_picture`: a file's bytes and options to pixels."""

ORDER: Final = struct.Struct("=ci")
FORK: Final = b"F"
END: Final = b"E"
RESULT: Final = struct.Struct("=ii")
REQUEST: Final = struct.Struct("=IQ")
"""Bytes of the JSON, and of the file."""
REPLY: Final = struct.Struct("=cI")

DECODED: Final = b"D"
REFUSED: Final = b"R"
"""A domain error: its class, detail and code."""
NO_MEMORY: Final = b"M"
"""It would need more memory than the budget."""
MACHINE_SHORT: Final = b"S"
"""The machine has less memory than the budget allows."""
FAILED: Final = b"F"
"""An unexpected error: its traceback."""

LONGEST_REPLY: Final = 2**20
"""Bytes of the JSON of a reply; what a worker says beyond that makes no sense."""

_PR_SET_PDEATHSIG: Final = 1
_PAGE_BYTES: Final = resource.getpagesize()
_SPARE_BYTES: Final = 4 * 1024 * 1024
"""Margin for the interpreter's own needs when checking that the budget is available."""
_MOST_TRACEBACK: Final = 8000
"""Characters of it that are reported."""


def fork_server(control: socket.socket, decode: Decoder, configuration: dict[str, Any]) -> None:
    """Fork and end workers on request, until the server at the other end is gone."""
    # A server killed with an unread reply resets the connection instead of closing it.
    with suppress(ConnectionError):
        while _one_order(control, decode, configuration):
            pass


def _one_order(control: socket.socket, decode: Decoder, configuration: dict[str, Any]) -> bool:
    """Wait for an order and carry it out; returns whether more may come."""
    own_pid = os.getpid()
    message, files, _, _ = socket.recv_fds(control, ORDER.size, 2)
    if len(message) < ORDER.size:
        return False  # the server has ended
    order, pid = ORDER.unpack(message)
    result = error = 0
    try:
        if order == END:
            # Done here and not in the server: here the id cannot belong to a different process by
            # now.
            os.kill(pid, signal.SIGKILL)
            result = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        elif (result := os.fork()) == 0:
            control.close()
            _work_and_exit(files, decode, configuration, own_pid)
    except OSError as failure:
        error = failure.errno or errno.EIO
    for file in files:
        os.close(file)
    control.sendall(RESULT.pack(result, error))
    return True


def _work_and_exit(
    files: list[int], decode: Decoder, configuration: dict[str, Any], parent: int
) -> NoReturn:
    status = 1
    try:
        _die_with(parent)
        limit = _limit_memory(configuration["memory_bytes"])
        with socket.socket(fileno=files[0]) as connection:
            pixels = mmap.mmap(files[1], os.fstat(files[1]).st_size)
            os.close(files[1])
            _work(connection, pixels, decode, configuration, limit)
        status = 0
    finally:
        os._exit(status)


def _die_with(parent: int) -> None:
    """Make the worker end with the fork server, even inside a decoder's loop."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # If the container runs out of memory, the kernel should kill a worker and not the server.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if os.getppid() != parent:
        os._exit(1)


def _limit_memory(budget: int) -> int | None:
    """Limit the address space to its current size plus the budget; None: the limit is lower
    already.

    Linux only: elsewhere the kernel does not enforce the limit.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no copies of pictures on disk
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _address_space() + budget
    for limit in (soft, hard):
        if limit != resource.RLIM_INFINITY and limit < wanted:
            return None
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    return wanted


def _address_space() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * _PAGE_BYTES
    except OSError:  # not Linux
        return 0


def _work(
    connection: socket.socket,
    shared: mmap.mmap,
    decode: Decoder,
    configuration: dict[str, Any],
    limit: int | None,
) -> None:
    """Decode one file after the other until the other end closes."""
    pixels = np.frombuffer(shared, dtype=np.uint8)
    while header := connection.recv(REQUEST.size, socket.MSG_WAITALL):
        lengths = REQUEST.unpack(header)
        # Processor time, so that a busy machine does not count against a picture. Over the limit,
        # the kernel ends the process, even inside C code.
        signal.setitimer(signal.ITIMER_PROF, configuration["cpu_s"])
        outcome, told = _decoded(connection, lengths, decode, configuration["options"], pixels)
        signal.setitimer(signal.ITIMER_PROF, 0)
        # A decoder without memory may also report the picture as damaged.
        doubtful = outcome == NO_MEMORY or (outcome == REFUSED and told[2] == "damaged_image")
        if doubtful and not _has_its_budget(limit):
            outcome, told = MACHINE_SHORT, ()
        text = b"" if outcome == DECODED else json.dumps(told).encode()
        connection.sendall(REPLY.pack(outcome, len(text)) + text)


def _decoded(
    connection: socket.socket,
    lengths: tuple[int, int],
    decode: Decoder,
    options: dict[str, Any],
    pixels: NDArray[np.uint8],
) -> tuple[bytes, tuple[str, ...]]:
    try:
        wanted, data = (
            connection.recv(length, socket.MSG_WAITALL) if length else b"" for length in lengths
        )
        found = decode(data, image_input=_image_input(wanted), **options)
        pixels[: found.size].reshape(3, *found.shape[:2])[...] = found.transpose(2, 0, 1)
    except ClipError as refusal:
        return REFUSED, (type(refusal).__name__, refusal.detail, refusal.code)
    except MemoryError:
        return NO_MEMORY, ()
    except Exception:
        return FAILED, (traceback.format_exc()[-_MOST_TRACEBACK:],)
    return DECODED, ()


@functools.lru_cache(maxsize=16)
def _image_input(wanted: bytes) -> ImageInput:
    described = json.loads(wanted)
    return ImageInput(**{**described, "fit": Fit(described["fit"])})


def _has_its_budget(limit: int | None) -> bool:
    """Whether the machine can provide the budget. If so, the picture needed too much.

    Args:
        limit: the one that `_limit_memory` set.
    """
    if limit is None or resource.getrlimit(resource.RLIMIT_AS)[0] != limit:
        return False  # the operator has set a lower limit
    rest = max(limit - _address_space() - _SPARE_BYTES, mmap.PAGESIZE)
    try:
        mmap.mmap(-1, rest, flags=mmap.MAP_PRIVATE).close()
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> None:
    """Serve forks on the socket with this number; the configuration is JSON."""
    # The server ends its workers. They must survive Ctrl-C and `systemctl stop`, which reach every
    # process, until the server has sent its responses.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    configuration = json.loads(arguments[1])
    module, _, name = configuration["decoder"].partition(":")
    with socket.socket(fileno=int(arguments[0])) as control:
        fork_server(control, getattr(importlib.import_module(module), name), configuration)


if __name__ == "__main__":
    main(sys.argv[1:])
