"""Switching over to a faster encoder while another one already serves."""

import asyncio
import logging

from application.inference.batcher import EncodingQueue
from application.model.model_lifecycle import ModelLifecycle
from application.ports import EncoderPort, EncoderUnavailable, EncoderUpgradePort, MemoryPort
from domain.embedding import Embedding, smallest_cosine
from domain.errors import ClipError
from domain.limits import SMALLEST_COSINE

logger = logging.getLogger(__name__)

_PREPARING = "a faster encoder is being prepared; requests are answered meanwhile."
_DOUBTED = "the encoder that serves was replaced or in doubt when the faster one was ready."
_UNEXPECTED = "preparing a faster encoder failed unexpectedly; the server's log has the reason."


class EncoderUpgrade:
    """Has the faster encoder prepared in the background, judges it, and lets it take over.

    It takes over only if it agrees with the one that serves, which is asked through the same queue
    as by everyone. Never raises: whatever fails, the service goes on as it is, says so once in the
    log and keeps the reason.
    """

    def __init__(
        self,
        port: EncoderUpgradePort,
        *,
        model: ModelLifecycle,
        queue: EncodingQueue,
        memory: MemoryPort,
    ) -> None:
        self._port = port
        self._model = model
        self._queue = queue
        self._memory = memory
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why a faster encoder, though wanted, is not the one that serves; else None."""
        return self._reason

    async def run(self) -> None:
        """Once a model is loaded: prepare the faster encoder if one is wanted, and switch over."""
        serving = self._model.loaded
        if serving is None:
            return
        backend = serving.description.backend
        try:
            if not await asyncio.to_thread(self._port.wanted, serving.description):
                return
            self._reason = _PREPARING
            await self._switch_over(serving)
            del serving  # or this would be the last to hold its memory
            await asyncio.to_thread(self._memory.release)
        except (EncoderUnavailable, ClipError) as unavailable:
            self._reason = str(unavailable)
            logger.warning("staying with %s: %s", backend, unavailable)
        except Exception:
            self._reason = _UNEXPECTED
            logger.exception("staying with %s: unexpected failure", backend)

    async def _switch_over(self, serving: EncoderPort) -> None:
        samples = await asyncio.to_thread(self._port.samples)
        expected = [await self._queue.encode_image(pixels) for pixels in samples]
        better = await asyncio.to_thread(self._port.prepare, serving, expected)
        rows = await asyncio.to_thread(better.encode_images, samples)
        cosine = smallest_cosine([Embedding.from_encoder(row) for row in rows], expected)
        if not cosine > SMALLEST_COSINE:
            raise EncoderUnavailable(
                f"{better.description.backend} does not agree with {serving.description.backend}: "
                f"cosine {cosine:.4f}, more than {SMALLEST_COSINE} is needed."
            )
        self._reason = None
        if self._model.switch_over(serving, better):
            description = better.description
            logger.info(
                "switched over from %s to %s in %s (cosine at least %.5f)",
                serving.description.backend,
                description.backend,
                description.precision,
                cosine,
            )
            # Comes after whatever the other one was encoding, so that it is done with.
            await self._queue.encode_image(samples[0])
        else:
            self._reason = _DOUBTED
            logger.warning("staying with %s: %s", serving.description.backend, _DOUBTED)
