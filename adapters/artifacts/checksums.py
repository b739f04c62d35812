"""Checksums of files, recorded when they are written and compared before they are used.

A file with the recorded size and modification time counts as unchanged. If only the time differs,
as after copying or a checkout, the SHA-256 of its bytes is compared.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

CHECKSUMS: Final = "sealed.json"
"""The record of a whole directory, in that directory.

The name is the same as in earlier versions, so that artefacts built by them stay valid.
"""


def checksums_of(files: Iterable[Path]) -> dict[str, dict[str, int | str]]:
    """The checksums to record, by file name.

    Raises:
        OSError: one cannot be read.
    """
    return {file.name: _checksum(file) for file in sorted(files)}


def what_changed(directory: Path, recorded: object) -> str | None:
    """The problem with a directory's files; None if they match the record.

    Args:
        directory: where the files are.
        recorded: the result of `checksums_of`, read back from wherever it was stored.
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
    """The problem with a directory that `record_checksums` has recorded; None if there is none."""
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
    # The time is read before the bytes: a file that changes meanwhile then has a different time.
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
