"""Mistakes that servers make in preprocessing pictures."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from adapters.images.preprocessing import MEAN, STD, normalise, square
from adapters.models.preprocessing import Preprocessing
from application.ports import Fit, ImageInput, Pixels
from application.use_cases.verify import Deviation

_FITS = {
    Fit.CROP: "resizes the short side and cuts out the middle",
    Fit.SQUASH: "squashes pictures into a square",
    Fit.PAD: "resizes the long side and fills up the rest",
}
_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box")
_NORMALISATIONS = {
    "with CLIP's mean and standard deviation": (MEAN, STD),
    "with ImageNet's mean and standard deviation": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "to -1 to 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "not at all, from 0 to 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "not at all, from 0 to 255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}


def deviations_from(preprocessing: Preprocessing) -> Sequence[Deviation]:
    """All known deviations, except those that are correct for this checkpoint."""
    right = preprocessing.image_input
    found = [
        Deviation("crop", what, _prepared(replace(right, fit=fit)))
        for fit, what in _FITS.items()
        if fit is not right.fit
    ]
    found += [
        Deviation(
            "filter", f"resizes with the filter {name}", _prepared(replace(right, filter=name))
        )
        for name in _FILTERS
        if name != right.filter
    ]
    found += [
        Deviation("filter", "leaves out pixels when it makes pictures smaller", _sampled(right)),
        Deviation(
            "orientation", "does not turn pictures as EXIF says", _prepared(right, turned=False)
        ),
        Deviation("transparency", "ignores transparency", _prepared(right, onto=None)),
        Deviation("transparency", "puts transparency on black", _prepared(right, onto="black")),
        Deviation("colours", "swaps red and blue", _swapped(right)),
    ]
    found += [
        Deviation("normalisation", f"normalises {how}", _normalised(preprocessing, mean, std))
        for how, (mean, std) in _NORMALISATIONS.items()
        if (mean, std) != (preprocessing.mean, preprocessing.std)
    ]
    return found


def _opened(data: bytes, *, turned: bool = True, onto: str | None = "white") -> Image.Image:
    with Image.open(io.BytesIO(data)) as file:
        picture: Image.Image = ImageOps.exif_transpose(file) if turned else file.copy()
    if picture.has_transparency_data and onto is not None:
        layered = picture.convert("RGBA")
        ground = Image.new("RGBA", layered.size, onto)
        return Image.alpha_composite(ground, layered).convert("RGB")
    return picture.convert("RGB")


def _prepared(
    image_input: ImageInput, *, turned: bool = True, onto: str | None = "white"
) -> Callable[[bytes], Pixels]:
    return lambda data: normalise(
        square(np.asarray(_opened(data, turned=turned, onto=onto)), image_input)
    )


def _sampled(image_input: ImageInput) -> Callable[[bytes], Pixels]:
    """As OpenCV and PyTorch resize by default: bilinear, of the nearest four pixels only."""

    def prepare(data: bytes) -> Pixels:
        picture = _opened(data)
        size = image_input.size
        if image_input.fit is Fit.CROP:
            side = min(picture.size)
            left, upper = ((length - side) / 2 for length in picture.size)
            box = (left, upper, left + side, upper + side)
        else:
            box = (0.0, 0.0, float(picture.width), float(picture.height))
        sampled = picture.transform(
            (size, size), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
        )
        return normalise(np.asarray(sampled))

    return prepare


def _swapped(image_input: ImageInput) -> Callable[[bytes], Pixels]:
    def prepare(data: bytes) -> Pixels:
        levels = square(np.asarray(_opened(data)), image_input)
        return normalise(np.ascontiguousarray(levels[..., ::-1]))

    return prepare


def _normalised(
    preprocessing: Preprocessing, mean: Sequence[float], std: Sequence[float]
) -> Callable[[bytes], Pixels]:
    """Pixels that the encoder, which takes CLIP's normalisation, sees as if by another one.

    The tower gets (u - mean) / std of the level u where it expects (v - own mean) / own std: the
    same as a level v = own mean + own std * (u - mean) / std.
    """

    def prepare(data: bytes) -> Pixels:
        levels = square(np.asarray(_opened(data)), preprocessing.image_input).transpose(2, 0, 1)
        seen = (levels / 255 - _by_channel(mean)) / _by_channel(std)
        level = _by_channel(preprocessing.mean) + _by_channel(preprocessing.std) * seen
        pixels = (level - _by_channel(MEAN)) / _by_channel(STD)
        return np.ascontiguousarray(pixels, dtype=np.float32)

    return prepare


def _by_channel(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(3, 1, 1)
