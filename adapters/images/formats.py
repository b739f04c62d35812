"""Detects a file's format by its first bytes, and holds the common parts of all readers.

Each format has a reader in a module of its own. It walks the file's structure once, in time that
grows no faster than the file, and keeps only the parts that affect the pixels. So damaged, huge or
absurd metadata never reaches a decoder.
"""

import re
from dataclasses import dataclass
from typing import Final

from domain.errors import InvalidImage
from domain.limits import IMAGE_FORMATS

_FORMATS: Final = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("WEBP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("BMP", re.compile(rb"BM")),
)
"""(Pillow's name, first bytes) of supported formats. An MPO is also a JPEG and begins like one."""

_OTHER_FORMATS: Final = (
    ("TIFF", 0, b"II*\x00"),
    ("TIFF", 0, b"MM\x00*"),
    ("AVIF", 4, b"ftypavif"),
    ("HEIC", 4, b"ftyphei"),
    ("HEIC", 4, b"ftypmif1"),
    ("MP4", 4, b"ftyp"),
    ("JPEG 2000", 0, b"\x00\x00\x00\x0cjP  "),
    ("JPEG XL", 0, b"\x00\x00\x00\x0cJXL "),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("ICO", 0, b"\x00\x00\x01\x00"),
    ("PSD", 0, b"8BPS"),
    ("PDF", 0, b"%PDF"),
    ("SVG", 0, b"<svg"),
    ("an OS/2 bitmap array", 0, b"BA"),
)
"""(name, offset, first bytes) of common formats that are refused by name."""


@dataclass(frozen=True, slots=True)
class EssentialFile:
    """The parts of an image file that its first picture needs.

    Attributes:
        data: a file of the same format, without metadata.
        width: pixels across the canvas that the decoder allocates.
        height: pixels down that canvas.
        orientation: EXIF's, from 1 to 8; 1 if there is none.
    """

    data: bytes
    width: int
    height: int
    orientation: int = 1


def checked_format(data: bytes) -> str:
    """Pillow's name for a file's format, by its first bytes.

    Raises:
        InvalidImage: it is not supported (``unsupported_format``) or not known (``not_an_image``).
    """
    found = next((name for name, start in _FORMATS if start.match(data)), None)
    if found is not None:
        return found
    allowed = ", ".join(IMAGE_FORMATS)
    if (other := _other_format_of(data)) is not None:
        raise InvalidImage(f"image is {other}; only {allowed} are allowed.", code=_UNSUPPORTED)
    raise InvalidImage(
        f"image is not an image file that can be read; {allowed} are allowed.",
        code="not_an_image",
    )


_UNSUPPORTED: Final = "unsupported_format"


def damaged(name: str, what: str) -> InvalidImage:
    """The error for a file that is cut off or breaks its format's rules."""
    return InvalidImage(f"image ({name}) is truncated or damaged: {what}.", code="damaged_image")


def unsupported(name: str, what: str) -> InvalidImage:
    """The error for a valid file in an unsupported form."""
    return InvalidImage(f"image ({name}) is {what}, which is not supported.", code=_UNSUPPORTED)


def too_many_pixels(width: int, height: int, limit: int) -> InvalidImage:
    """The error for a picture with too many pixels to decode."""
    return InvalidImage(
        f"image has {width * height} pixels to decode ({width} x {height}); "
        f"at most {limit} are allowed.",
        code="too_many_pixels",
    )


def too_many_parts(name: str, what: str, limit: int) -> InvalidImage:
    """The error for a file with too many parts in its structure."""
    return InvalidImage(
        f"image ({name}) has more than {limit} {what}; at most {limit} are allowed.",
        code="too_many_parts",
    )


def _other_format_of(data: bytes) -> str | None:
    return next(
        (name for name, offset, magic in _OTHER_FORMATS if data.startswith(magic, offset)), None
    )
