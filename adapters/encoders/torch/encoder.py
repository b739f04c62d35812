"""Both towers on PyTorch, built by OpenCLIP, on CUDA or on the CPU."""

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Final, TypeAlias

import numpy as np
import open_clip.model
import torch

from adapters.encoders.cuda import CALLS_AT_ONCE, ProcessMemory, find_gpu
from adapters.encoders.fitting import encode_as_it_fits
from adapters.encoders.torch.compiling import compile_blocks, compiler_missing
from adapters.encoders.torch.device import device_failures, loading, to_device, to_host
from adapters.encoders.torch.lanes import Forward, ImageTowerLanes, TorchCuda
from adapters.encoders.torch.modules import convert, siglip, xlm_roberta_clip
from adapters.encoders.torch.normalisation import Normalisation
from adapters.encoders.torch.text_tower import TorchTextTower
from adapters.images.photos import samples
from adapters.models.architecture import Family
from adapters.models.checkpoint import Checkpoint
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.encoder_description import encoder_description
from adapters.models.precision import Precision
from application.ports import (
    Device,
    EncoderDescription,
    EncoderPort,
    EncoderUnavailable,
    PixelBatch,
    RawEmbeddings,
    TextTower,
    TokenCount,
)

logger = logging.getLogger(__name__)

_OpenClipModel: TypeAlias = Any
"""``open_clip.model.CLIP`` or ``CustomTextCLIP``; open_clip comes without types."""

DTYPES: Final = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}


class TorchEncoder(EncoderPort):
    """Any CLIP checkpoint on PyTorch."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: Device,
        *,
        precision: Precision,
        compiles: bool = False,
        cuda: TorchCuda | None = None,
    ) -> None:
        """Build both towers.

        Args:
            checkpoint: weights and architecture.
            device: where the towers run.
            precision: of both towers, any but int8; normalisations stay in float32.
            compiles: whether to compile the image tower's blocks, which takes seconds, and to run
                frequent batch sizes as CUDA graphs; each only if it works here.
            cuda: streams and graphs; None takes PyTorch's own if the device is CUDA.

        Raises:
            InvalidCheckpoint: weights and architecture do not belong together.
            EncoderUnavailable: PyTorch does not compute in this precision, or the device has not
                enough memory for the weights.
        """
        if precision not in DTYPES:
            raise EncoderUnavailable(
                f"CLIP_PRECISION={precision} is not possible with the torch encoder; "
                f"it computes in {', '.join(DTYPES)}."
            )
        self._device = torch.device(device.name)
        dtype = DTYPES[precision]
        model = build(checkpoint, dtype)
        normalisation = Normalisation(checkpoint.preprocessing)
        with loading(checkpoint.model):
            model = model.to(self._device)
            normalisation = normalisation.to(self._device)
        self._image_tower = take_image_tower(model)
        self._forward = _forward(self._image_tower, normalisation, dtype)
        self._text_tower = TorchTextTower(model, checkpoint, self._device)
        self._lanes: ImageTowerLanes | None = None
        if self._device.type == "cuda" or cuda is not None:
            self._lanes = ImageTowerLanes(self._forward, self._device, cuda=cuda)
        if compiles:
            self._compile(checkpoint)
            if self._lanes is not None:
                self._lanes.capture_graphs()
        gpu = find_gpu() if device.cuda_available else None
        self._memory = None if gpu is None else ProcessMemory(gpu)
        self._description = encoder_description(
            checkpoint,
            backend="torch",
            precision=str(precision),
            device=device,
            concurrent_calls=1 if self._lanes is None else CALLS_AT_ONCE,
        )

    @property
    def description(self) -> EncoderDescription:
        """See `EncoderPort.description`."""
        return self._description

    @property
    def text_tower(self) -> TextTower:
        """See `EncoderPort.text_tower`: without the image tower, whose memory can then be freed."""
        return self._text_tower

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`.

        Raises:
            ServiceUnavailable: there is not enough device memory for a single image.
            EncoderLost: the device failed.
        """
        return encode_as_it_fits(
            batch,
            self._run,
            dimension=self._description.embedding_dimension,
            at_once=max(len(batch), 1),
        )

    def _compile(self, checkpoint: Checkpoint) -> None:
        if (missing := compiler_missing()) is not None:
            logger.info("PyTorch's blocks are not compiled: %s is not installed", missing)
            return
        pixels = samples(checkpoint.preprocessing.image_input)
        compile_blocks(self._image_tower, self._run, pixels)

    def _run(self, batch: PixelBatch) -> RawEmbeddings:
        if self._lanes is not None:
            return self._lanes.run(batch)
        with torch.inference_mode(), device_failures():
            return to_host(self._forward(to_device(batch, self._device)))

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
        if not texts:
            return self._none()
        with nullcontext() if self._lanes is None else self._lanes.turn():
            return self._text_tower.encode_texts(texts)

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """See `EncoderPort.count_tokens`."""
        return self._text_tower.count_tokens(texts)

    def device_memory_used(self) -> int | None:
        """See `EncoderPort.device_memory_used`."""
        if self._device.type != "cuda":
            return None
        # PyTorch's allocator does not count CUDA's context, which takes hundreds of megabytes.
        used = None if self._memory is None else self._memory.used()
        return torch.cuda.memory_reserved(self._device) if used is None else used

    def _none(self) -> RawEmbeddings:
        return np.empty((0, self._description.embedding_dimension), dtype=np.float32)


def _forward(tower: torch.nn.Module, normalisation: Normalisation, dtype: torch.dtype) -> Forward:
    """The function from pixels to embeddings; it holds the tower but not its encoder."""

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = tower(normalisation(pixels).to(dtype))
        return features

    return forward


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> _OpenClipModel:
    """Both towers as one module, on the CPU.

    Raises:
        InvalidCheckpoint: weights and architecture do not belong together.
    """
    try:
        with torch.device("meta"):  # only shapes
            _check_sizes(checkpoint, _module(checkpoint, dtype))
        model = _module(checkpoint, dtype)
        weights = {
            name: torch.tensor(tensor.array()) for name, tensor in checkpoint.weights.items()
        }
        if isinstance(model, open_clip.model.CustomTextCLIP) and "positional_embedding" in weights:
            weights = open_clip.model.convert_to_custom_text_state_dict(weights)
        model.load_state_dict(weights, strict=True)
    except InvalidCheckpoint:
        raise
    except Exception as mismatch:  # OpenCLIP raises anything for settings it does not expect
        raise InvalidCheckpoint(
            f"{checkpoint.model}: weights and architecture do not belong together: {mismatch}"
        ) from mismatch
    model.eval().requires_grad_(False)
    if dtype is not torch.float32:
        convert(model, dtype)
    return model


def _module(checkpoint: Checkpoint, dtype: torch.dtype) -> _OpenClipModel:
    """Both towers with the names of OpenCLIP's state dict, before loading the weights."""
    architecture = dict(checkpoint.architecture)
    if checkpoint.family is Family.SIGLIP:
        return siglip(architecture, dtype)
    if checkpoint.family is Family.XLM_ROBERTA:
        return xlm_roberta_clip(architecture, dtype)
    custom_text = architecture.pop("custom_text", False)
    kind = open_clip.model.CustomTextCLIP if custom_text else open_clip.model.CLIP
    return kind(**architecture, cast_dtype=dtype)


def _check_sizes(checkpoint: Checkpoint, model: _OpenClipModel) -> None:
    """Refuse an architecture that is larger than its weights, before memory is allocated.

    Raises:
        InvalidCheckpoint: it is larger.
    """
    wanted = sum(parameter.numel() for parameter in model.parameters())
    there = sum(math.prod(tensor.shape) for tensor in checkpoint.weights.values())
    if wanted > there:
        raise InvalidCheckpoint(
            f"{checkpoint.model}: weights and architecture do not belong together: there are "
            f"{there} numbers, and the architecture needs {wanted}."
        )


def build_text_tower(
    checkpoint: Checkpoint, device: Device, *, precision: Precision
) -> TorchTextTower:
    """Only the text tower; the image tower's weights are never moved to the device.

    Raises:
        InvalidCheckpoint: weights and architecture do not belong together.
    """
    model = build(checkpoint, DTYPES[precision])
    take_image_tower(model)
    place = torch.device(device.name)
    with loading(checkpoint.model):
        model = model.to(place)
    return TorchTextTower(model, checkpoint, place)


def take_image_tower(model: _OpenClipModel) -> torch.nn.Module:
    """Take the image tower out of the model."""
    tower: torch.nn.Module = model.visual
    del model.visual
    return tower
