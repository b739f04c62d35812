"""The image tower on a TensorRT engine, the text tower on another runtime."""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from adapters.encoders.fitting import encode_as_it_fits
from adapters.encoders.tensorrt.runner import EngineRunner
from application.ports import (
    EncoderDescription,
    EncoderPort,
    PixelBatch,
    RawEmbeddings,
    TextTower,
    TokenCount,
)


class TensorRtEncoder(EncoderPort):
    """An engine behind the port. Only the runner needs a GPU; this class does not.

    Takes as many calls at once as the runner. Texts take turns, since their tower runs on another
    runtime.
    """

    def __init__(
        self,
        runner: EngineRunner,
        text_tower: TextTower,
        description: EncoderDescription,
        *,
        memory_used: Callable[[], int | None],
    ) -> None:
        """Join the parts.

        Args:
            runner: the loaded engine.
            text_tower: of the same checkpoint.
            description: the facts about this encoder.
            memory_used: bytes of device memory that this process uses.
        """
        self._runner = runner
        self._text_tower = text_tower
        self._description = description
        self._memory_used = memory_used
        self._texts_take_turns = threading.Lock()

    @property
    def description(self) -> EncoderDescription:
        """See `EncoderPort.description`."""
        return self._description

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`.

        Raises:
            ServiceUnavailable: there is not enough device memory for a single image.
            EncoderFault: the engine refused this call.
            EncoderLost: the device failed.
        """
        return encode_as_it_fits(
            batch,
            self._runner.run,
            dimension=self._description.embedding_dimension,
            at_once=self._runner.largest_batch,
        )

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
        if not texts:
            return self._none(0)
        with self._texts_take_turns:
            return self._text_tower.encode_texts(texts)

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """See `EncoderPort.count_tokens`."""
        return self._text_tower.count_tokens(texts)

    def device_memory_used(self) -> int | None:
        """See `EncoderPort.device_memory_used`."""
        return self._memory_used()

    def _none(self, count: int) -> RawEmbeddings:
        return np.empty((count, self._description.embedding_dimension), dtype=np.float32)
