"""What the first bytes of an image file say, read before any decoder sees the file."""

import itertools
import re
from collections.abc import Iterator
from typing import Final

from domain.errors import InvalidImage
from domain.limits import MAX_IMAGE_BLOCKS, MAX_JPEG_SCANS, MAX_JPEG_SEGMENTS

_FORMATS: Final = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("WEBP", re.compile(rb"RIFF.{4}WEBPVP8[ LX]", re.DOTALL)),
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
)
"""(name, offset, first bytes) of formats that people send and that are refused by name."""

_MARKER: Final = re.compile(rb"\xff+([\x01-\xfe])")
"""A marker of ITU-T T.81, B.1.1.2, with its fill bytes; in coded data FF is followed by 00."""

_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment: TEM, RST0 to RST7, SOI."""
_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
_APP1: Final = 0xE1
_MAX_EXIF_BYTES: Final = 0xFFFF
"""What one segment can hold, and EXIF is one by its standard."""

_GIF_EXTENSION: Final = 0x21
_GIF_ENDS: Final = (0x2C, 0x3B)
"""What begins a picture, and what ends the file."""


def format_of(data: bytes) -> str | None:
    """Pillow's name of the decoder for a file, by its first bytes; None if it has none here."""
    return next((name for name, start in _FORMATS if start.match(data)), None)


def other_format_of(data: bytes) -> str | None:
    """What people call the format of a file that is not decoded here; None if it is unknown."""
    return next(
        (name for name, offset, magic in _OTHER_FORMATS if data.startswith(magic, offset)), None
    )


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Pixels of a WebP's width and height (RFC 9649); None where the header is cut or damaged."""
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return _little(data[24:27]) + 1, _little(data[27:30]) + 1
    if kind == b"VP8L" and len(data) >= 25:
        bits = _little(data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(data) >= 30:
        return _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF
    return None


def check_jpeg(data: bytes) -> None:
    """Refuse a JPEG whose structure costs far more to read than its pixels.

    Raises:
        InvalidImage: more scans than `MAX_JPEG_SCANS`, more segments before the first than
            `MAX_JPEG_SEGMENTS`, or more EXIF than fits into a segment.
    """
    # In coded data this pair cannot occur, so that all but odd files are done with by counting.
    many_scans = data.count(b"\xff\xda") > MAX_JPEG_SCANS
    scans = segments = exif_bytes = place = 0
    while found := _MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        if marker == _END_OF_IMAGE and scans:
            return  # what follows, such as an MPO's other pictures, is not decoded
        if marker in _BARE or marker == _END_OF_IMAGE:
            continue
        length = int.from_bytes(data[place : place + 2], "big")
        if marker == _START_OF_SCAN:
            if not many_scans:
                return
            scans += 1
        elif not scans:
            segments += 1
            if marker == _APP1 and data.startswith(b"Exif\0\0", place + 2):
                exif_bytes += length
        place += max(length, 2)
        _check_parts(scans, segments, exif_bytes)


def check_gif(data: bytes) -> None:
    """Refuse a GIF with more than `MAX_IMAGE_BLOCKS` blocks before its first picture.

    Raises:
        InvalidImage: it has more.
    """
    _check_count("GIF", "blocks before its first picture", _gif_blocks(data))


def check_png(data: bytes) -> None:
    """Refuse a PNG of more than `MAX_IMAGE_BLOCKS` chunks.

    Raises:
        InvalidImage: it has more.
    """
    _check_count("PNG", "chunks", _png_chunks(data))


def _gif_blocks(data: bytes) -> Iterator[int]:
    """Where each block before the first picture begins (GIF89a, sections 15 to 26)."""
    flags = data[10] if len(data) > 10 else 0
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while place < len(data) and data[place] not in _GIF_ENDS:
        yield place
        if data[place] == _GIF_EXTENSION:
            place += 2
            while place < len(data) and data[place]:
                yield place
                place += 1 + data[place]
        place += 1


def _png_chunks(data: bytes) -> Iterator[int]:
    """Where each chunk begins (PNG, third edition, section 5.3)."""
    place = 8
    while place < len(data):
        yield place
        place += 12 + int.from_bytes(data[place : place + 4], "big")


def _check_count(name: str, what: str, parts: Iterator[int]) -> None:
    if sum(1 for _ in itertools.islice(parts, MAX_IMAGE_BLOCKS + 1)) > MAX_IMAGE_BLOCKS:
        raise _too_many_parts(name, what, MAX_IMAGE_BLOCKS)


def _check_parts(scans: int, segments: int, exif_bytes: int) -> None:
    for what, count, limit in (
        ("scans", scans, MAX_JPEG_SCANS),
        ("segments before its first scan", segments, MAX_JPEG_SEGMENTS),
        ("bytes of EXIF", exif_bytes, _MAX_EXIF_BYTES),
    ):
        if count > limit:
            raise _too_many_parts("JPEG", what, limit)


def _too_many_parts(name: str, what: str, limit: int) -> InvalidImage:
    return InvalidImage(
        f"image ({name}) has more than {limit} {what}; at most {limit} are allowed.",
        code="too_many_parts",
    )


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
