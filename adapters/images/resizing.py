"""Resizing with an anti-aliasing filter: with a SIMD library if installed, else with Pillow.

`cykooz.resizer` (the Rust crate fast_image_resize) takes a seventh of Pillow's time. It rounds the
filter's weights more coarsely: its levels differ from Pillow's by 0.2 of 255 on average and by 7 at
most (at an edge that is enlarged). Embeddings stay the same to a cosine of 0.9999 and more;
transformers' own two ways of resizing differ too. So a machine without it, which resizes with
Pillow, makes embeddings that can be compared with all others.
"""

import functools
from typing import Final, TypeAlias

from PIL import Image

Box: TypeAlias = tuple[float, float, float, float]
"""Left, upper, right and lower edge of the part to resize; the filter also reads beyond them."""

_FILTERS: Final = {
    "bilinear": "bilinear",
    "bicubic": "catmull_rom",
    "lanczos": "lanczos3",
}
"""The library's names for Pillow's filters."""


def resized(image: Image.Image, size: tuple[int, int], filter_name: str, box: Box) -> Image.Image:
    """A part of an image at another size.

    Args:
        image: mode ``RGB``.
        size: width and height of the result.
        filter_name: Pillow's, such as ``bicubic``.
        box: the part.
    """
    if filter_name in _FILTERS and has_simd():
        return _with_simd(image, size, filter_name, box)
    return with_pillow(image, size, filter_name, box)


def with_pillow(
    image: Image.Image, size: tuple[int, int], filter_name: str, box: Box
) -> Image.Image:
    """Like `resized`, but only with Pillow.

    The two passes are called separately. With a box, Pillow may run them in the other order, which
    rounds differently from transformers, which resizes everything and crops afterwards.
    """
    resample = Image.Resampling[filter_name.upper()]
    left, upper, right, lower = box
    columns = image.resize((size[0], image.height), resample, box=(left, 0, right, image.height))
    return columns.resize(size, resample, box=(0, upper, size[0], lower))


def _with_simd(
    image: Image.Image, size: tuple[int, int], filter_name: str, box: Box
) -> Image.Image:
    import cykooz_resizer as simd

    left, upper, right, lower = box
    result = Image.new("RGB", size)
    options = simd.ResizeOptions(
        resize_alg=simd.ResizeAlg.convolution(simd.FilterType[_FILTERS[filter_name]]),
        crop_box=simd.CropBox(left, upper, right - left, lower - upper),
    )
    simd.Resizer().resize_pil(image, result, options)
    return result


@functools.cache
def has_simd() -> bool:
    """Whether the SIMD resizer is installed and works with this Pillow.

    It reads Pillow's images in memory, and supports only certain versions.
    """
    image = Image.linear_gradient("L").convert("RGB").resize((30, 20))
    box = (0.5, 0.0, 29.5, 20.0)
    try:
        found = _with_simd(image, (8, 8), "bicubic", box).tobytes()
    except Exception:  # not installed, or not for this Pillow: it raises various errors
        return False
    expected = with_pillow(image, (8, 8), "bicubic", box).tobytes()
    return all(abs(one - other) <= 4 for one, other in zip(found, expected, strict=True))
