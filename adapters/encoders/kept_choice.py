"""Which runtime was measured to be the fastest here, kept in the cache for later starts."""

import hashlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from adapters.system.hardware import processor

_RUNTIMES: Final = ("openvino", "torch")


def keep_choice(cache: Path, checkpoint: str, encoder: str) -> None:
    """Keep the fastest runtime of this processor for a checkpoint.

    Raises:
        OSError: the cache cannot be written.
    """
    file = _file(cache, checkpoint)
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_name(f"{file.name}.{os.getpid()}")
    written.write_text(json.dumps({"checkpoint": checkpoint, "encoder": encoder}), encoding="utf-8")
    written.replace(file)


def kept_choice(cache: Path | None, checkpoint: str) -> str | None:
    """The runtime that was kept; None if none was for this processor and these versions."""
    if cache is None:
        return None
    try:
        encoder = json.loads(_file(cache, checkpoint).read_text(encoding="utf-8"))["encoder"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return encoder if encoder in _RUNTIMES else None


def _file(cache: Path, checkpoint: str) -> Path:
    """Another processor, or another version of a runtime, may be faster with the other one."""
    found = processor()
    what = [checkpoint, found.name, *found.instructions, *map(_version, _RUNTIMES)]
    digest = hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]
    return cache / "measured" / f"{digest}.json"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
