"""From anything that holds a picture to the bytes of an image file, as the server takes them.

Pillow and NumPy are recognised by what their objects can do; neither is imported.
"""

import io
import os
import struct
import zlib
from typing import Any, BinaryIO, Final, Protocol, TypeAlias

from clip_client.errors import InvalidInput
from clip_client.paths import read_path
from clip_client.vectors import NumberArray


class PillowImage(Protocol):
    """A Pillow image, without Pillow."""

    @property
    def mode(self) -> str:
        """Kind of pixels, such as ``RGB``."""

    def save(self, fp: Any, format: str, **options: Any) -> None:
        """Write an image file."""

    def convert(self, mode: str) -> Any:
        """The same image in another mode."""

    @property
    def info(self) -> Any:
        """What else the file holds, by name."""

    def getexif(self) -> Any:
        """The file's EXIF data, its orientation among them."""


ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | PillowImage | NumberArray
)
"""A path, the bytes of an image file, an open binary file, a Pillow image, or an array.

An array is uint8 of shape ``[height, width]`` (grey), ``[height, width, 3]`` (RGB) or
``[height, width, 4]`` (RGBA). OpenCV's frames are BGR: pass ``frame[..., ::-1]``.
"""

_PNG_MODES: Final = {
    **{mode: mode for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    "La": "LA",
    **dict.fromkeys(("PA", "RGBa"), "RGBA"),
    **dict.fromkeys(("CMYK", "YCbCr", "LAB", "HSV", "RGBX"), "RGB"),
}
"""Pillow's modes that show colours, and the mode that a PNG file keeps each in."""

_COLOUR_TYPES: Final = {1: 0, 3: 2, 4: 6}
"""PNG's colour type by number of channels (ISO/IEC 15948, section 11.2.2)."""

_UP_FILTER: Final = b"\x02"

_ORIENTATION: Final = 0x0112
_HEADER_BYTES: Final = 33
"""Of a PNG: its signature and the chunk IHDR."""


def image_file(source: ImageSource) -> bytes:
    """The bytes of an image file.

    Files pass unchanged. Pixels are packed as PNG, without loss, so that the embedding is that of
    these very pixels.

    Raises:
        InvalidInput: it holds no picture, or one that cannot be read; says what to give instead.
        OSError: the path cannot be read.
    """
    match source:
        case str() | os.PathLike():
            return read_path(source)
        case bytes():
            return source
        case bytearray() | memoryview():
            return bytes(source)
    # A Pillow image has `save`, a file has `read`, an array has `tobytes` and `shape`.
    candidate: Any = source
    if hasattr(candidate, "save") and hasattr(candidate, "getexif"):
        return _from_pillow(candidate)
    if hasattr(candidate, "read"):
        return _from_file(candidate)
    if hasattr(candidate, "tobytes") and hasattr(candidate, "shape"):
        return _from_array(candidate)
    raise InvalidInput(
        "an image is a path, bytes, an open binary file, a Pillow image or an array; "
        f"this is {type(candidate).__name__}."
    )


def _from_file(file: BinaryIO) -> bytes:
    try:
        content = file.read()
    except ValueError as closed:
        raise InvalidInput(
            f"the file cannot be read ({closed}); open it with mode 'rb' and pass it before it is "
            "closed."
        ) from closed
    if not isinstance(content, bytes):
        raise InvalidInput("the file is open in text mode; open it with mode 'rb'.")
    return content


def _from_pillow(image: PillowImage) -> bytes:
    if (mode := _PNG_MODES.get(image.mode)) is None:
        raise InvalidInput(
            f"a Pillow image in mode {image.mode!r} holds numbers, not colours; "
            "convert it to 'L' or 'RGB' as it is meant."
        )
    buffer = io.BytesIO()
    try:
        kept = image if mode == image.mode else image.convert(mode)
        # None of the file's metadata goes along; some of it could not be written.
        kept.save(buffer, format="PNG", compress_level=1, exif=b"", icc_profile=None)
    except Exception as unreadable:  # Pillow raises whatever a closed or damaged file leads to
        raise InvalidInput(
            f"the pixels of the Pillow image cannot be read ({unreadable}): its file is closed, "
            "truncated or damaged. Call load() before the file is closed, or give the file's path "
            "or bytes."
        ) from unreadable
    file = buffer.getvalue()
    # But the orientation does: Pillow keeps pixels as they lie in the file, not upright.
    orientation = _orientation_of(image)
    if orientation == 1:
        return file
    exif = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, _ORIENTATION, 3, 1, orientation, 0, 0)
    return file[:_HEADER_BYTES] + _chunk(b"eXIf", exif) + file[_HEADER_BYTES:]


def _orientation_of(image: PillowImage) -> int:
    """EXIF's orientation from 1 to 8; 1 where it cannot be read."""
    if "exif" not in image.info and any("xmp" in str(name).lower() for name in image.info):
        return 1  # Pillow would take XMP's, which viewers do not
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow raises whatever damaged EXIF leads to
        return 1
    if isinstance(value, bytes) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _from_array(array: Any) -> bytes:
    shape = tuple(array.shape)
    channels = shape[2] if len(shape) == 3 else 1
    if str(array.dtype) != "uint8" or len(shape) not in {2, 3} or channels not in _COLOUR_TYPES:
        raise InvalidInput(
            "an image array is uint8 of shape [height, width], [height, width, 3] (RGB) or "
            f"[height, width, 4] (RGBA); this one is {array.dtype} of shape {list(shape)}."
        )
    height, width = shape[:2]
    if not height or not width:
        raise InvalidInput(f"the image array has no pixels; its shape is {list(shape)}.")
    rows = array.reshape(height, width * channels)
    # Each row as its difference to the one above, modulo 256: photographs pack better so.
    filtered = [rows[0], *(rows[1:] - rows[:-1])]
    packed = zlib.compress(b"".join(_UP_FILTER + row.tobytes() for row in filtered), level=1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
