"""Levels of pictures, as engines take them: a quarter of the bytes of normalised pixels."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.images.photos import samples
from adapters.images.preprocessing import LEVELS_TO_PIXELS, normalised
from application.ports import ImageInput, PixelBatch

_FACTOR: Final = (1 / LEVELS_TO_PIXELS[0].astype(np.float64)).astype(np.float32)
_SUMMAND: Final = (
    LEVELS_TO_PIXELS[1].astype(np.float64) / LEVELS_TO_PIXELS[0].astype(np.float64) + 0.5
).astype(np.float32)


def levels_of(pixels: NDArray[Any], out: NDArray[np.uint8]) -> None:
    """Write the levels that normalised pixels were made of; exact for every picture.

    What no picture has is taken to the nearest level. The port hands over float32: where it hands
    over levels one day, they are only copied.

    Args:
        pixels: float32 ``[n, 3, size, size]``, normalised as CLIP does it, or uint8 levels.
        out: uint8 of the same shape.
    """
    if pixels.dtype == np.uint8:
        out[...] = pixels
        return
    scratch = np.empty(pixels.shape[1:], dtype=np.float32)
    for image, place in zip(pixels, out, strict=True):
        np.multiply(image, _FACTOR, out=scratch)
        np.add(scratch, _SUMMAND, out=scratch)
        np.clip(scratch, 0, 255, out=scratch)
        np.copyto(place, scratch, casting="unsafe")


def picture_samples(image_input: ImageInput) -> PixelBatch:
    """What engines are compared on: the samples, as pictures that have nothing between levels."""
    pixels = samples(image_input)
    levels = np.empty(pixels.shape, dtype=np.uint8)
    levels_of(pixels, levels)
    return normalised(levels)
