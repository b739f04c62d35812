"""An encoder without a model, for tests and for trying clients: content in, unit vector out."""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from adapters.images.preprocessing import levels_of
from adapters.models.clip_tokenizer import ClipTokenizer
from application.ports import (
    Device,
    EncoderDescription,
    EncoderPort,
    PixelBatch,
    RawEmbeddings,
    TokenCount,
)

_CPU = Device(name="cpu", cuda_available=False)


class FakeEncoder(EncoderPort):
    """Deterministic, content-dependent unit vectors.

    The same image or text always gives the same vector, a different one a nearly orthogonal one,
    on every machine and in every batch. The vectors mean nothing beyond that.
    """

    def __init__(self, *, embedding_dimension: int) -> None:
        """Make one with ``embedding_dimension`` floats per embedding."""
        self._description = EncoderDescription(
            model="fake",
            fingerprint="fake000000000000",
            backend="fake",
            precision="fp32",
            device=_CPU,
            embedding_dimension=embedding_dimension,
            logit_scale=100.0,
        )

    @property
    def description(self) -> EncoderDescription:
        """See `EncoderPort.description`."""
        return self._description

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`."""
        levels = levels_of(batch)
        images = batch if levels is None else levels
        return self._vectors([np.ascontiguousarray(image).data for image in images])

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`; here a word stands for a token."""
        return self._vectors([" ".join(text.lower().split()[:75]).encode() for text in texts])

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """See `EncoderPort.count_tokens`: as CLIP counts."""
        return _tokenizer().count(texts)

    def device_memory_used(self) -> int | None:
        """See `EncoderPort.device_memory_used`."""
        return None

    def _vectors(self, contents: Sequence[bytes | memoryview]) -> RawEmbeddings:
        vectors = np.empty((len(contents), self._description.embedding_dimension), np.float32)
        for row, content in zip(vectors, contents, strict=True):
            seed = int.from_bytes(hashlib.sha256(content).digest())
            direction = np.random.default_rng(seed).standard_normal(row.shape)
            row[:] = direction / np.linalg.norm(direction)
        return vectors


@functools.cache
def _tokenizer() -> ClipTokenizer:
    return ClipTokenizer()
