"""Small pictures for people to look at; no embedding depends on them."""

import io
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

_QUALITY: Final = 80

UNREADABLE: Final = (
    *(UnidentifiedImageError, OSError, ValueError, SyntaxError, MemoryError),
    Image.DecompressionBombError,
)
"""Pillow's errors for a file that it cannot read."""


def thumbnail(data: bytes, *, side: int) -> bytes | None:
    """The picture as a JPEG that fits a square, upright, on white; None if it cannot be read.

    Args:
        data: one image file.
        side: pixels of the longer side, at most.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.draft("RGB", (2 * side, 2 * side))
            upright = ImageOps.exif_transpose(picture)
            upright.thumbnail((side, side))
            rgba = upright.convert("RGBA")
    except UNREADABLE:
        return None
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    target = io.BytesIO()
    flat.save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()
