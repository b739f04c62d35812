"""Photos in this package, prepared for the image tower, for calibration and comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from adapters.images.preprocessing import normalised, preprocess, write_nearest_levels
from application.ports import CLIPS_INPUT, ImageInput, PixelBatch, Pixels

_PHOTOS: Final = Path(__file__).parent / "calibration"
_NAMES: Final = ("astronaut", "cat", "coffee", "grass", "gravel", "photographer", "rocket")
_CROPS: Final = 3
_NOISE: Final = 2


def photo(name: str) -> Image.Image:
    """One of the photos, in RGB."""
    with Image.open(_PHOTOS / f"{name}.jpg") as opened:
        return opened.convert("RGB")


def crops_of(name: str, image_input: ImageInput = CLIPS_INPUT) -> Sequence[Pixels]:
    """The whole photo and some parts of it, always the same."""
    whole = photo(name)
    rng = np.random.default_rng(0)
    crops = [preprocess(whole, image_input)]
    for _ in range(_CROPS - 1):
        side = int(rng.integers(120, min(whole.size)))
        left = int(rng.integers(0, whole.width - side + 1))
        upper = int(rng.integers(0, whole.height - side + 1))
        part = whole.crop((left, upper, left + side, upper + side))
        crops.append(preprocess(part, image_input))
    return crops


def samples(image_input: ImageInput = CLIPS_INPUT) -> PixelBatch:
    """Samples to compare two encoders: every photo, a part of each, and random pixels."""
    photos = [pixels for name in _NAMES for pixels in crops_of(name, image_input)[:2]]
    side = image_input.size
    noise = np.random.default_rng(0).standard_normal((_NOISE, 3, side, side))
    return np.concatenate([np.stack(photos), noise.astype(np.float32)])


def picture_samples(image_input: ImageInput = CLIPS_INPUT) -> PixelBatch:
    """Samples to compare engines: the same, rounded to levels as in a picture."""
    pixels = samples(image_input)
    levels = np.empty(pixels.shape, dtype=np.uint8)
    write_nearest_levels(pixels, levels)
    return normalised(levels)
