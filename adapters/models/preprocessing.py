"""The preprocessing that a checkpoint's files specify.

The checkpoint sets the picture's form (`ImageInput`), mean and standard deviation. Pixels are
normalised with CLIP's values, and encoders convert them if the checkpoint has others. Unsupported
preprocessing is refused, and the error names it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.images.preprocessing import MEAN, STD
from application.ports import CLIPS_INPUT, Fit, ImageInput
from domain.limits import IMAGE_SIZE, LARGEST_IMAGE_SIZE

_CLIPS_PROCESSORS: Final = (
    *("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"),
    "CLIPFeatureExtractor",
)
"""Names of CLIP's image processor in different versions of transformers; the defaults are the
same."""

_SIGLIPS_PROCESSORS: Final = (
    *("SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil"),
)

_FILTERS: Final = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Filters by Pillow's numbers, as in Hugging Face's files."""

_FILTER: Final = "bicubic"
_FITS: Final = {"shortest": Fit.CROP, "squash": Fit.SQUASH, "longest": Fit.PAD}
"""Fits by OpenCLIP's names for its ``resize_mode``."""


class UnservedPreprocessing(Exception):
    """The checkpoint needs preprocessing that this service does not support; says which."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The preprocessing from a picture to the image tower's input.

    Attributes:
        mean: of each channel, R, G and B; subtracted from levels between 0 and 1.
        std: of each channel; the difference is divided by it.
        image_input: how it is resized.
    """

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    image_input: ImageInput = CLIPS_INPUT

    @property
    def identity(self) -> dict[str, Any]:
        """The form recorded in fingerprints and bundles. Always the same for plain CLIP."""
        described = self.image_input
        identity: dict[str, Any] = {
            "size": described.size,
            "mean": self.mean,
            "std": self.std,
            "resize": described.filter,
        }
        if described.fit is not Fit.CROP:
            identity["fit"] = str(described.fit)
        if described.fit is Fit.PAD:
            identity["fill"] = described.fill
        return identity

    @property
    def conversion(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Factor and summand, ``[3, 1, 1]`` each, from CLIP's normalisation to this one.

        With level u: (u - mean) / std = ((u - MEAN) / STD) * (STD / std) + (MEAN - mean) / std.
        None if both are the same.
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
"""The preprocessing of OpenAI's CLIP, and of most models since."""

SIGLIPS_OWN: Final = Preprocessing(
    (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), ImageInput(fit=Fit.SQUASH, filter="bicubic")
)
"""The default of `transformers.SiglipImageProcessor`."""


def from_hugging_face(config: Mapping[str, Any], usual: Preprocessing = CLIPS_OWN) -> Preprocessing:
    """Read an image processor's settings as written by transformers.

    Args:
        config: ``preprocessor_config.json``, or ``image_processor`` of ``processor_config.json``.
        usual: the defaults if it does not name a processor.

    Raises:
        UnservedPreprocessing: it asks for what this service does not do.
    """
    kind = config.get("image_processor_type") or config.get("feature_extractor_type")
    if kind in _CLIPS_PROCESSORS:
        usual = CLIPS_OWN
    elif kind in _SIGLIPS_PROCESSORS:
        usual = SIGLIPS_OWN
    elif kind is not None:
        raise UnservedPreprocessing(
            f"images are preprocessed by {_short(kind)}; this service supports "
            "CLIPImageProcessor and SiglipImageProcessor"
        )
    for key, needed in (("do_resize", True), ("do_pad", False)):
        if bool(config.get(key, needed)) is not needed:
            raise UnservedPreprocessing(
                f"{key} is {_short(config[key])}; this service resizes every picture to a square"
            )
    resample = config.get("resample")
    if type(resample) is int and 0 <= resample < len(_FILTERS):
        resample = _FILTERS[resample]
    image_input = _input(
        *_hugging_face_size(config, usual.image_input),
        _filter(resample) or usual.image_input.filter,
    )
    rescaled = config.get("do_rescale", True)
    factor = _number("rescale_factor", config.get("rescale_factor"), 1 / 255) if rescaled else 1.0
    if not config.get("do_normalize", True):
        mean, std = _channels("mean", 0.0, MEAN), _channels("std", 1.0, STD)
    else:
        mean = _channels("image_mean", config.get("image_mean"), usual.mean)
        std = _channels("image_std", config.get("image_std"), usual.std)
    # Levels from 0 to 255 times the factor; 1 / 255 makes them levels between 0 and 1.
    largest = 255 * factor
    if not 0 < largest < math.inf:
        raise UnservedPreprocessing(f"rescale_factor is {factor}; it must be above 0")
    return _normalised_with(
        tuple(value / largest for value in mean),
        tuple(value / largest for value in std),
        image_input,
    )


def from_open_clip(config: Mapping[str, Any], image_size: int = IMAGE_SIZE) -> Preprocessing:
    """Read OpenCLIP's ``preprocess_cfg``, or the same keys of a pretrained tag.

    Args:
        config: what it does not say is as for OpenAI's CLIP.
        image_size: of the image tower, where the preprocessing does not say it.

    Raises:
        UnservedPreprocessing: it asks for what this service does not do.
    """
    mode = config.get("mode") or "RGB"
    if mode != "RGB":
        raise UnservedPreprocessing(f"images are read as {_short(mode)}; this service reads RGB")
    resize_mode = config.get("resize_mode") or "shortest"
    if resize_mode not in _FITS:
        raise UnservedPreprocessing(
            f"images are resized with resize_mode {_short(resize_mode)!r}; this service has "
            f"{', '.join(_FITS)}"
        )
    fill = config.get("fill_color") or 0
    if type(fill) is not int or not 0 <= fill <= 255:
        raise UnservedPreprocessing(f"fill_color is {_short(fill)}; it must be 0 to 255")
    return _normalised_with(
        _channels("mean", config.get("mean"), MEAN),
        _channels("std", config.get("std"), STD),
        _input(
            _side("size", config.get("size")) or image_size,
            _FITS[resize_mode],
            _filter(config.get("interpolation")) or _FILTER,
            fill,
        ),
    )


def from_bundle(config: object) -> Preprocessing:
    """Read what a bundle records of its graphs' input.

    Raises:
        UnservedPreprocessing: it asks for what this service does not do.
    """
    if not isinstance(config, Mapping):
        raise UnservedPreprocessing("it does not say how images are preprocessed")
    fit = config.get("fit", Fit.CROP)
    if fit not in set(Fit):
        raise UnservedPreprocessing(f"fit is {_short(fit)}; this service has {', '.join(Fit)}")
    return from_open_clip(
        {
            "mean": config.get("mean"),
            "std": config.get("std"),
            "size": config.get("size"),
            "interpolation": config.get("resize"),
            "resize_mode": next(name for name, known in _FITS.items() if known == fit),
            "fill_color": config.get("fill"),
        }
    )


def _input(size: int, fit: Fit, filter_name: str, fill: int = 0) -> ImageInput:
    return ImageInput(size, fit, filter_name, fill if fit is Fit.PAD else 0)


def _normalised_with(
    mean: tuple[float, ...], std: tuple[float, ...], image_input: ImageInput
) -> Preprocessing:
    if not all(value > 0 for value in std):
        raise UnservedPreprocessing(f"images are divided by std {list(std)}; it must be above 0")
    # Rounded to four digits they give every picture the same embedding: one fingerprint.
    near = all(abs(a - b) < 1e-4 for a, b in zip(mean + std, MEAN + STD, strict=True))
    return Preprocessing(*((MEAN, STD) if near else (mean, std)), image_input)


def _hugging_face_size(config: Mapping[str, Any], usual: ImageInput) -> tuple[int, Fit]:
    """Side and fit that ``size``, ``do_center_crop`` and ``crop_size`` ask for.

    Raises:
        UnservedPreprocessing: the result is no square, or the crop is not what was resized.
    """
    size = config.get("size")
    if size is None:
        side, fit = usual.size, usual.fit
    else:
        if not isinstance(size, Mapping):
            # A number is the short side for CLIP, and both for SigLIP.
            fits = {Fit.CROP: {"shortest_edge": size}, Fit.SQUASH: {"height": size, "width": size}}
            size = fits[usual.fit]
        match {key: value for key, value in size.items() if value}:
            case {"shortest_edge": edge, **others} if not others:
                fit = Fit.CROP
            case {"height": edge, "width": width, **others} if width == edge and not others:
                fit = Fit.SQUASH
            case _:
                raise UnservedPreprocessing(
                    f"size is {_short(size)}; this service supports only square images"
                )
        side = _side("size", edge) or usual.size
    crops = bool(config.get("do_center_crop", usual.fit is Fit.CROP))
    if fit is Fit.CROP and not crops:
        raise UnservedPreprocessing(
            "the short side is resized and do_center_crop is False; this service supports only "
            "square images"
        )
    crop = _side("crop_size", config.get("crop_size")) if crops else side
    if (crop or side) != side:
        raise UnservedPreprocessing(
            f"crop_size is {_short(config['crop_size'])} and size {side}; they must be the same"
        )
    return side, fit


def _filter(name: object) -> str | None:
    if name is None:
        return None
    if str(name).lower() not in _FILTERS:
        raise UnservedPreprocessing(
            f"images are resized with the filter {_short(name)!r}; this service has "
            f"{', '.join(_FILTERS)}"
        )
    return str(name).lower()


def _side(key: str, size: Any) -> int | None:
    """The side of a square that is given as a number, a pair or a mapping; None: not given."""
    if size is None:
        return None
    given = list(size.values()) if isinstance(size, Mapping) else size
    sides = given if isinstance(given, list | tuple) and given else [given]
    side = sides[0]
    is_square = type(side) is int and all(other == side for other in sides)
    if not is_square or not 1 <= int(side) <= LARGEST_IMAGE_SIZE:
        raise UnservedPreprocessing(
            f"{key} is {_short(size)}; this service supports squares of at most "
            f"{LARGEST_IMAGE_SIZE} x {LARGEST_IMAGE_SIZE} pixels"
        )
    return int(side)


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
