"""The server on a fake encoder that takes its time, for tests of overload and shutdown.

``SLOW_SECONDS`` is how long each call to the encoder takes; the rest is the server's own.
"""

import logging
import os
import time

from adapters.encoders.fake import FakeEncoder
from application.ports import (
    Device,
    EncoderLoaderPort,
    EncoderPort,
    PixelBatch,
    RawEmbeddings,
)
from tests.support.other_encoders import serve_with


class SlowEncoder(FakeEncoder):
    """Says when it is called, and takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(embedding_dimension=768)
        self._seconds = seconds

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        logging.info("encoding %d images", len(batch))
        time.sleep(self._seconds)
        return super().encode_images(batch)


class SlowLoader(EncoderLoaderPort):
    """Takes as long to load as each call of its encoder takes."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def probe_device(self) -> Device:
        return Device("cpu", cuda_available=False)

    def load(self) -> EncoderPort:
        time.sleep(self._seconds)
        return SlowEncoder(self._seconds)


if __name__ == "__main__":
    serve_with(lambda _: SlowLoader(float(os.environ["SLOW_SECONDS"])))
