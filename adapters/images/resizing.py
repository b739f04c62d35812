"""Resizing with an anti-aliasing filter: with a SIMD library if installed, else with Pillow.

`cykooz.resizer` (the Rust crate fast_image_resize) takes a sixth of Pillow's time. It rounds the
filter's weights differently: few levels differ from Pillow's, by 1 of 255, or by 2 in noise. So a
machine without it, which resizes with Pillow, makes the same embeddings.
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
    """Like `resized`, with the library.

    The two passes are called separately, columns first, as Pillow does it. In one call the library
    starts with the rows, which rounds differently, and at some sizes it crashes: it reads as many
    columns as the outermost pixels of the result need, but where such a pixel lies exactly on a
    column, its neighbours need more (fast_image_resize 5.1 to 6.1).
    """
    import cykooz_resizer as simd

    height, width, _ = picture.shape
    left, upper, right, lower = box
    # Only what the filter reads is copied.
    first, beyond = _read_span(left, right, size[0], width)
    top, below = _read_span(upper, lower, size[1], height)
    down = below - top
    source = simd.ImageData(
        beyond - first, down, simd.PixelType.U8x3, picture[top:below, first:beyond].tobytes()
    )
    narrow = simd.ImageData(size[0], down, simd.PixelType.U8x3)
    result = simd.ImageData(*size, simd.PixelType.U8x3)
    algorithm = simd.ResizeAlg.convolution(simd.FilterType[_FILTERS[filter_name]])
    resizer = simd.Resizer()
    for source_image, target, crop in (
        (source, narrow, simd.CropBox(left - first, 0, right - left, down)),
        (narrow, result, simd.CropBox(0, upper - top, size[0], lower - upper)),
    ):
        options = simd.ResizeOptions(resize_alg=algorithm, crop_box=crop)
        resizer.resize(source_image, target, options)
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
