"""Which format a file is in, told by its first bytes, and what is common to reading all of them.

Each format has a reader in a module of its own. It walks the file's structure once, in time that
grows no faster than the file, and keeps only what the pixels depend on. So damaged, huge or absurd
metadata never reaches a decoder.
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
"""(Pillow's name, first bytes) of what is decoded. An MPO begins as the JPEG that it also is."""

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
"""(name, offset, first bytes) of formats that people send and that are refused by name."""


@dataclass(frozen=True, slots=True)
class EssentialFile:
    """What of an image file its first picture depends on.

    Attributes:
        data: a file of the same format, without metadata.
        width: pixels of the canvas across, as the decoder makes room for them.
        height: pixels of the canvas down.
        orientation: EXIF's, from 1 to 8; 1 where there is none.
    """

    data: bytes
    width: int
    height: int
    orientation: int = 1


def checked_format(data: bytes) -> str:
    """Pillow's name of the format that a file begins like.

    Raises:
        InvalidImage: it is not decoded here (``unsupported_format``) or not known
            (``not_an_image``).
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
    """The error for a file that is cut off or against its format's rules."""
    return InvalidImage(f"image ({name}) is truncated or damaged: {what}.", code="damaged_image")


def unsupported(name: str, what: str) -> InvalidImage:
    """The error for a valid file in a form that cannot be decoded here."""
    return InvalidImage(f"image ({name}) is {what}, which is not supported.", code=_UNSUPPORTED)


def too_many_pixels(width: int, height: int, limit: int) -> InvalidImage:
    """The error for a picture that would take too much room to decode."""
    return InvalidImage(
        f"image has {width * height} pixels to decode ({width} x {height}); "
        f"at most {limit} are allowed.",
        code="too_many_pixels",
    )


def too_many_parts(name: str, what: str, limit: int) -> InvalidImage:
    """The error for a file whose structure costs more to read than its pixels."""
    return InvalidImage(
        f"image ({name}) has more than {limit} {what}; at most {limit} are allowed.",
        code="too_many_parts",
    )


def _other_format_of(data: bytes) -> str | None:
    return next(
        (name for name, offset, magic in _OTHER_FORMATS if data.startswith(magic, offset)), None
    )
