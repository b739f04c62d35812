"""Reads an image from a path, and tells what else a text in its place may be."""

import base64
import binascii
import os
from pathlib import Path
from typing import Final

from clip_client.errors import InvalidInput

_SHOWN: Final = 60
"""Characters of a text that a message repeats."""

_FIRST_BYTES: Final = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM")
"""How files of the formats that the server decodes begin."""


def read_path(path: str | os.PathLike[str]) -> bytes:
    """The file's bytes.

    Raises:
        InvalidInput: it is not a path but an address, a data URI or base64, or it holds characters
            that no path may have.
        OSError: the file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as failure:
        text = os.fspath(path)
        if (problem := _what_it_is_instead(text)) is not None:
            raise InvalidInput(problem) from failure
        if isinstance(failure, OSError):
            raise
        shown = ascii(text[:_SHOWN])
        raise InvalidInput(f"{shown} cannot be a path: {failure}.") from failure


def _what_it_is_instead(text: str) -> str | None:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    lower = text[:10].lower()
    if lower.startswith(("http://", "https://", "rtsp://", "ftp://")):
        return (
            f"{shown!a} is an address, and the client reads files only; fetch it and pass "
            "its bytes."
        )
    if lower.startswith("data:"):
        return f"{shown!a} is a data URI; pass the bytes: base64.b64decode(uri.partition(',')[2])."
    try:
        begins = base64.b64decode(text[:16], validate=True)
    except (binascii.Error, ValueError):
        return None
    if begins.startswith(_FIRST_BYTES):
        return f"{shown!a} is base64, not a path; pass the bytes: base64.b64decode(text)."
    return None
