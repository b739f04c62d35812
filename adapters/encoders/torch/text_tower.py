"""The text tower on PyTorch; each batch is only as long as its longest text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import open_clip.model
import torch

from adapters.encoders.torch.device import device_failures
from adapters.models.tokenizer import END_OF_TEXT, ClipTokenizer, batches_by_length
from application.ports import RawEmbeddings, TextTower


class TorchTextTower(TextTower):
    """OpenCLIP's text tower, run part by part: its own ``encode_text`` always needs 77 tokens."""

    def __init__(self, model: Any, device: torch.device, *, embedding_dimension: int) -> None:
        """Use a model.

        Args:
            model: ``open_clip.model.CLIP`` or ``CustomTextCLIP``, on the device; its image tower
                is not used and may be missing.
            device: where it runs.
            embedding_dimension: floats per embedding.
        """
        self._model = model
        self._device = device
        self._embedding_dimension = embedding_dimension
        self._tokenizer = ClipTokenizer()
        # A tower of another kind (bidirectional, or read out elsewhere) needs all 77 tokens.
        self._causal = (
            isinstance(model, open_clip.model.CLIP)
            and model.text_pool_type == "argmax"
            and model.attn_mask is not None
        )

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
        tokens = self._tokenizer(texts)
        embeddings = np.empty((len(tokens), self._embedding_dimension), dtype=np.float32)
        for places, padded in batches_by_length(tokens, full_length=not self._causal):
            with device_failures():
                features = self._encode(torch.from_numpy(padded).to(self._device))
                embeddings[places] = features.float().cpu().numpy()
        return embeddings

    def _encode(self, tokens: torch.Tensor) -> Any:
        """int64 ``[n, length]`` → ``[n, dimension]``, not normalised."""
        model = self._model
        if not self._causal:
            return model.encode_text(tokens)
        length = tokens.shape[1]
        dtype = model.transformer.get_cast_dtype()
        places = model.token_embedding(tokens).to(dtype)
        places = places + model.positional_embedding[:length].to(dtype)
        mask = torch.full((length, length), float("-inf"), device=tokens.device).triu(1)
        places = model.ln_final(model.transformer(places, attn_mask=mask))
        ends = (tokens == END_OF_TEXT).int().argmax(dim=1)
        return places[torch.arange(len(tokens), device=tokens.device), ends] @ model.text_projection
