"""An engine on disk: what it was built for, and whether it may be used.

Beside ``NAME.engine`` there is ``NAME.engine.json``, the sidecar. An engine is loaded only if its
sidecar matches (see `EngineIdentity`) and the file's bytes are unchanged. An engine that differs,
is incomplete or is damaged is rebuilt and never loaded.

An engine that computes wrong results or fails is disowned: ``NAME.engine.refused.json`` says why
and records its identity. No engine of that identity is built or loaded again.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from adapters.artifacts.store import Unusable, get_or_build
from application.ports import RawEmbeddings

_T = TypeVar("_T")

_FORMAT: Final = 2
"""Raised whenever the exported graph or the way it is built changes."""

ANY: Final = "any"
"""The value of a part of the identity that does not matter for an engine."""

_FEW: Final = 4
"""Most images of a small call; small calls have their own kernels."""


class EngineUnusable(Unusable):
    """The engine is missing, out of date, the wrong one, damaged or never compared; says which."""


class EngineRefused(EngineUnusable):
    """An engine of this identity was disowned; says why. Building it again would not help."""


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """Everything that must match for an engine to be used.

    Attributes:
        fingerprint: of the checkpoint.
        precision: of its computation, such as ``fp16``.
        tensorrt: name and version of the TensorRT that built it.
        architecture: compute capability of the GPUs it is for, such as ``8.9``.
        card: name and multiprocessors of the GPU it is for. Kernels are chosen by measuring them,
            and the best one for a card may not even run on another card of its generation. `ANY`
            for TensorRT for RTX, which chooses at run time.
        driver: major version of the driver used for the measurements; `ANY` for TensorRT for RTX.
        opset: of the graph it was built from.
        largest_batch: most images per call; an engine for more matches too.
    """

    fingerprint: str
    precision: str
    tensorrt: str
    architecture: str
    card: str
    driver: str
    opset: int
    largest_batch: int


@dataclass(frozen=True, slots=True)
class BatchRange:
    """How many images a call may have, and the sizes that kernels are chosen for.

    Attributes:
        largest: most images of one call.
    """

    largest: int

    @property
    def profiles(self) -> tuple[tuple[int, int, int], ...]:
        """Smallest, best and largest batch of each optimisation profile; together 1 to `largest`.

        The first is for a single request, and the second, if there is one, for a full batch.
        """
        if self.largest <= _FEW:
            return ((1, 1, self.largest),)
        return (1, 1, _FEW), (_FEW + 1, self.largest, self.largest)

    @property
    def judged(self) -> tuple[int, ...]:
        """The batch sizes at which an engine is compared: each profile's three sizes, and 3.

        An engine may be correct for one image and wrong for several (TensorRT's issue 4853).
        """
        sizes = {size for profile in self.profiles for size in profile} | {min(3, self.largest)}
        return tuple(sorted(sizes))


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """The record that an engine agrees with PyTorch, with the data to check it again.

    Attributes:
        smallest_cosine: against PyTorch, over all samples and batch sizes.
        expected: PyTorch's embeddings of the first samples, float32 ``[n, dimension]``.
    """

    smallest_cosine: float
    expected: RawEmbeddings


@dataclass(frozen=True, slots=True, eq=False)
class EngineRecord:
    """The content of the sidecar.

    Attributes:
        identity: see `EngineIdentity`.
        fused_attention: whether TensorRT may use one kernel for all of an attention.
        judgement: None if it was never run.
    """

    identity: EngineIdentity
    fused_attention: bool
    judgement: Judgement | None

    @property
    def batch(self) -> BatchRange:
        """How many images it takes at once."""
        return BatchRange(self.identity.largest_batch)


def sidecar(engine: Path) -> Path:
    """The file with the engine's description."""
    return engine.with_name(engine.name + ".json")


def refusal_file(engine: Path) -> Path:
    """The file that says why there is no engine."""
    return engine.with_name(engine.name + ".refused.json")


def describes(engine: Path, *, fingerprint: str, precision: str) -> bool:
    """Whether there is an engine for this checkpoint by its sidecar, current or not."""
    try:
        identity = _described(engine)["identity"]
        return bool(identity["fingerprint"] == fingerprint and identity["precision"] == precision)
    except (EngineUnusable, KeyError, TypeError):
        return False


def disown(engine: Path, identity: EngineIdentity, reason: str) -> None:
    """Record that no engine of this identity may be used.

    Raises:
        OSError: the directory cannot be written.
    """
    described = {"format": _FORMAT, "identity": asdict(identity), "reason": reason}
    engine.parent.mkdir(parents=True, exist_ok=True)
    place = refusal_file(engine)
    scratch = place.with_name(place.name + ".new")
    scratch.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    scratch.replace(place)


def check_not_disowned(engine: Path, wanted: EngineIdentity) -> None:
    """Return unless an engine of this identity was disowned.

    Raises:
        EngineRefused: it was; says why.
    """
    place = refusal_file(engine)
    try:
        described = json.loads(place.read_text(encoding="utf-8"))
        identity, reason = described["identity"], str(described["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # there is no such file, or it is unreadable
    if described.get("format") == _FORMAT and identity == asdict(wanted):
        raise EngineRefused(f"{reason} It is not retried; to retry it, delete {place}.")


def read_engine(engine: Path, wanted: EngineIdentity) -> tuple[EngineRecord, bytes]:
    """The engine's bytes, if it is the right one.

    Raises:
        EngineRefused: such an engine was disowned; says why.
        EngineUnusable: it is not the right one; says why.
    """
    check_not_disowned(engine, wanted)
    described = _described(engine)
    try:
        found = EngineIdentity(**described["identity"])
        size, digest = int(described["bytes"]), str(described["sha256"])
        record = EngineRecord(
            found, bool(described["fused_attention"]), _judgement(described["judgement"])
        )
        larger = int(found.largest_batch) >= wanted.largest_batch
    except (KeyError, TypeError, ValueError) as incomplete:
        raise EngineUnusable(f"{sidecar(engine)} is incomplete.") from incomplete
    for name, value in asdict(found).items():
        needed = getattr(wanted, name)
        if value != needed and not (name == "largest_batch" and larger):
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
    make: Callable[[Path], EngineRecord],
    judge: Callable[[EngineRecord, bytes], EngineRecord],
    load: Callable[[EngineRecord, bytes], _T],
) -> _T:
    """The loaded engine; it is built now if it does not exist. Only one of several processes
    builds.

    Args:
        engine: where it belongs.
        wanted: what makes it the right one.
        make: builds it at the given path, compares it with PyTorch and describes it. If it or
            ``judge`` raises, the error is passed on, and nothing is put in place.
        judge: compares one that was built elsewhere.
        load: turns the engine into the caller's form; raises EngineUnusable if it must be compared
            or built again first.

    Raises:
        EngineRefused: such an engine was disowned.
        EngineUnusable: even the new engine cannot be loaded.
        OSError: the directory cannot be written.
    """
    check_not_disowned(engine, wanted)

    def validate(place: Path) -> _T:
        return load(*read_engine(place, wanted))

    def fill(directory: Path) -> None:
        check_not_disowned(engine, wanted)  # by another process, while this one waited
        built = directory / engine.name
        try:
            record, data = _read_uncompared(engine, wanted)
            record = judge(record, data)
        except EngineUnusable:
            record = make(built)
            data = built.read_bytes()
        described = {
            "format": _FORMAT,
            "identity": asdict(record.identity),
            "fused_attention": record.fused_attention,
            "judgement": _as_json(record.judgement),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        sidecar(built).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")

    # Between the two replacements, the old sidecar's digest does not match the new engine, so the
    # engine is not used. A sidecar never describes an engine that it does not belong to.
    return get_or_build(
        engine, build=fill, validate=validate, files=(engine.name, sidecar(engine).name)
    )


def _read_uncompared(engine: Path, wanted: EngineIdentity) -> tuple[EngineRecord, bytes]:
    """An engine that was built elsewhere and only needs a comparison."""
    record, data = read_engine(engine, wanted)
    if record.judgement is not None:
        raise EngineUnusable(f"{engine} was compared but could not be loaded.")
    return record, data


def _as_json(judgement: Judgement | None) -> dict[str, Any] | None:
    if judgement is None:
        return None
    rows = np.ascontiguousarray(judgement.expected, dtype="<f4")
    return {
        "smallest_cosine": judgement.smallest_cosine,
        "rows": len(rows),
        "expected": base64.b64encode(rows.tobytes()).decode("ascii"),
    }


def _judgement(described: Any) -> Judgement | None:
    """Raises KeyError, TypeError or ValueError if it is incomplete."""
    if described is None:
        return None
    rows = int(described["rows"])
    numbers = np.frombuffer(base64.b64decode(described["expected"], validate=True), dtype="<f4")
    expected = numbers.reshape(rows, -1).astype(np.float32)
    if not (expected.size and np.isfinite(expected).all()):
        raise ValueError("the expected embeddings are incomplete")
    return Judgement(float(described["smallest_cosine"]), expected)


def _described(engine: Path) -> dict[str, Any]:
    path = sidecar(engine)
    if not engine.is_file():
        raise EngineUnusable(f"{engine} does not exist.")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineUnusable(f"{path} is missing: nothing is known about this engine.") from None
    except (OSError, ValueError) as unreadable:
        raise EngineUnusable(f"{path} cannot be read as JSON: {unreadable}.") from unreadable
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        raise EngineUnusable(f"{path} was not written by this version.")
    return described
