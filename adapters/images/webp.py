"""WebP files: extracts the first picture without metadata."""

import itertools
from collections.abc import Iterator
from typing import Final

from adapters.images.exif import orientation_of
from adapters.images.formats import EssentialFile, damaged
from domain.limits import MAX_EXIF_BYTES, MAX_IMAGE_BLOCKS

_NAME: Final = "WEBP"
_LOSSY, _LOSSLESS, _ALPHA, _FRAME = b"VP8 ", b"VP8L", b"ALPH", b"ANMF"
_ALPHA_FLAG, _ANIMATION_FLAG = 0x10, 0x02
_RIFF_HEADER_BYTES: Final = 12
_FRAME_HEADER_BYTES: Final = 16

_Parts = dict[bytes, memoryview]
"""The chunks of one picture by their kind: VP8L, or VP8 with or without ALPH."""


def read_webp(data: bytes) -> EssentialFile:
    """Extract the first picture of a WebP (RFC 9649).

    Colour profile, EXIF, XMP, unknown chunks and all frames but the first are left out; the
    orientation is read first.

    Raises:
        InvalidImage: damaged.
    """
    canvas: tuple[int, int] | None = None
    frame: memoryview | None = None
    picture: _Parts = {}
    orientation = 1
    chunks = _chunks(memoryview(data), _RIFF_HEADER_BYTES)
    for kind, content in itertools.islice(chunks, MAX_IMAGE_BLOCKS):
        if kind == b"VP8X" and len(content) >= 10:
            canvas = _pair(content[4:10])
        elif kind == b"EXIF":
            orientation = orientation_of(bytes(content[:MAX_EXIF_BYTES]))
            break
        elif _has_pixels(picture):
            continue
        elif kind == _FRAME and len(content) >= _FRAME_HEADER_BYTES:
            frame = content[:_FRAME_HEADER_BYTES]
            picture = dict(_chunks(content, _FRAME_HEADER_BYTES))
        else:
            picture.setdefault(kind, content)
    return _webp(canvas, frame, picture, orientation)


def _webp(
    canvas: tuple[int, int] | None, frame: memoryview | None, picture: _Parts, orientation: int
) -> EssentialFile:
    if _LOSSLESS in picture:
        size = _lossless_size(picture[_LOSSLESS])
        parts = _chunk(_LOSSLESS, picture[_LOSSLESS])
    elif _LOSSY in picture:
        size = _lossy_size(picture[_LOSSY])
        parts = _chunk(_LOSSY, picture[_LOSSY])
        if _ALPHA in picture:
            parts = [*_chunk(_ALPHA, picture[_ALPHA]), *parts]
    else:
        raise damaged(_NAME, "it has no picture, or one that is cut off")
    if frame is not None:
        if canvas is None or _pair(frame[6:12]) != size:
            raise damaged(_NAME, "the sizes of its first frame contradict each other")
        parts = _chunk(_FRAME, memoryview(b"".join((frame, *parts))))
        parts = [*_chunk(b"ANIM", memoryview(bytes(6))), *parts]
        size = canvas
    if frame is not None or _ALPHA in picture:
        flags = _ALPHA_FLAG | (_ANIMATION_FLAG if frame is not None else 0)
        header = bytes((flags, 0, 0, 0)) + b"".join((s - 1).to_bytes(3, "little") for s in size)
        parts = [*_chunk(b"VP8X", memoryview(header)), *parts]
    length = 4 + sum(map(len, parts))
    file = b"".join((b"RIFF", length.to_bytes(4, "little"), b"WEBP", *parts))
    return EssentialFile(file, *size, orientation)


def _chunks(data: memoryview, place: int) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each chunk from ``place`` on, except a last one that is cut off."""
    while place + 8 <= len(data):
        length = _little(data[place + 4 : place + 8])
        content = data[place + 8 : place + 8 + length]
        kind = bytes(data[place : place + 4])
        if len(content) == length or kind == b"EXIF":
            yield kind, content
        place += 8 + length + length % 2


def _has_pixels(picture: _Parts) -> bool:
    return _LOSSY in picture or _LOSSLESS in picture


def _lossless_size(content: memoryview) -> tuple[int, int]:
    if len(content) < 5 or content[0] != 0x2F:
        raise damaged(_NAME, "the header of its pixels is cut off or wrong")
    bits = _little(content[1:5])
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _lossy_size(content: memoryview) -> tuple[int, int]:
    if len(content) < 10 or bytes(content[3:6]) != b"\x9d\x01\x2a":
        raise damaged(_NAME, "the header of its pixels is cut off or wrong")
    width, height = _little(content[6:8]) & 0x3FFF, _little(content[8:10]) & 0x3FFF
    if not width or not height:
        raise damaged(_NAME, f"it is {width} x {height} pixels")
    return width, height


def _pair(data: memoryview) -> tuple[int, int]:
    """Width and height, each stored as one less in three bytes."""
    return _little(data[:3]) + 1, _little(data[3:6]) + 1


def _chunk(kind: bytes, content: memoryview) -> list[bytes | memoryview]:
    return [kind, len(content).to_bytes(4, "little"), content, bytes(len(content) % 2)]


def _little(data: bytes | memoryview) -> int:
    return int.from_bytes(data, "little")
