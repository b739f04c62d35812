"""GIF files: extracts the first picture and the data it needs."""

from dataclasses import dataclass
from typing import Final

from adapters.images.formats import EssentialFile, damaged, too_many_parts
from domain.limits import MAX_IMAGE_BLOCKS

_NAME: Final = "GIF"
_EXTENSION, _PICTURE, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL: Final = 0xF9
_SCREEN_BYTES: Final = 13
_DESCRIPTOR_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class Gif(EssentialFile):
    """A GIF whose only extension is the transparent colour of its first picture.

    Attributes:
        box: left, upper, right and lower edge of the first picture on the canvas.
    """

    box: tuple[int, int, int, int] = (0, 0, 0, 0)


def read_gif(data: bytes) -> Gif:
    """Extract the first picture of a GIF (GIF89a, sections 15 to 26).

    Comments, application extensions and disposal methods are left out.

    Raises:
        InvalidImage: damaged, or more than `MAX_IMAGE_BLOCKS` blocks before the first picture.
    """
    if len(data) < _SCREEN_BYTES:
        raise damaged(_NAME, "its header is cut off")
    place = _SCREEN_BYTES + _table_bytes(data[10])
    screen = data[6:place]
    control, blocks = b"", 0
    while place < len(data) and data[place] not in (_PICTURE, _TRAILER):
        blocks += 1
        if data[place] == _EXTENSION:
            if data[place + 1 : place + 2] == bytes((_GRAPHIC_CONTROL,)):
                control = data[place + 3 : place + 7]
            place += 2
            while place < len(data) and data[place]:
                place += 1 + data[place]
                if (blocks := blocks + 1) > MAX_IMAGE_BLOCKS:
                    break
        if blocks > MAX_IMAGE_BLOCKS:
            raise too_many_parts(_NAME, "blocks before its first picture", MAX_IMAGE_BLOCKS)
        place += 1
    descriptor = data[place : place + _DESCRIPTOR_BYTES]
    if len(descriptor) < _DESCRIPTOR_BYTES or descriptor[0] != _PICTURE:
        raise damaged(_NAME, "it has no picture")
    left, upper, width, height = (_little(descriptor[at : at + 2]) for at in (1, 3, 5, 7))
    if not width or not height:
        raise damaged(_NAME, f"its first picture is {width} x {height} pixels")
    transparency = b""
    if len(control) == 4 and control[0] & 1:
        transparency = b"\x21\xf9\x04\x01\0\0" + control[3:4] + b"\0"
    return Gif(
        b"".join((b"GIF89a", screen, transparency, memoryview(data)[place:])),
        # Pillow allocates both.
        max(_little(data[6:8]), left + width),
        max(_little(data[8:10]), upper + height),
        box=(left, upper, left + width, upper + height),
    )


def _table_bytes(flags: int) -> int:
    """Bytes of the colour table, by the byte of flags."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
