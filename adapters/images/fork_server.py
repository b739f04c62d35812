"""The server's end of the process that forks decoding workers."""

import fcntl
import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from adapters.images.decoding_worker import END, FORK, ORDER, RESULT

_PATIENCE_S: Final = 60.0
"""Time limit for an order, which takes milliseconds; the first one also waits for the imports."""

_ENVIRONMENT: Final = {
    # No threads, since it must fork, and so no arenas for them.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    # A large picture's memory is returned to the system at once.
    "MALLOC_MMAP_THRESHOLD_": str(4 * 1024 * 1024),
    # A normal camera picture's memory is kept: returning its pages and getting new ones took as
    # long as decoding it.
    "MALLOC_TRIM_THRESHOLD_": str(32 * 1024 * 1024),
}
_HANDED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "HOME", "TMPDIR")
"""The only environment variables that the processes get: decoders need no keys."""


class ForkServerLost(ConnectionError):
    """The process has ended, and its workers with it."""


class ForkServer:
    """A process that starts workers, since forking this multi-threaded process is not safe.

    Thread-safe. It is started at once, and orders wait until it is ready.
    """

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        """Start it.

        Args:
            configuration: as `decoding_worker` reads it: ``decoder``, ``options``,
                ``memory_bytes`` and ``cpu_s``.

        Raises:
            OSError: there is no room for a process, or for its files.
        """
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_PATIENCE_S)
        program = [sys.executable, "-m", "adapters.images.decoding_worker"]
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our module
                    [*program, str(theirs.fileno()), json.dumps(dict(configuration))],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # out of reach of the terminal's Ctrl-C
                    env={
                        **{name: os.environ[name] for name in _HANDED_ON if name in os.environ},
                        **_ENVIRONMENT,
                        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    },
                )
        except BaseException:
            self._control.close()
            raise
        # Called by `close`, or else when this object or the program ends.
        self._end = weakref.finalize(self, _end, self._control, self._process)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def fork(self, files: tuple[int, int]) -> int:
        """A new worker's process id.

        Args:
            files: the worker's end of a socket, and the memory for pixels.

        Raises:
            ForkServerLost: this process has ended.
            OSError: no worker can be started.
        """
        return self._ordered(FORK, 0, files)

    def end(self, pid: int) -> int | None:
        """End a worker and forget it.

        Returns:
            Its earlier exit status, negative for a signal, or ``-SIGKILL``; None if unknown.
        """
        try:
            return self._ordered(END, pid, ())
        except OSError:
            return None

    def close(self) -> None:
        """End it and its workers."""
        self._end()

    def _ordered(self, order: bytes, pid: int, files: tuple[int, ...]) -> int:
        message = ORDER.pack(order, pid)
        with self._lock:
            try:
                if files:
                    socket.send_fds(self._control, [message], files)
                else:
                    self._control.sendall(message)
                reply = self._control.recv(RESULT.size)
            except (ConnectionError, TimeoutError) as lost:
                raise ForkServerLost from lost
            except OSError as failure:
                if self._control.fileno() < 0:  # another thread noticed the loss and closed it
                    raise ForkServerLost from failure
                raise
        if len(reply) < RESULT.size:
            raise ForkServerLost
        result: int
        result, error = RESULT.unpack(reply)
        if error:
            raise OSError(error, os.strerror(error))
        return result


def shared_memory(size: int) -> tuple[int, mmap.mmap]:
    """Memory for a worker's pixels: a file descriptor to pass on, and this process's view.

    On Linux it is a file without a name, so that a container's small ``/dev/shm`` or read-only file
    system does not matter. Neither end can shrink it, since that would crash the reader.

    Raises:
        OSError: there is no room, or there are no more file descriptors.
    """
    if sys.platform == "linux":
        file = os.memfd_create("clip-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    try:
        os.ftruncate(file, size)
        if sys.platform == "linux":
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return file, mmap.mmap(file, size)
    except BaseException:
        os.close(file)
        raise


def _end(control: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    control.close()
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()
