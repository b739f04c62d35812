"""Detects loads that crash the process: a mark file exists while an engine is loaded and first
used.

A process cannot catch its own crash, but it leaves the mark, ``NAME.engine.loading.json``, for the
next process.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from filelock import lock_descriptor

from adapters.artifacts.store import reason_of
from adapters.encoders.tensorrt.engine_file import EngineIdentity

logger = logging.getLogger(__name__)

CRASHES_ALLOWED: Final = 1
"""Loads in a row that may end the process: a single one may be a ``kill -9``, a lack of memory or a
power cut."""


def mark_file(engine: Path) -> Path:
    """The file that marks an engine as being loaded."""
    return engine.with_name(engine.name + ".loading.json")


@contextmanager
def attempt(engine: Path, identity: EngineIdentity) -> Iterator[int]:
    """Mark an engine while it is loaded and first used; yields how many marks were left in a row.

    The mark is locked for as long as its process lives, however the process ends. So a locked mark
    belongs to a load in progress and does not count. An exception removes the mark, since the
    process survived. If no mark can be written, the engine is loaded without one, and this yields
    0.

    Args:
        engine: the engine's file.
        identity: of the engine; marks of other engines do not count.
    """
    place = mark_file(engine)
    descriptor, ended = None, 0
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        if lock_descriptor(descriptor, blocking=False):
            ended = _left_behind(descriptor, identity)
            _write(descriptor, identity, ended + 1)
        else:  # another process is loading it; its mark counts for both
            os.close(descriptor)
            descriptor = None
    except OSError as failure:  # a read-only directory, or a file system without locks
        logger.info("%s cannot be written: %s", place, reason_of(failure))
        if descriptor is not None:
            os.close(descriptor)
            descriptor = None
    try:
        yield ended
    finally:
        if descriptor is not None:
            with suppress(OSError):
                place.unlink()
            os.close(descriptor)


def _left_behind(descriptor: int, identity: EngineIdentity) -> int:
    """Loads of this engine in a row that did not finish."""
    try:
        described = json.loads(os.read(descriptor, 2**16))
        return int(described["loads"]) if described["identity"] == asdict(identity) else 0
    except (ValueError, KeyError, TypeError):
        return 0  # it is new, or its process ended while writing it


def _write(descriptor: int, identity: EngineIdentity, loads: int) -> None:
    described = {"identity": asdict(identity), "loads": loads}
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps(described, indent=2).encode() + b"\n")
    os.fsync(descriptor)  # a driver crash may crash the whole machine
