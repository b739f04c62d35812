"""An encoder without a model, for tests and for trying clients: content in, unit vector out."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        return self._vectors([_digest(np.ascontiguousarray(image)) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`; here a word stands for a token."""
        words = (" ".join(text.lower().split()[:75]).encode() for text in texts)
        return self._vectors([hashlib.sha256(text).digest() for text in words])

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """See `EncoderPort.count_tokens`: as CLIP counts."""
        return _tokenizer().count(texts)

    def device_memory_used(self) -> int | None:
        """See `EncoderPort.device_memory_used`."""
        return None

    def _vectors(self, digests: Sequence[bytes]) -> RawEmbeddings:
        vectors = np.empty((len(digests), self._description.embedding_dimension), np.float32)
        for row, digest in zip(vectors, digests, strict=True):
            direction = np.random.default_rng(int.from_bytes(digest)).standard_normal(row.shape)
            row[:] = direction / np.linalg.norm(direction)
        return vectors


def _digest(pixels: NDArray[Any]) -> bytes:
    """A hash of pixels, which takes a tenth of SHA-256's time.

    The benchmark counts this encoder's time as the server's own. It is multilinear hashing modulo
    2**64 (Lemire and Kaser 2014, "Strongly universal string hashing is fast"); the factors are odd,
    so that no change of a single word goes unnoticed.
    """
    data = pixels.reshape(-1).view(np.uint8)
    words = data[: len(data) // 8 * 8].view("<u8")
    with np.errstate(over="ignore"):
        total = int((words * _odd_factors(len(words))).sum())
    return total.to_bytes(8) + data[8 * len(words) :].tobytes()


@functools.lru_cache(maxsize=4)
def _odd_factors(count: int) -> NDArray[np.uint64]:
    return np.random.default_rng(0).integers(2**63, size=count, dtype=np.uint64) * 2 + 1


@functools.cache
def _tokenizer() -> ClipTokenizer:
    return ClipTokenizer()
