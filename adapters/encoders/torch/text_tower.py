"""The text tower on PyTorch; each batch is only as long as its longest text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.encoders.fitting import encode_as_it_fits
from adapters.encoders.torch.device import device_failures, to_device, to_host
from adapters.models.architecture import Family
from adapters.models.checkpoint import Checkpoint
from adapters.models.clip_tokenizer import END_OF_TEXT
from adapters.models.tokens import batches_by_length
from application.ports import RawEmbeddings, TextTower, TokenCount


class TorchTextTower(TextTower):
    """OpenCLIP's text tower.

    Plain CLIP's tower is run in parts, because its own ``encode_text`` always needs the whole
    context.
    """

    def __init__(self, model: Any, checkpoint: Checkpoint, device: torch.device) -> None:
        """Use a model.

        Args:
            model: as `build` makes it, on the device; its image tower is not used and may be
                missing.
            checkpoint: that it was built from.
            device: where it runs.

        Raises:
            InvalidCheckpoint: the tokenizer is damaged.
        """
        self._model = model
        self._device = device
        self._embedding_dimension = checkpoint.embedding_dimension
        self._tokenizer = checkpoint.tokenization.tokenizer()
        self._padding = checkpoint.tokenization.padding
        self._is_clips = checkpoint.family is Family.CLIP

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`.

        Raises:
            ServiceUnavailable: there is not enough device memory for a single text.
            EncoderLost: the device failed.
        """
        tokens = self._tokenizer(texts)
        embeddings = np.empty((len(tokens), self._embedding_dimension), dtype=np.float32)
        for places, padded in batches_by_length(tokens, self._padding):
            embeddings[places] = encode_as_it_fits(
                padded,
                self._run,
                dimension=self._embedding_dimension,
                at_once=len(padded),
                what="text",
            )
        return embeddings

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """See `EncoderPort.count_tokens`."""
        return self._tokenizer.count(texts)

    @torch.inference_mode()
    def _run(self, padded: NDArray[np.int64]) -> RawEmbeddings:
        with device_failures():
            return to_host(self._encode(to_device(padded, self._device)))

    def _encode(self, tokens: torch.Tensor) -> Any:
        """int64 ``[n, length]`` → ``[n, dimension]``, not normalised."""
        model = self._model
        if not self._is_clips:
            return model.encode_text(tokens)
        length = tokens.shape[1]
        dtype = model.transformer.get_cast_dtype()
        places = model.token_embedding(tokens).to(dtype)
        places = places + model.positional_embedding[:length].to(dtype)
        mask = torch.full((length, length), float("-inf"), device=tokens.device).triu(1)
        places = model.ln_final(model.transformer(places, attn_mask=mask))
        ends = (tokens == END_OF_TEXT).int().argmax(dim=1)
        return places[torch.arange(len(tokens), device=tokens.device), ends] @ model.text_projection
