"""Resizing with an anti-aliasing filter: with a SIMD library if installed, else with Pillow.

`cykooz.resizer` (the Rust crate fast_image_resize) takes a seventh of Pillow's time. It rounds the
filter's weights more coarsely: its levels differ from Pillow's by 0.2 of 255 on average and by 7 at
most (at an edge that is enlarged). Embeddings stay the same to a cosine of 0.9999 and more;
transformers' own two ways of resizing differ too. So a machine without it, which resizes with
Pillow, makes embeddings that can be compared with all others.
"""

import functools
import math
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture: TypeAlias = NDArray[np.uint8]
"""uint8 ``[height, width, 3]``, RGB; not always contiguous, nor writeable."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, upper, right and lower edge of the part to resize; the filter also reads beyond them."""

_FILTERS: Final = {
    "bilinear": "bilinear",
    "bicubic": "catmull_rom",
    "lanczos": "lanczos3",
}
"""The library's names for Pillow's filters."""

_WIDEST: Final = 3.0
"""Half the width of the widest filter, Lanczos', in pixels of the result."""


def resized(picture: Picture, size: tuple[int, int], filter_name: str, box: Box) -> Picture:
    """A part of a picture at another size.

    Args:
        picture: of at least 1 x 1.
        size: width and height of the result.
        filter_name: Pillow's, such as ``bicubic``.
        box: the part.
    """
    height, width, _ = picture.shape
    if (width, height) == size and box == (0.0, 0.0, width, height):
        return picture
    if filter_name in _FILTERS and has_simd():
        return _with_simd(picture, size, filter_name, box)
    return with_pillow(picture, size, filter_name, box)


def with_pillow(picture: Picture, size: tuple[int, int], filter_name: str, box: Box) -> Picture:
    """Like `resized`, but only with Pillow.

    The two passes are called separately. With a box, Pillow may run them in the other order, which
    rounds differently from transformers, which resizes everything and crops afterwards.
    """
    image = Image.fromarray(picture)
    resample = Image.Resampling[filter_name.upper()]
    left, upper, right, lower = box
    columns = image.resize((size[0], image.height), resample, box=(left, 0, right, image.height))
    return np.asarray(columns.resize(size, resample, box=(0, upper, size[0], lower)))


def _with_simd(picture: Picture, size: tuple[int, int], filter_name: str, box: Box) -> Picture:
    import cykooz_resizer as simd

    height, width, _ = picture.shape
    left, upper, right, lower = box
    # Only what the filter reads is copied.
    first, beyond = _read_span(left, right, size[0], width)
    top, below = _read_span(upper, lower, size[1], height)
    source = simd.ImageData(
        beyond - first, below - top, simd.PixelType.U8x3, picture[top:below, first:beyond].tobytes()
    )
    result = simd.ImageData(*size, simd.PixelType.U8x3)
    options = simd.ResizeOptions(
        resize_alg=simd.ResizeAlg.convolution(simd.FilterType[_FILTERS[filter_name]]),
        crop_box=simd.CropBox(left - first, upper - top, right - left, lower - upper),
    )
    simd.Resizer().resize(source, result, options)
    return np.frombuffer(result.get_buffer(), np.uint8).reshape(size[1], size[0], 3)


def _read_span(start: float, end: float, count: int, length: int) -> tuple[int, int]:
    """The pixels of a side that a filter reads to make ``count`` pixels of a part of it."""
    margin = _WIDEST * max((end - start) / count, 1.0) + 1
    return max(math.floor(start - margin), 0), min(math.ceil(end + margin), length)


@functools.cache
def has_simd() -> bool:
    """Whether the SIMD resizer is installed and works."""
    gradient = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3)
    picture = (gradient * 255 // gradient.max()).astype(np.uint8)
    box = (0.5, 0.0, 29.5, 20.0)
    try:
        found = _with_simd(picture, (8, 8), "bicubic", box)
    except Exception:  # not installed, or another version: it raises various errors
        return False
    expected = with_pillow(picture, (8, 8), "bicubic", box)
    return int(np.abs(found.astype(int) - expected).max()) <= 4
