"""Keeps the fastest measured runtime in the cache, for later starts."""

import hashlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from adapters.models.precision import Precision
from adapters.system.hardware import processor

_RUNTIMES: Final = ("openvino", "torch")
_DIRECTORY: Final = "measured"


def can_keep(cache: Path) -> bool:
    """Whether a choice can be written to the cache."""
    directory = cache / _DIRECTORY
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK)


def keep_choice(cache: Path, checkpoint: str, precision: Precision, encoder: str) -> None:
    """Keep the fastest runtime on this processor for a checkpoint and precision.

    Raises:
        OSError: the cache cannot be written.
    """
    file = _file(cache, checkpoint, precision)
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_name(f"{file.name}.{os.getpid()}")
    choice = {"checkpoint": checkpoint, "precision": precision, "encoder": encoder}
    written.write_text(json.dumps(choice), encoding="utf-8")
    written.replace(file)


def kept_choice(cache: Path | None, checkpoint: str, precision: Precision) -> str | None:
    """The kept runtime; None if there is none for this processor and these versions."""
    if cache is None:
        return None
    try:
        kept = json.loads(_file(cache, checkpoint, precision).read_text(encoding="utf-8"))
        encoder = kept["encoder"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return encoder if encoder in _RUNTIMES else None


def _file(cache: Path, checkpoint: str, precision: Precision) -> Path:
    """The file of a choice. With another precision, processor or version, another may be faster."""
    found = processor()
    what = [checkpoint, precision, found.name, *found.instructions, *map(_version, _RUNTIMES)]
    digest = hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]
    return cache / _DIRECTORY / f"{digest}.json"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
