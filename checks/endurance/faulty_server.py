"""The real server on an encoder that fails now and then, on purpose and at random.

``FAULT_SHARE`` is the share of the encoder's calls that raise, return NaN or another shape, make
something quite different, or take three seconds. Each is a line in the log: ``injected …``.
"""

import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from application.ports import (
    Device,
    EncoderDescription,
    EncoderLoaderPort,
    EncoderPort,
    PixelBatch,
    RawEmbeddings,
    TokenCount,
)
from tests.support.other_encoders import serve_with

_SLOW_SECONDS: Final = 3


class FaultyEncoder(EncoderPort):
    """Another encoder, but for the faults."""

    def __init__(self, encoder: EncoderPort, share: float, rng: random.Random) -> None:
        self._encoder = encoder
        self._share = share
        self._rng = rng

    @property
    def description(self) -> EncoderDescription:
        return self._encoder.description

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        return self._perhaps(lambda: self._encoder.encode_images(batch))

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        return self._perhaps(lambda: self._encoder.encode_texts(texts))

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        return self._encoder.count_tokens(texts)

    def device_memory_used(self) -> int | None:
        return self._encoder.device_memory_used()

    def _perhaps(self, encode: Callable[[], RawEmbeddings]) -> RawEmbeddings:
        if self._rng.random() >= self._share:
            return encode()
        fault = self._rng.choice([_raise, _not_a_number, _other_shape, _slow])
        logging.info("injected %s", fault.__name__)
        return fault(encode())


def _raise(_: RawEmbeddings) -> RawEmbeddings:
    raise RuntimeError("injected on purpose")


def _not_a_number(rows: RawEmbeddings) -> RawEmbeddings:
    spoilt = np.array(rows)
    spoilt[0, 0] = np.nan
    return spoilt


def _other_shape(rows: RawEmbeddings) -> RawEmbeddings:
    return np.array(rows)[:, :-1]


def _slow(rows: RawEmbeddings) -> RawEmbeddings:
    time.sleep(_SLOW_SECONDS)
    return rows


@dataclass
class FaultyLoader(EncoderLoaderPort):
    """Loads another loader's encoder and makes it faulty."""

    loader: EncoderLoaderPort
    share: float
    rng: random.Random

    def probe_device(self) -> Device:
        return self.loader.probe_device()

    def load(self) -> EncoderPort:
        return FaultyEncoder(self.loader.load(), self.share, self.rng)


if __name__ == "__main__":
    serve_with(lambda real: FaultyLoader(real, float(os.environ["FAULT_SHARE"]), random.Random(11)))
