"""The image tower on a TensorRT engine, the text tower on something else."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from adapters.encoders.cuda import OutOfDeviceMemory
from adapters.encoders.tensorrt.runner import EngineRunner
from application.ports import (
    EncoderDescription,
    EncoderPort,
    PixelBatch,
    RawEmbeddings,
    TextTower,
    TokenCount,
)
from domain.errors import ServiceUnavailable

logger = logging.getLogger(__name__)


class TensorRtEncoder(EncoderPort):
    """An engine behind the port. Only the runner needs a GPU; this class does not."""

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
            description: what this encoder is.
            memory_used: bytes of device memory that this process uses.
        """
        self._runner = runner
        self._text_tower = text_tower
        self._description = description
        self._memory_used = memory_used

    @property
    def description(self) -> EncoderDescription:
        """See `EncoderPort.description`."""
        return self._description

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`.

        Raises:
            ServiceUnavailable: there is not enough device memory for a single image.
            EncoderLost: the device failed.
        """
        embeddings = self._none(len(batch))
        done, at_once = 0, self._runner.largest_batch
        while done < len(batch):
            part = batch[done : done + at_once]
            try:
                embeddings[done : done + len(part)] = self._runner.run(part)
            except OutOfDeviceMemory as shortage:
                if len(part) == 1:
                    raise ServiceUnavailable(
                        "the GPU has not enough free memory for one image.",
                        code="out_of_device_memory",
                        retry_after_s=5,
                    ) from shortage
                # Only for the rest of this batch: others on the GPU may give memory back.
                at_once = len(part) // 2
                logger.warning("%s; going on with %d images at once", shortage, at_once)
            else:
                done += len(part)
        return embeddings

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
        return self._text_tower.encode_texts(texts) if texts else self._none(0)

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """See `EncoderPort.count_tokens`."""
        return self._text_tower.count_tokens(texts)

    def device_memory_used(self) -> int | None:
        """See `EncoderPort.device_memory_used`."""
        return self._memory_used()

    def _none(self, count: int) -> RawEmbeddings:
        return np.empty((count, self._description.embedding_dimension), dtype=np.float32)
