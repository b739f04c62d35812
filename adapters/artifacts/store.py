"""Artefacts that take long to build: built once, checked before every use, and kept on disk.

Bundles, int8 graphs, compiled models and TensorRT engines are all kept by `get_or_build`. An
artefact appears whole or not at all: it is built in a directory of its own, flushed to the disk
and then moved to its place. If several processes need one, only one builds; the others wait and use
the result. The leftovers of a killed process are removed by the next build of the same artefact.
"""

import atexit
import errno
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from filelock import FileLock, Timeout, lock_descriptor

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_PREFIX: Final = "clip-server-"

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL})
"""Errors of file systems without locks, as some network file systems are."""


class Unusable(Exception):
    """An artefact is missing, damaged, out of date or the wrong one; the message says which."""


def get_or_build(
    place: Path,
    *,
    build: Callable[[Path], None],
    validate: Callable[[Path], _T],
    files: Sequence[str] = (),
) -> _T:
    """The artefact at ``place``, built now unless a valid one is there.

    Args:
        place: where the artefact belongs: a directory, or the first of ``files``.
        build: fills an empty directory. Its errors are passed on, and ``place`` is unchanged then.
        validate: checks the artefact at ``place`` and returns it in the form that the caller needs.
        files: for an artefact that consists of single files: their names, in the order in which
            they are moved beside ``place``. The last one must make the others valid. A file that
            ``build`` did not write is unchanged.

    Raises:
        Unusable: even what was built now is not valid.
        OSError: the directory of ``place`` cannot be written.
    """
    try:
        return validate(place)
    except Unusable:
        pass  # the reason may have changed once this process has the lock
    with _locked(place):
        try:
            return validate(place)
        except Unusable as reason:
            if place.exists():
                logger.warning("rebuilding %s: %s", place, reason)
            else:
                logger.info("building %s", place)
        _build(place, build, files)
    return validate(place)


def replace(place: Path, *, build: Callable[[Path], None], files: Sequence[str] = ()) -> None:
    """Build the artefact at ``place`` in any case. Arguments and errors: `get_or_build`."""
    with _locked(place):
        _build(place, build, files)


class Store:
    """The directory that holds a server's artefacts, or none.

    If nothing can be written, the server still runs: the reason is logged once, and artefacts then
    last as long as the process.
    """

    def __init__(self, root: Path | None) -> None:
        """Use a directory; it is created when first needed.

        Args:
            root: CLIP_CACHE_DIR; None keeps nothing.
        """
        self._root = root

    def get_or_build(
        self, key: str, *, build: Callable[[Path], None], validate: Callable[[Path], _T]
    ) -> _T:
        """The artefact of this name, as from the function `get_or_build`.

        Args:
            key: its path below the directory.
            build: see `get_or_build`.
            validate: see `get_or_build`.

        Raises:
            Unusable: even what was built now is not valid.
            OSError: the temporary directory cannot be written either.
        """
        if self._root is not None:
            try:
                return get_or_build(self._root / key, build=build, validate=validate)
            except OSError as failure:
                self.give_up(failure)
        return get_or_build(scratch_directory() / key, build=build, validate=validate)

    def place_of(self, key: str) -> Path | None:
        """Where the artefact of that name is kept; None if nothing is kept."""
        return None if self._root is None else self._root / key

    def give_up(self, failure: OSError) -> None:
        """Log why the directory cannot be written, and stop using it."""
        logger.warning(
            "CLIP_CACHE_DIR=%s cannot be used: %s. Nothing is kept for the next start.",
            self._root,
            reason_of(failure),
        )
        self._root = None


def reason_of(failure: OSError) -> str:
    """The system's reason, and the file or directory that it is about."""
    reason = failure.strerror or str(failure)
    return f"{reason} ({failure.filename})" if failure.filename else reason


@functools.cache
def scratch_directory() -> Path:
    """This process's own directory; removed, with everything in it, when the process ends.

    The directories of killed processes are removed by the next process that needs one. A process
    holds a lock on its own directory for as long as it lives; that is how the others know.

    Raises:
        OSError: there is no temporary directory that can be written.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_if_left_behind(left)
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        _lock_directory(directory)  # never closed: the lock ends with the process
        if directory.is_dir():  # or another process removed it before it was locked
            atexit.register(shutil.rmtree, directory, ignore_errors=True)
            return directory


def _build(place: Path, build: Callable[[Path], None], files: Sequence[str]) -> None:
    prefix = f".{place.name}-"
    for left in place.parent.glob(f"{prefix}*"):  # only a killed process leaves anything
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=prefix) as scratch:
        built = Path(scratch) / "built"
        built.mkdir()
        build(built)
        for file in built.rglob("*"):
            flush(file)
        if files:
            for name in files:
                if (built / name).exists():
                    os.replace(built / name, place.with_name(name))
        else:
            if place.exists():
                place.rename(Path(scratch) / "replaced")
            built.rename(place)
        flush(place.parent)


def flush(path: Path) -> None:
    """Make sure that a file, or a directory's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold the lock of one artefact; its file is gone afterwards."""
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{place}.lock")
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            logger.info("waiting for another process that is building %s", place)
            lock.acquire()
    except OSError as failure:
        if failure.errno not in _NO_LOCKS:
            raise
        logger.warning(
            "%s does not support file locks: two processes may build at once", place.parent
        )
    try:
        yield
    finally:
        if lock.is_locked:
            # Still locked: a waiting process sees that the file is gone and starts over.
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _lock_directory(directory: Path) -> int | None:
    """A descriptor that holds the directory's lock; None if another process holds it."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # another process has just removed it
        return None
    try:
        if lock_descriptor(descriptor, blocking=False):
            return descriptor
    except OSError:  # no locks on this file system, so nothing is known
        pass
    os.close(descriptor)
    return None


def _remove_if_left_behind(directory: Path) -> None:
    descriptor = _lock_directory(directory)
    if descriptor is not None:
        logger.info("removing %s, left behind by a process that was killed", directory)
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)
