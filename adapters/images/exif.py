"""The only EXIF value that affects a picture: its orientation."""

from collections.abc import Callable
from typing import Final

import numpy as np

from adapters.images.resizing import Picture

_ORIENTATION: Final = 0x0112
_BYTE, _SHORT, _LONG = 1, 3, 4
_SIZES: Final = {_BYTE: 1, _SHORT: 2, _LONG: 4}
"""Bytes of one value, by TIFF's types for whole numbers.

In the standard the orientation is a SHORT. Viewers differ on the other types: libexif, exiv2 and
Android read them, browsers do not.
"""
_ENTRY_BYTES: Final = 12
_MAX_ENTRIES: Final = 1000
"""Entries of the first directory that are read; cameras write about ten."""

_UPRIGHT: Final[dict[int, Callable[[Picture], Picture]]] = {
    2: np.fliplr,
    3: lambda picture: picture[::-1, ::-1],
    4: np.flipud,
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: picture.swapaxes(0, 1)[:, ::-1],
    7: lambda picture: picture.swapaxes(0, 1)[::-1, ::-1],
    8: lambda picture: picture.swapaxes(0, 1)[::-1],
}
"""How each orientation is turned upright (EXIF 2.32, section 4.6.4, tag Orientation)."""


def orientation_of(exif: bytes) -> int:
    """The orientation tag of the first directory; 1 if it cannot be read. No other tag is read.

    Args:
        exif: data from the TIFF header on, with or without EXIF's own header in front. May be cut
            off or damaged anywhere.
    """
    tiff = memoryview(exif)[6 if exif.startswith(b"Exif\0\0") else 0 :]
    start = bytes(tiff[:4])
    is_little = start == b"II*\0"
    if not is_little and start != b"MM\0*":
        return 1

    def number(place: int, size: int) -> int:
        return int.from_bytes(tiff[place : place + size], "little" if is_little else "big")

    directory = number(4, 4)
    entries = min(number(directory, 2), _MAX_ENTRIES)
    first = directory + 2
    for entry in range(first, first + entries * _ENTRY_BYTES, _ENTRY_BYTES):
        if entry + _ENTRY_BYTES > len(tiff):
            break
        if number(entry, 2) == _ORIENTATION:
            size = _SIZES.get(number(entry + 2, 2), 0)
            value = number(entry + 8, size) if number(entry + 4, 4) == 1 else 1
            return value if value in _UPRIGHT else 1
    return 1


def upright(picture: Picture, orientation: int) -> Picture:
    """The picture turned upright, as a view of the same pixels."""
    turn = _UPRIGHT.get(orientation)
    return picture if turn is None else turn(picture)
