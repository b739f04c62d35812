"""An engine on disk: what it was built for, and whether it may be used.

Beside ``NAME.engine`` there is ``NAME.engine.json``, the sidecar. An engine is loaded only if its
sidecar names the checkpoint, precision, TensorRT and GPU architecture that are wanted, and if the
file's bytes are those that were written. An engine that differs, is incomplete or is damaged is
rebuilt and never tried.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from adapters.artifacts.store import Unusable, get_or_build

_T = TypeVar("_T")

_FORMAT: Final = 1
"""Raised whenever the exported graph or the way it is built changes."""


class EngineUnusable(Unusable):
    """The engine is missing, out of date, another's, damaged or was never compared; says which."""


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
        smallest_cosine: against PyTorch, over the photos that it was compared on; None if it was
            never run.
    """

    identity: EngineIdentity
    batch: BatchRange
    smallest_cosine: float | None


def sidecar(engine: Path) -> Path:
    """Where the engine's description is."""
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


def get_or_build_engine(
    engine: Path,
    wanted: EngineIdentity,
    *,
    build: Callable[[Path], BatchRange],
    compare: Callable[[bytes], float | None],
    load: Callable[[EngineRecord, bytes], _T],
) -> _T:
    """The engine, loaded; built now unless it is there. Of several processes only one builds.

    Args:
        engine: where it belongs.
        wanted: what makes it the right one.
        build: builds it at the path it is given and says for how many images.
        compare: the smallest cosine of an engine's embeddings against PyTorch's, None where it
            cannot be run. What it or ``build`` raises is passed on, and nothing is put in place.
        load: makes of the engine what the caller needs; raises EngineUnusable if it must be
            compared, or built again, first.

    Raises:
        EngineUnusable: not even the engine that was built now can be loaded.
        OSError: the directory cannot be written.
    """

    def validate(place: Path) -> _T:
        return load(*read_engine(place, wanted))

    def fill(directory: Path) -> None:
        built = directory / engine.name
        try:
            record, data = _read_uncompared(engine, wanted)
            cosine = compare(data)
            batch = record.batch
        except EngineUnusable:
            batch = build(built)
            data = built.read_bytes()
            cosine = compare(data)
        described = {
            "format": _FORMAT,
            **asdict(EngineRecord(wanted, batch, cosine)),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        sidecar(built).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")

    # Between the two replacements the old sidecar's digest does not fit the new engine, which is
    # therefore not used: a sidecar never describes an engine that it does not belong to.
    return get_or_build(
        engine, build=fill, validate=validate, files=(engine.name, sidecar(engine).name)
    )


def _read_uncompared(engine: Path, wanted: EngineIdentity) -> tuple[EngineRecord, bytes]:
    """An engine that was built elsewhere and only has to be compared."""
    record, data = read_engine(engine, wanted)
    if record.smallest_cosine is not None:
        raise EngineUnusable(f"{engine} was compared and yet could not be loaded.")
    return record, data


def _described(engine: Path) -> dict[str, Any]:
    path = sidecar(engine)
    if not engine.is_file():
        raise EngineUnusable(f"{engine} does not exist.")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineUnusable(f"{path} is missing: nothing is known of this engine.") from None
    except (OSError, ValueError) as unreadable:
        raise EngineUnusable(f"{path} cannot be read as JSON: {unreadable}.") from unreadable
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        raise EngineUnusable(f"{path} was not written by this version.")
    return described
