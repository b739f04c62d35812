"""Both towers on PyTorch, built by OpenCLIP, on CUDA or on the CPU."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import open_clip.model
import torch
from numpy.typing import NDArray

from adapters.checkpoints.checkpoint import Checkpoint, InvalidCheckpoint
from adapters.encoders.precision import Precision
from adapters.tokenizer import END_OF_TEXT, ClipTokenizer, batches_by_length
from application.ports import (
    Device,
    EncoderDescription,
    EncoderPort,
    EncoderUnavailable,
    PixelBatch,
    RawEmbeddings,
)

_OpenClipModel: TypeAlias = Any
"""``open_clip.model.CLIP`` or ``CustomTextCLIP``; open_clip comes without types."""

_DTYPES: Final = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}


def probe_device() -> Device:
    """``cuda:0`` where PyTorch can use it, else ``cpu``."""
    cuda = torch.cuda.is_available()
    return Device(name="cuda:0" if cuda else "cpu", cuda_available=cuda)


class TorchEncoder(EncoderPort):
    """Any CLIP checkpoint on PyTorch."""

    def __init__(self, checkpoint: Checkpoint, device: Device, *, precision: Precision) -> None:
        """Build both towers.

        Args:
            checkpoint: weights and architecture.
            device: where the towers run.
            precision: what they compute in, any but int8; normalisations stay in float32.

        Raises:
            InvalidCheckpoint: weights and architecture do not belong together.
            EncoderUnavailable: PyTorch has no such precision here.
        """
        if precision not in _DTYPES:
            raise EncoderUnavailable(
                f"CLIP_PRECISION={precision} is not for the torch encoder; "
                f"it computes in {', '.join(_DTYPES)}."
            )
        self._device = torch.device(device.name)
        self._dtype = _DTYPES[precision]
        self._model = _build(checkpoint, self._dtype).to(self._device)
        self._text_tower = _TextTower(self._model)
        self._tokenizer = ClipTokenizer()
        self._description = EncoderDescription(
            model=checkpoint.model,
            fingerprint=checkpoint.fingerprint,
            backend="torch",
            precision=str(precision),
            device=device,
            embedding_dimension=checkpoint.embedding_dimension,
            logit_scale=checkpoint.logit_scale,
        )

    @property
    def description(self) -> EncoderDescription:
        """See `EncoderPort.description`."""
        return self._description

    @torch.inference_mode()
    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`."""
        if len(batch) == 0:
            return self._none()
        pixels = torch.from_numpy(batch).to(self._device, self._dtype)
        return _to_numpy(self._model.encode_image(pixels))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
        if not texts:
            return self._none()
        tokens = self._tokenizer(texts)
        embeddings = np.empty(
            (len(tokens), self._description.embedding_dimension), dtype=np.float32
        )
        for places, padded in batches_by_length(tokens, full_length=not self._text_tower.causal):
            inputs = torch.from_numpy(padded).to(self._device)
            embeddings[places] = _to_numpy(self._text_tower(inputs))
        return embeddings

    def device_memory_used(self) -> int | None:
        """See `EncoderPort.device_memory_used`."""
        if self._device.type != "cuda":
            return None
        return torch.cuda.memory_reserved(self._device)

    def _none(self) -> RawEmbeddings:
        return np.empty((0, self._description.embedding_dimension), dtype=np.float32)


class _TextTower:
    """Runs the text tower on batches cut to their longest text (see `batches_by_length`).

    OpenCLIP's own ``encode_text`` always needs all 77 places.
    """

    def __init__(self, model: _OpenClipModel) -> None:
        self._model = model
        # A tower of another kind (bidirectional, or read out elsewhere) needs all 77 places.
        self.causal = (
            isinstance(model, open_clip.model.CLIP)
            and model.text_pool_type == "argmax"
            and model.attn_mask is not None
        )

    def __call__(self, tokens: torch.Tensor) -> Any:
        """int64 ``[n, length]`` → ``[n, dimension]``, not normalised."""
        model = self._model
        if not self.causal:
            return model.encode_text(tokens)
        length = tokens.shape[1]
        dtype = model.transformer.get_cast_dtype()
        places = model.token_embedding(tokens).to(dtype)
        places = places + model.positional_embedding[:length].to(dtype)
        mask = torch.full((length, length), float("-inf"), device=tokens.device).triu(1)
        places = model.ln_final(model.transformer(places, attn_mask=mask))
        ends = (tokens == END_OF_TEXT).int().argmax(dim=1)
        return places[torch.arange(len(tokens), device=tokens.device), ends] @ model.text_projection


def _build(checkpoint: Checkpoint, dtype: torch.dtype) -> _OpenClipModel:
    architecture = dict(checkpoint.architecture)
    custom_text = architecture.pop("custom_text", False)
    kind = open_clip.model.CustomTextCLIP if custom_text else open_clip.model.CLIP
    try:
        model = kind(**architecture, cast_dtype=dtype)
        weights = {
            name: torch.tensor(tensor.array()) for name, tensor in checkpoint.weights.items()
        }
        if custom_text and "positional_embedding" in weights:
            weights = open_clip.model.convert_to_custom_text_state_dict(weights)
        model.load_state_dict(weights, strict=True)
    except (RuntimeError, TypeError, KeyError) as mismatch:
        raise InvalidCheckpoint(
            f"{checkpoint.model}: weights and architecture do not belong together: {mismatch}"
        ) from mismatch
    model.eval().requires_grad_(False)
    if dtype is not torch.float32:
        open_clip.model.convert_weights_to_lp(model, dtype=dtype)
    return model


def _to_numpy(features: torch.Tensor) -> NDArray[np.float32]:
    return features.float().cpu().numpy()
