"""Checksums of files, recorded when they are written and compared before they are used.

A file whose size and modification time are as recorded counts as unchanged. If only the time
differs, as after copying or a checkout, its bytes are compared by their SHA-256.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

CHECKSUMS: Final = "sealed.json"
"""The record of a whole directory, in that directory.

The name is that of earlier versions, so that artefacts which they built stay valid.
"""


def checksums_of(files: Iterable[Path]) -> dict[str, dict[str, int | str]]:
    """What to record of each file, by its name.

    Raises:
        OSError: one cannot be read.
    """
    return {file.name: _checksum(file) for file in sorted(files)}


def what_changed(directory: Path, recorded: object) -> str | None:
    """What is wrong with the files of a directory, or None if they are as recorded.

    Args:
        directory: where the files are.
        recorded: what `checksums_of` returned, read back from wherever it was written.
    """
    if not isinstance(recorded, Mapping) or not recorded:
        return f"{directory} has no record of its files."
    for name, checksum in recorded.items():
        try:
            wrong = _difference(directory / str(name), checksum)
        except OSError as failure:
            return f"{directory / str(name)} cannot be read: {failure.strerror}."
        except (KeyError, TypeError):
            return f"{directory} has a damaged record of its files."
        if wrong:
            return wrong
    return None


def record_checksums(directory: Path) -> None:
    """Record all files of a directory in that directory. Raises OSError."""
    recorded = checksums_of(file for file in directory.iterdir() if file.is_file())
    (directory / CHECKSUMS).write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")


def what_changed_in(directory: Path) -> str | None:
    """What is wrong with a directory that `record_checksums` has recorded; None if nothing is."""
    if not directory.exists():
        return f"{directory} does not exist."
    try:
        recorded: Any = json.loads((directory / CHECKSUMS).read_text(encoding="utf-8"))
        found = {file.name for file in directory.iterdir()} - {CHECKSUMS}
    except (OSError, ValueError) as unreadable:
        return f"{directory / CHECKSUMS} cannot be read: {unreadable}."
    wrong = what_changed(directory, recorded)
    if wrong is None and (others := found - set(recorded)):
        return f"{directory} also holds {', '.join(sorted(others))}."
    return wrong


def _checksum(file: Path) -> dict[str, int | str]:
    # The time comes before the bytes: a file that is changed meanwhile then has another time.
    status = file.stat()
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"bytes": status.st_size, "sha256": digest, "mtime_ns": status.st_mtime_ns}


def _difference(file: Path, recorded: Mapping[str, int | str]) -> str | None:
    status = file.stat()
    if status.st_size != recorded["bytes"]:
        return f"{file} has {status.st_size} bytes; {recorded['bytes']} were recorded."
    if status.st_mtime_ns != recorded["mtime_ns"]:
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != recorded["sha256"]:
                return f"{file} was changed: its bytes are not those that were recorded."
    return None
