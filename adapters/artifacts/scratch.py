"""Directories to make things in, of which nothing is left behind, whatever kills their process."""

import atexit
import fcntl
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

_PREFIX: Final = "clip-server-"


@functools.cache
def scratch_directory() -> Path:
    """This process's own directory; removed, with all that is in it, when the process ends.

    Those of processes that were killed are removed by the next one that needs one. A process keeps
    a lock on its own for as long as it lives, by which others know.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_if_left(left)
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        _lock(directory, wait=True)  # for good: the system lets go of it when the process ends
        if directory.is_dir():  # else another process took it for left over before it was locked
            atexit.register(shutil.rmtree, directory, ignore_errors=True)
            return directory


@contextmanager
def making_in(parent: Path, prefix: str) -> Iterator[Path]:
    """A directory to make something in, which is then moved to its place in ``parent``.

    Of several processes only one is inside at a time, so that what others have left there under
    the same prefix can only be of one that was killed; it is removed.

    Args:
        parent: where things are kept; made if need be.
        prefix: of the name of the directory.

    Raises:
        OSError: it cannot be written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(parent, wait=True)
    try:
        if lock is not None:
            for left in parent.glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as scratch:
            yield Path(scratch)
    finally:
        if lock is not None:
            os.close(lock)


def put_in_place(made: Path, place: Path) -> None:
    """Move a directory to where it belongs; what is there gives way. Inside of `making_in`.

    Raises:
        OSError: it cannot be moved.
    """
    if place.exists():
        place.rename(made.with_name(f"{made.name}-replaced"))
    made.rename(place)


def _lock(directory: Path, *, wait: bool) -> int | None:
    """An open descriptor that holds the lock; None where another has it or there are no locks."""
    descriptor = None
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # network file systems may have no locks
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def _remove_if_left(directory: Path) -> None:
    lock = _lock(directory, wait=False)
    if lock is not None:
        logger.info("removing %s, left by a process that was killed", directory)
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)
