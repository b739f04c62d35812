"""An engine on disk: what it is said to be, and whether it may be used.

Beside ``NAME.engine`` lies ``NAME.engine.json``, the sidecar. An engine is loaded only when its
sidecar names the very checkpoint, precision, TensorRT and GPU architecture that are wanted, and the
file's bytes are those that were written. Whatever differs, or is missing or damaged, makes it
unusable: it is built anew and never tried.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

logger = logging.getLogger(__name__)

_FORMAT: Final = 1
"""Raised whenever the exported graph or the way it is built changes."""


class EngineUnusable(Exception):
    """The engine is missing, stale, foreign, damaged or not validated; says which."""


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """What makes an engine the right one.

    Attributes:
        fingerprint: of the checkpoint.
        precision: what it computes in, such as ``fp16``.
        tensorrt: name and version of the TensorRT that built it.
        architecture: compute capability of the GPUs it is for, such as ``8.9``.
    """

    fingerprint: str
    precision: str
    tensorrt: str
    architecture: str


@dataclass(frozen=True, slots=True)
class BatchRange:
    """The optimisation profile: images per call."""

    smallest: int
    optimal: int
    largest: int

    @classmethod
    def up_to(cls, largest: int) -> "BatchRange":
        """1 / 4 / ``largest``."""
        return cls(1, min(4, largest), largest)


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What the sidecar says.

    Attributes:
        identity: what makes it the right one.
        batch: how many images it takes at once.
        smallest_cosine: against PyTorch, over the photos it was judged by; None if it never ran.
    """

    identity: EngineIdentity
    batch: BatchRange
    smallest_cosine: float | None


def sidecar(engine: Path) -> Path:
    """Where the engine's description lies."""
    return engine.with_name(engine.name + ".json")


def read_engine(engine: Path, wanted: EngineIdentity) -> tuple[EngineRecord, bytes]:
    """The engine's bytes, if it is the one that is wanted.

    Raises:
        EngineUnusable: it is not; says why.
    """
    described = _described(engine)
    try:
        found = EngineIdentity(**described["identity"])
        batch = BatchRange(**described["batch"])
        size, digest = int(described["bytes"]), str(described["sha256"])
        cosine = described["smallest_cosine"]
        record = EngineRecord(found, batch, None if cosine is None else float(cosine))
    except (KeyError, TypeError, ValueError) as incomplete:
        raise EngineUnusable(f"{sidecar(engine)} is incomplete.") from incomplete
    for name, value in asdict(found).items():
        needed = getattr(wanted, name)
        if value != needed:
            raise EngineUnusable(f"{engine} has {name} {value!r}; {needed!r} is needed.")
    try:
        if engine.stat().st_size != size:  # before a gigabyte is read
            raise EngineUnusable(
                f"{engine} has {engine.stat().st_size} bytes; {size} were written."
            )
        data = engine.read_bytes()
    except OSError as failure:
        raise EngineUnusable(f"{engine} cannot be read: {failure.strerror}.") from failure
    if hashlib.sha256(data).hexdigest() != digest:
        raise EngineUnusable(f"{engine} is damaged: its bytes are not those that were written.")
    return record, data


def disown_engine(engine: Path) -> None:
    """Have the engine built anew: its description was right, and yet it cannot be loaded."""
    with FileLock(f"{engine}.lock"):
        sidecar(engine).unlink(missing_ok=True)


def engine_built_once(
    engine: Path,
    wanted: EngineIdentity,
    *,
    build: Callable[[Path], BatchRange],
    judge: Callable[[bytes], float | None],
) -> EngineRecord:
    """Build the engine unless it is there; of several processes at once only one builds.

    Args:
        engine: where it belongs.
        wanted: what makes it the right one.
        build: makes it at the path it is given and says what for.
        judge: the smallest cosine of an engine's embeddings against PyTorch's, None where it
            cannot be run. What it or ``build`` raises is passed on, and nothing is put in place.

    Raises:
        OSError: the directory cannot be written.
    """
    engine.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{engine}.lock"):
        prefix = f".{engine.name}-"
        for left in engine.parent.glob(f"{prefix}*"):  # by a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=engine.parent, prefix=prefix) as scratch:
            return _built(engine, wanted, Path(scratch) / engine.name, build=build, judge=judge)


def _built(
    engine: Path,
    wanted: EngineIdentity,
    made: Path,
    *,
    build: Callable[[Path], BatchRange],
    judge: Callable[[bytes], float | None],
) -> EngineRecord:
    # Looked at only now: while this process waited for the lock, another may have built it.
    try:
        record, data = read_engine(engine, wanted)
        if record.smallest_cosine is not None:
            return record
        batch = record.batch  # built elsewhere, and judged only now
    except EngineUnusable as reason:
        logger.info("building %s: %s", engine, reason)
        batch = build(made)
        data = made.read_bytes()
    record = EngineRecord(wanted, batch, judge(data))
    described = {
        "format": _FORMAT,
        **asdict(record),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    written = sidecar(made)
    written.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    # Between the two replacements the old sidecar's digest does not fit the new engine, which is
    # therefore not used; it never describes what it does not belong to.
    if made.exists():
        os.replace(made, engine)
    os.replace(written, sidecar(engine))
    return record


def _described(engine: Path) -> dict[str, Any]:
    path = sidecar(engine)
    if not engine.is_file():
        raise EngineUnusable(f"{engine} does not exist.")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineUnusable(f"{path} is missing: nobody knows what this engine is of.") from None
    except (OSError, ValueError) as unreadable:
        raise EngineUnusable(f"{path} cannot be read as JSON: {unreadable}.") from unreadable
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        raise EngineUnusable(f"{path} is not a description of this version.")
    return described
