"""The preprocessing that a checkpoint asks for in its own files.

The service resizes every picture in one way: short side to 224 with a bicubic filter, then the
centre crop. Mean and standard deviation are the checkpoint's own: encoders take pixels that are
normalised with CLIP's, and convert them where the checkpoint has others. Anything else that a
checkpoint asks for is refused, and the error names it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.images.preprocessing import MEAN, STD
from domain.limits import IMAGE_SIZE

_CLIPS_PROCESSORS: Final = (
    *("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"),
    "CLIPFeatureExtractor",
)
"""Names of CLIP's image processor in versions of transformers; all have its defaults."""

_FILTERS: Final = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's numbers, which is how Hugging Face's files name them."""

_FILTER: Final = "bicubic"
_RESIZE: Final = "shortest"


class UnservedPreprocessing(Exception):
    """The checkpoint asks for preprocessing that this service does not do; says which."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture's levels become the image tower's input.

    Attributes:
        mean: of each channel, R, G and B; subtracted from levels between 0 and 1.
        std: of each channel; the difference is divided by it.
    """

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @property
    def identity(self) -> dict[str, Any]:
        """What fingerprints and bundles record of it."""
        return {"size": IMAGE_SIZE, "mean": self.mean, "std": self.std, "resize": _FILTER}

    @property
    def conversion(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Factor and summand, ``[3, 1, 1]`` each, from CLIP's normalisation to this one.

        With level u: (u - mean) / std = ((u - MEAN) / STD) * (STD / std) + (MEAN - mean) / std.
        None where both are the same.
        """
        if (self.mean, self.std) == (MEAN, STD):
            return None
        std = np.array(self.std)
        factor = np.array(STD) / std
        summand = (np.array(MEAN) - np.array(self.mean)) / std
        shape = (3, 1, 1)
        return (
            factor.astype(np.float32).reshape(shape),
            summand.astype(np.float32).reshape(shape),
        )


CLIPS_OWN: Final = Preprocessing()
"""What OpenAI's CLIP was trained with, and most others since."""


def from_hugging_face(config: Mapping[str, Any]) -> Preprocessing:
    """Read an image processor's settings, as transformers writes them.

    Args:
        config: ``preprocessor_config.json``, or ``image_processor`` of ``processor_config.json``;
            what it does not say is as in `transformers.CLIPImageProcessor`.

    Raises:
        UnservedPreprocessing: it asks for what this service does not do.
    """
    kind = config.get("image_processor_type") or config.get("feature_extractor_type")
    if kind is not None and kind not in _CLIPS_PROCESSORS:
        raise UnservedPreprocessing(
            f"images are preprocessed by {_short(kind)}; this service does what "
            "CLIPImageProcessor does"
        )
    for key, needed in (("do_resize", True), ("do_center_crop", True), ("do_pad", False)):
        if bool(config.get(key, needed)) is not needed:
            raise UnservedPreprocessing(
                f"{key} is {_short(config[key])}; this service resizes the short side and crops "
                "the middle"
            )
    _check_resize(_hugging_face_size(config.get("size")))
    _check_size("crop_size", config.get("crop_size"))
    resample = config.get("resample")
    if type(resample) is int and 0 <= resample < len(_FILTERS):
        resample = _FILTERS[resample]
    _check_filter(resample)
    rescaled = config.get("do_rescale", True)
    factor = _number("rescale_factor", config.get("rescale_factor"), 1 / 255) if rescaled else 1.0
    if not config.get("do_normalize", True):
        mean, std = _channels("mean", 0.0, MEAN), _channels("std", 1.0, STD)
    else:
        mean = _channels("image_mean", config.get("image_mean"), MEAN)
        std = _channels("image_std", config.get("image_std"), STD)
    # Levels from 0 to 255 times the factor; 1 / 255 makes them levels between 0 and 1.
    largest = 255 * factor
    if not 0 < largest < math.inf:
        raise UnservedPreprocessing(f"rescale_factor is {factor}; it must be above 0")
    return _normalised_with(
        tuple(value / largest for value in mean), tuple(value / largest for value in std)
    )


def from_open_clip(config: Mapping[str, Any]) -> Preprocessing:
    """Read OpenCLIP's ``preprocess_cfg``, or the same keys of a pretrained tag.

    Raises:
        UnservedPreprocessing: it asks for what this service does not do.
    """
    mode = config.get("mode") or "RGB"
    if mode != "RGB":
        raise UnservedPreprocessing(f"images are read as {_short(mode)}; this service reads RGB")
    _check_resize(config.get("resize_mode"))
    _check_size("size", config.get("size"))
    _check_filter(config.get("interpolation"))
    return _normalised_with(
        _channels("mean", config.get("mean"), MEAN), _channels("std", config.get("std"), STD)
    )


def from_bundle(config: object) -> Preprocessing:
    """Read what a bundle records of its graphs' input.

    Raises:
        UnservedPreprocessing: it asks for what this service does not do.
    """
    if not isinstance(config, Mapping):
        raise UnservedPreprocessing("it does not say how images are preprocessed")
    _check_size("size", config.get("size"))
    _check_filter(config.get("resize"))
    return _normalised_with(
        _channels("mean", config.get("mean"), MEAN), _channels("std", config.get("std"), STD)
    )


def _normalised_with(mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocessing:
    if not all(value > 0 for value in std):
        raise UnservedPreprocessing(f"images are divided by std {list(std)}; it must be above 0")
    # Rounded to four digits they give every picture the same embedding: one fingerprint.
    near = all(abs(a - b) < 1e-4 for a, b in zip(mean + std, MEAN + STD, strict=True))
    return CLIPS_OWN if near else Preprocessing(mean, std)


def _hugging_face_size(size: Any) -> str | None:
    """OpenCLIP's name for the resize mode that a ``size`` asks for.

    Raises:
        UnservedPreprocessing: the short side is not this service's.
    """
    if size is None:
        return None
    if not isinstance(size, Mapping):
        size = {"shortest_edge": size}
    match dict(size):
        case {"shortest_edge": edge, **others} if not any(others.values()):
            _check_size("size", edge)
            return _RESIZE
        case {"height": _, "width": _}:
            return "squash"
        case _:
            return _short(size)


def _check_resize(mode: object) -> None:
    if mode not in (None, _RESIZE):
        raise UnservedPreprocessing(
            f"images are resized with resize_mode {_short(mode)!r}; this service does "
            f"{_RESIZE!r} only: it resizes the short side and crops the middle"
        )


def _check_filter(name: object) -> None:
    if name is not None and str(name).lower() != _FILTER:
        raise UnservedPreprocessing(
            f"images are resized with the filter {_short(name)!r}; this service has {_FILTER!r} "
            "only"
        )


def _check_size(key: str, size: Any) -> None:
    sides = list(size.values()) if isinstance(size, Mapping) else size
    if sides not in (None, IMAGE_SIZE, [IMAGE_SIZE], [IMAGE_SIZE] * 2, (IMAGE_SIZE,) * 2):
        raise UnservedPreprocessing(
            f"{key} is {_short(size)}; this service makes images of {IMAGE_SIZE} x {IMAGE_SIZE} "
            "pixels"
        )


def _channels(key: str, values: Any, usual: tuple[float, ...]) -> tuple[float, ...]:
    if values is None:
        return usual
    if not isinstance(values, Sequence) or isinstance(values, str):
        values = [values] * 3  # OpenCLIP takes one number for all three
    numbers = tuple(_number(key, value) for value in values)
    if len(numbers) != 3:
        raise UnservedPreprocessing(f"{key} is {_short(values)}; it must have three numbers")
    return numbers


def _number(key: str, value: Any, usual: float | None = None) -> float:
    if value is None and usual is not None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UnservedPreprocessing(f"{key} has {_short(value)!r}, which is not a finite number")
    return float(value)


def _short(value: object) -> str:
    """A value from a file, cut to what fits into a message."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
