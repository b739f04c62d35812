"""Reads the small files that describe a checkpoint, and makes errors for unreadable files."""

import json
import os
from pathlib import Path
from typing import Any, Final

_LARGEST_DESCRIPTION: Final = 1024 * 1024
"""Most bytes of a file that describes a checkpoint; real ones have a few thousand."""

_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
"""The beginning of every Git LFS pointer (git-lfs, docs/spec.md)."""


class InvalidCheckpoint(Exception):
    """The checkpoint is missing, damaged or cannot be served; the message says which and why."""


def read_description(path: Path) -> Any:
    """The content of a JSON file beside the weights.

    Raises:
        InvalidCheckpoint: it cannot be read, is not JSON, or is too large.
    """
    content = read_small_file(path, largest=_LARGEST_DESCRIPTION)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as malformed:  # the latter if it is nested too deeply
        raise InvalidCheckpoint(f"{path} is not valid JSON: {malformed}") from malformed


def read_small_file(path: Path, *, largest: int) -> bytes:
    """The complete content of a file.

    Raises:
        InvalidCheckpoint: it cannot be read, or has more than ``largest`` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as failure:
        raise unreadable(path, failure) from failure
    check_not_a_pointer(path, content)
    if len(content) > largest:
        raise InvalidCheckpoint(
            f"{path} has more than {largest} bytes, the limit for this kind of file."
        )
    return content


def unreadable(path: Path, failure: OSError) -> InvalidCheckpoint:
    """The error for a file or directory of a checkpoint that cannot be read."""
    if isinstance(failure, FileNotFoundError):
        return InvalidCheckpoint(f"{path} does not exist.")
    advice = ""
    if isinstance(failure, PermissionError):
        user = f"user {os.geteuid()}" if hasattr(os, "geteuid") else "the user"
        advice = (
            f" Allow {user}, which this process runs as, to read it and to enter the directories "
            "above it."
        )
    return InvalidCheckpoint(f"{path} cannot be read: {failure.strerror or failure}.{advice}")


def check_not_a_pointer(path: Path, beginning: bytes) -> None:
    """Refuse a Git LFS pointer; a clone without Git LFS has one instead of a large file.

    Args:
        path: of the file.
        beginning: its first bytes.

    Raises:
        InvalidCheckpoint: it is a Git LFS pointer.
    """
    if beginning.startswith(_LFS_POINTER):
        raise InvalidCheckpoint(
            f"{path} is a Git LFS pointer, not the file itself. Install git-lfs and run "
            f"`git lfs pull` in {path.parent}, or download the file."
        )
