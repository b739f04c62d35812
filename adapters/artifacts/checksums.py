"""Files recorded as they were written, so that what was changed since is never taken for them.

A file whose size and time of change are the recorded ones is taken for unchanged; where only the
time differs, as after copying or a checkout, its bytes are compared by their SHA-256.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

SEAL: Final = "sealed.json"


def seals_of(files: Iterable[Path]) -> dict[str, dict[str, int | str]]:
    """What to record of each file, by its name.

    Raises:
        OSError: one cannot be read.
    """
    return {file.name: _seal(file) for file in sorted(files)}


def broken_seal(directory: Path, seals: object) -> str | None:
    """What is wrong with the files of a directory, or None if they are what was recorded.

    Args:
        directory: where they lie.
        seals: what `seals_of` made of them, read back from wherever it was written.
    """
    if not isinstance(seals, Mapping) or not seals:
        return f"{directory} has no record of its files."
    for name, seal in seals.items():
        try:
            wrong = _wrong(directory / str(name), seal)
        except OSError as failure:
            return f"{directory / str(name)} cannot be read: {failure.strerror}."
        except (KeyError, TypeError):
            return f"{directory} has a damaged record of its files."
        if wrong:
            return wrong
    return None


def seal_directory(directory: Path) -> None:
    """Record all files of a directory in it. Raises OSError."""
    seals = seals_of(file for file in directory.iterdir() if file.is_file())
    (directory / SEAL).write_text(json.dumps(seals, indent=2) + "\n", encoding="utf-8")


def broken_directory(directory: Path) -> str | None:
    """What is wrong with a directory that `seal_directory` has sealed; None if nothing is."""
    try:
        seals: Any = json.loads((directory / SEAL).read_text(encoding="utf-8"))
        found = {file.name for file in directory.iterdir()} - {SEAL}
    except (OSError, ValueError) as unreadable:
        return f"{directory / SEAL} cannot be read: {unreadable}."
    wrong = broken_seal(directory, seals)
    if wrong is None and (others := found - set(seals)):
        return f"{directory} also holds {', '.join(sorted(others))}."
    return wrong


def _seal(file: Path) -> dict[str, int | str]:
    # Looked at before it is read: what is changed meanwhile then has another time.
    status = file.stat()
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"bytes": status.st_size, "sha256": digest, "mtime_ns": status.st_mtime_ns}


def _wrong(file: Path, seal: Mapping[str, int | str]) -> str | None:
    status = file.stat()
    if status.st_size != seal["bytes"]:
        return f"{file} has {status.st_size} bytes; {seal['bytes']} were recorded."
    if status.st_mtime_ns != seal["mtime_ns"]:
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != seal["sha256"]:
                return f"{file} is not the file that was recorded: its bytes were changed."
    return None
