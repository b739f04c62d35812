"""The server on a fake encoder that fails on demand, for tests of faults.

The file named by ``FAULT_FILE`` says how, at every call to the encoder: ``nan``, ``shape``,
``raise``, ``lost`` (its device), ``hang`` (until it says something else), ``missing`` (``nan``, and
it cannot be reloaded) or nothing.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adapters.encoders.fake import FakeEncoder
from application.ports import (
    Device,
    EncoderLoaderPort,
    EncoderLost,
    EncoderPort,
    EncoderUnavailable,
    PixelBatch,
    RawEmbeddings,
)
from tests.support.other_encoders import serve_with


class FaultyEncoder(FakeEncoder):
    """Works unless the file says otherwise."""

    def __init__(self, orders: Path) -> None:
        super().__init__(embedding_dimension=768)
        self._orders = orders

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        return self._spoilt(super().encode_images(batch))

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        return self._spoilt(super().encode_texts(texts))

    def _spoilt(self, rows: RawEmbeddings) -> RawEmbeddings:
        match self._orders.read_text():
            case "nan" | "missing":
                return np.full_like(rows, np.nan)
            case "shape":
                return rows[:, 1:]
            case "raise":
                raise RuntimeError("out of resources at 0x7f")
            case "lost":
                raise EncoderLost(
                    "the GPU failed: cudaErrorIllegalAddress in cudaStreamSynchronize."
                )
            case "hang":
                while self._orders.read_text() == "hang":
                    time.sleep(0.02)
        return rows


class FaultyLoader(EncoderLoaderPort):
    """Cannot load anything while the order is ``missing``."""

    def __init__(self, orders: Path) -> None:
        self._orders = orders

    def probe_device(self) -> Device:
        return Device("cpu", cuda_available=False)

    def load(self) -> EncoderPort:
        if self._orders.read_text() == "missing":
            raise EncoderUnavailable("the checkpoint is gone.")
        return FaultyEncoder(self._orders)


if __name__ == "__main__":
    serve_with(lambda _: FaultyLoader(Path(os.environ["FAULT_FILE"])))
