"""The image tower in int8, made from a bundle by NNCF and judged before it is used."""

import errno
import logging
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters.artifacts.checksums import broken_directory, seal_directory
from adapters.artifacts.scratch import making_in, put_in_place
from adapters.images.photos import crops_of
from adapters.models.bundle import Bundle
from application.ports import EncoderUnavailable, PixelBatch
from domain.embedding import Embedding, smallest_cosine
from domain.errors import EncoderFault
from domain.limits import SMALLEST_COSINE

logger = logging.getLogger(__name__)

_CALIBRATION: Final = ("cat", "coffee", "rocket", "grass", "gravel")
_INDEPENDENT: Final = ("astronaut", "photographer")
_GRAPH: Final = "image_tower_int8.xml"
_FORMAT: Final = 2


def int8_image_tower(bundle: Bundle, cache: Path) -> Path:
    """The quantised image tower, made now if it is not in the cache.

    Weights and activations are quantised with NNCF's transformer settings, calibrated on crops of
    five photos that come with this package. Takes about a minute for ViT-L/14.

    Args:
        bundle: what to quantise.
        cache: directory under which results are kept.

    Returns:
        An OpenVINO graph with the inputs and outputs of the bundle's own.

    Raises:
        EncoderUnavailable: NNCF is not installed, or int8 would change the embeddings too much.
        OSError: the cache cannot be written.
    """
    directory = cache / "int8" / f"{bundle.fingerprint}-{_FORMAT}"
    if broken_directory(directory) is None:
        return directory / _GRAPH
    with making_in(directory.parent, ".int8-") as scratch:
        broken = broken_directory(directory)
        if broken is None:  # made by another process meanwhile
            return directory / _GRAPH
        if directory.exists():
            logger.warning("quantising anew: %s", broken)
        logger.info("quantising the image tower to int8; this takes about a minute, once")
        making = scratch / "made"
        making.mkdir()
        _quantise(bundle, making / _GRAPH)
        seal_directory(making)
        put_in_place(making, directory)
    return directory / _GRAPH


def _quantise(bundle: Bundle, target: Path) -> None:
    # First, so that NNCF, which reports its use as well, finds the telemetry gone.
    from adapters.encoders.openvino.runtime import openvino

    try:
        import nncf
    except ImportError:
        raise EncoderUnavailable(
            "CLIP_PRECISION=int8 needs NNCF; install the extra 'int8'."
        ) from None

    model = openvino.Core().read_model(str(bundle.image_tower))
    crops = [pixels[np.newaxis] for name in _CALIBRATION for pixels in crops_of(name)]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(crops),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(crops),
    )
    independent = np.stack([pixels for name in _INDEPENDENT for pixels in crops_of(name)])
    try:
        smallest = _agreement(bundle.image_tower, quantised, independent)
    except EncoderFault as fault:
        raise EncoderUnavailable(
            f"CLIP_PRECISION=int8 does not work for this checkpoint: {fault.detail}. "
            "Use bf16 or fp32."
        ) from fault
    logger.info("int8 against fp32 on photos not used in calibration: cosine >= %.4f", smallest)
    if not smallest > SMALLEST_COSINE:
        raise EncoderUnavailable(
            f"CLIP_PRECISION=int8 would change this checkpoint's embeddings too much: cosine "
            f"{smallest:.4f} against fp32, more than {SMALLEST_COSINE} is needed. "
            "Use bf16 or fp32."
        )
    try:
        openvino.save_model(quantised, str(target))
    except RuntimeError as failure:  # it says "cannot open" or "cannot write", whatever the cause
        reason = "OpenVINO could not write the int8 graph"
        raise OSError(errno.EIO, reason, str(target)) from failure


def _agreement(reference: Path, candidate: object, batch: PixelBatch) -> float:
    """The smallest cosine between what both make of each image.

    Raises:
        EncoderFault: one of them makes a vector that is zero or not finite.
    """
    from adapters.encoders.openvino.runtime import openvino

    core = openvino.Core()
    exact = core.compile_model(str(reference), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    tried = core.compile_model(candidate, "CPU")

    def embeddings(model: Any) -> list[Embedding]:
        return [Embedding.from_encoder(model([pixels[np.newaxis]])[0][0]) for pixels in batch]

    return smallest_cosine(embeddings(exact), embeddings(tried))
