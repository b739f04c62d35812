"""How bright a picture is."""

import io

from PIL import Image

from adapters.images.thumbnail import UNREADABLE

_SIDE = 64


def brightness_of(data: bytes) -> float | None:
    """Mean brightness of an image file in [0, 1]; None if it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.draft("L", (_SIDE, _SIDE))
            picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
            levels = picture.convert("L").histogram()
    except UNREADABLE:
        return None
    return sum(level * count for level, count in enumerate(levels)) / (255 * sum(levels))
