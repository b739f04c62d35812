"""The preprocessing of every image, the same for every encoder.

The image becomes a square of the model's size in the model's way, as uint8 levels. The encoder
normalises with CLIP's mean and standard deviation (`as_pixels`), possibly on its device. For plain
CLIP (short side to 224, bicubic, centre crop) this is what ``transformers.CLIPImageProcessor``
does; `adapters.images.resizing` says how close the numbers are.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapters.images.resizing import Box, Picture, resized
from application.ports import CLIPS_INPUT, Fit, ImageInput, PixelBatch

Resize: TypeAlias = Callable[[Picture, tuple[int, int], str, Box], Picture]

MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
"""Per-channel mean that CLIP was trained with (Radford et al. 2021; openai/CLIP, clip.py)."""

STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""Per-channel standard deviation that CLIP was trained with."""

LEVELS_TO_PIXELS: Final = (
    np.float32(1 / (255 * np.array(STD))).reshape(3, 1, 1),
    np.float32(np.array(MEAN) / np.array(STD)).reshape(3, 1, 1),
)
"""float32 ``[3, 1, 1]``: levels are multiplied by the first, and then the second is subtracted."""

_TO_LEVELS: Final = (
    (1 / LEVELS_TO_PIXELS[0].astype(np.float64)).astype(np.float32),
    (LEVELS_TO_PIXELS[1].astype(np.float64) / LEVELS_TO_PIXELS[0].astype(np.float64) + 0.5).astype(
        np.float32
    ),
)
"""The inverse: pixels are multiplied by the first, and the second is added before truncation."""

_NORMALISED: Final = np.ascontiguousarray(
    np.arange(256, dtype=np.float32) * LEVELS_TO_PIXELS[0][:, 0] - LEVELS_TO_PIXELS[1][:, 0]
)
"""float32 ``[3, 256]``: the normalised value of each of the 256 levels in each channel."""


def preprocess(image: Image.Image, image_input: ImageInput = CLIPS_INPUT) -> NDArray[np.float32]:
    """The image tower's input for an image.

    Args:
        image: mode ``RGB``, any size of at least 1 x 1.
        image_input: what the image tower sees.

    Returns:
        float32 ``[3, size, size]``, C-contiguous, normalised.
    """
    return normalise(square(np.asarray(image), image_input))


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The image tower's input for a decoded picture.

    Args:
        pixels: uint8 ``[size, size, 3]``, RGB, as `decode_picture` returns them.

    Returns:
        float32 ``[3, size, size]``, C-contiguous: CLIP's mean and standard deviation taken out.
    """
    return normalised(pixels.transpose(2, 0, 1))


def channels_first(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of a decoded picture in the encoders' layout, see `Pixels`.

    Args:
        levels: uint8 ``[size, size, 3]``.

    Returns:
        uint8 ``[3, size, size]``, C-contiguous.
    """
    return np.ascontiguousarray(levels.transpose(2, 0, 1))


def normalised(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Eight-bit levels ``[…, 3, size, size]`` with CLIP's mean and standard deviation taken out."""
    pixels = np.empty(levels.shape, dtype=np.float32)
    # Channel by channel: numpy would copy non-contiguous data before and after the lookup.
    for place in np.ndindex(levels.shape[:-2]):
        # A lookup instead of a computation: half the time, and identical to the last bit.
        np.take(_NORMALISED[place[-1]], levels[place], out=pixels[place], mode="clip")
    return pixels


def as_pixels(images: PixelBatch) -> NDArray[np.float32]:
    """The image tower's input, from levels or from already normalised pixels."""
    if images.dtype == np.uint8:
        return normalised(images.astype(np.uint8, copy=False))
    return images.astype(np.float32, copy=False)


def levels_of(pixels: PixelBatch) -> NDArray[np.uint8] | None:
    """The exact levels behind ``pixels``; None if they were not made from levels.

    Levels take a quarter of the bytes, which helps if pixels are sent.
    """
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    levels = np.empty(pixels.shape, dtype=np.uint8)
    several = (-1, *pixels.shape[-3:])
    with np.errstate(invalid="ignore"):  # non-finite values come out different, as they should
        write_nearest_levels(pixels.reshape(several), levels.reshape(several))
    return levels if np.array_equal(normalised(levels), pixels) else None


def write_nearest_levels(pixels: NDArray[Any], out: NDArray[np.uint8]) -> None:
    """Write the levels behind normalised pixels; exact for every picture.

    Values that no picture has are rounded to the nearest level. Levels are only copied.

    Args:
        pixels: float32 ``[n, 3, size, size]``, normalised as CLIP does it, or uint8 levels.
        out: uint8 of the same shape.
    """
    if pixels.dtype == np.uint8:
        out[...] = pixels
        return
    scratch = np.empty(pixels.shape[1:], dtype=np.float32)
    for image, place in zip(pixels, out, strict=True):
        np.multiply(image, _TO_LEVELS[0], out=scratch)
        np.add(scratch, _TO_LEVELS[1], out=scratch)
        np.clip(scratch, 0, 255, out=scratch)
        np.copyto(place, scratch, casting="unsafe")


def square(picture: Picture, image_input: ImageInput, resize: Resize = resized) -> Picture:
    """The picture as a square for the image tower, uint8 ``[size, size, 3]``.

    Args:
        picture: of at least 1 x 1.
        image_input: what the image tower sees.
        resize: `resized`, or an equivalent.
    """
    height, width, _ = picture.shape
    size = image_input.size
    match image_input.fit:
        case Fit.CROP:
            return resize(picture, (size, size), image_input.filter, _middle(width, height, size))
        case Fit.SQUASH:
            return resize(picture, (size, size), image_input.filter, (0, 0, width, height))
        case Fit.PAD:
            return _padded(picture, image_input, resize)


def _padded(picture: Picture, image_input: ImageInput, resize: Resize) -> Picture:
    """Resize the long side and fill the rest evenly (open_clip, ``ResizeKeepRatio``)."""
    size = image_input.size
    sides = picture.shape[1], picture.shape[0]
    ratio = max(sides) / size
    width, height = (max(round(side / ratio), 1) for side in sides)
    left, upper = (size - width) // 2, (size - height) // 2
    whole = np.full((size, size, 3), image_input.fill, dtype=np.uint8)
    small = resize(picture, (width, height), image_input.filter, (0, 0, *sides))
    whole[upper : upper + height, left : left + width] = small
    return whole


def _middle(width: int, height: int, size: int) -> Box:
    """The middle part of an image that remains if its short side is resized to ``size``.

    So no pixels are resized only to be cropped away, and a 4096 x 1 image never becomes a 917,504 x
    224 one on the way.
    """
    short = min(width, height)
    left, right = _kept_span(width, size * width // short, size)
    upper, lower = _kept_span(height, size * height // short, size)
    return left, upper, right, lower


def _kept_span(length: int, whole: int, kept: int) -> tuple[float, float]:
    """The part of a side of ``length`` pixels that a resize to ``whole`` and a crop keep."""
    start = (whole - kept) // 2
    scale = length / whole
    return start * scale, min((start + kept) * scale, length)
