"""BMP files: reads the header, and checks which of the many forms can be decoded."""

import struct
from typing import Final

from adapters.images.formats import EssentialFile, damaged, unsupported

_NAME: Final = "BMP"
_FILE_HEADER_BYTES: Final = 14
_OS2_1: Final = 12
_OS2_2: Final = 64
_WINDOWS: Final = (40, 52, 56, 108, 124)
_RAW, _BITFIELDS = 0, 3
_DEPTHS: Final[dict[int, tuple[int, ...]]] = {
    _RAW: (1, 4, 8, 16, 24, 32),
    1: (8,),
    2: (4,),
    _BITFIELDS: (16, 24, 32),
}
"""Supported bits of a pixel, by compression; 1 and 2 are run-length encodings."""
_OTHER_COMPRESSIONS: Final = {
    4: "an embedded JPEG",
    5: "an embedded PNG",
    6: "compressed by bit masks with alpha",
    11: "in CMYK",
    12: "in CMYK, run-length encoded",
    13: "in CMYK, run-length encoded",
}
_MASKS: Final[dict[int, set[tuple[int, ...]]]] = {
    16: {(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)},
    24: {(0xFF0000, 0xFF00, 0xFF)},
    32: {
        (0xFF0000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0),
        (0xFF000000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
        (0, 0, 0, 0),
    },
}
"""Bit masks of red, green, blue and alpha that Pillow decodes, by bits of a pixel."""


def read_bmp(data: bytes) -> EssentialFile:
    """Check a BMP's header (Microsoft, "Bitmap Header Types"). The data stays complete.

    Raises:
        InvalidImage: damaged, or in a form that cannot be decoded.
    """
    if len(data) < _FILE_HEADER_BYTES + 4:
        raise damaged(_NAME, "its header is cut off")
    size = int.from_bytes(data[14:18], "little")
    header = data[_FILE_HEADER_BYTES : _FILE_HEADER_BYTES + size]
    if size not in (_OS2_1, _OS2_2, *_WINDOWS):
        if 16 <= size < _OS2_2:
            raise unsupported(_NAME, f"of OS/2 2 with a header of {size} bytes")
        raise damaged(_NAME, f"there is no header of {size} bytes")
    if len(header) < size:
        raise damaged(_NAME, "its header is cut off")
    if size == _OS2_1:
        width, height, _, depth = struct.unpack("<HHHH", header[4:12])
        compression = _RAW
    else:
        width, height, _, depth, compression = struct.unpack("<iiHHI", header[4:20])
    if width < 1 or height == 0:
        raise damaged(_NAME, f"it is {width} x {abs(height)} pixels")
    _check_form(size, depth, compression)
    if compression == _BITFIELDS:
        _check_masks(data, header, depth)
    elif compression == _RAW:
        data = _with_last_padding(data, stride=(width * depth + 31) // 32 * 4, rows=abs(height))
    return EssentialFile(data, width, abs(height))


def _check_form(size: int, depth: int, compression: int) -> None:
    if size == _OS2_2 and compression in (3, 4):
        raise unsupported(_NAME, "of OS/2 2 with Huffman or 24-bit run-length compression")
    if (form := _OTHER_COMPRESSIONS.get(compression)) is not None:
        raise unsupported(_NAME, form)
    if (depths := _DEPTHS.get(compression)) is None:
        raise damaged(_NAME, f"there is no compression {compression}")
    if depth not in depths:
        if depth in (2, 64) and compression == _RAW:
            raise unsupported(_NAME, f"of {depth} bits a pixel")
        raise damaged(_NAME, f"there is no compression {compression} with {depth} bits a pixel")


def _check_masks(data: bytes, header: bytes, depth: int) -> None:
    # With a header of 40 bytes they follow it, without one for alpha.
    inside = len(header) > 40
    place = _FILE_HEADER_BYTES + 40
    count = 4 if depth == 32 and len(header) >= 56 else 3
    masks = struct.unpack_from(f"<{count}I", data.ljust(place + 4 * count, b"\0"), place)
    if depth == 32 and count == 3:
        masks = (*masks, 0)
    if masks not in _MASKS[depth]:
        where = "header" if inside else "table behind the header"
        shown = ", ".join(f"{mask:08X}" for mask in masks)
        raise unsupported(_NAME, f"of {depth} bits with the masks {shown} in its {where}")


def _with_last_padding(data: bytes, *, stride: int, rows: int) -> bytes:
    """The file with up to three more bytes, if only its last row's padding is missing."""
    lacking = int.from_bytes(data[10:14], "little") + stride * rows - len(data)
    return data + bytes(lacking) if 0 < lacking < 4 else data
