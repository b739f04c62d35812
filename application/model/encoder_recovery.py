"""Seeing to an encoder that is doubted: tested, and loaded anew if it fails."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

from application.inference.batcher import EncodingQueue
from application.model.model_lifecycle import ModelLifecycle
from application.ports import UNOBSERVED, ClockPort, EncoderLost, MemoryPort, ObserverPort
from domain.errors import EncoderFault, EncoderHanging

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0


class EncoderRecovery:
    """Settles doubts: the encoder passes its self-test, or another one is loaded that does.

    Loading that fails is tried again after 1 s, 2 s, 4 s and so on up to every minute.
    """

    def __init__(
        self,
        model: ModelLifecycle,
        queue: EncodingQueue,
        *,
        memory: MemoryPort,
        clock: ClockPort,
        observer: ObserverPort = UNOBSERVED,
    ) -> None:
        self._model = model
        self._queue = queue
        self._memory = memory
        self._clock = clock
        self._observer = observer

    async def run(self) -> None:
        """Settle every doubt that comes up; ends only by being cancelled."""
        with self._model.watched_over():
            while True:
                await self._model.doubted()
                try:
                    if not await self._proven():
                        await self._load_anew()
                except Exception:  # whatever it was, the next doubt must find somebody
                    logger.exception("seeing to the doubted encoder failed unexpectedly")
                    await self._clock.sleep(_LONGEST_PAUSE_S)
                    self._model.doubt_again()

    async def _proven(self) -> bool:
        """Whether the encoder may answer again, or there is nothing left to be done for it."""
        pauses = _ever_longer()
        while (encoder := self._model.loaded) is not None:
            try:
                await self._queue.prove(encoder)
            except EncoderHanging:
                continue  # it has returned meanwhile, or this would not have been raised
            except MemoryError:  # says nothing about the encoder
                pause_s = next(pauses)
                logger.error("no memory for the encoder's self-test; next try in %g s", pause_s)
                await self._clock.sleep(pause_s)
                continue
            except EncoderLost as lost:
                self._model.lose(encoder, str(lost))
                return True
            except Exception as failure:
                known = isinstance(failure, EncoderFault)
                logger.error(
                    "the encoder failed its self-test: %s", repr(failure), exc_info=not known
                )
                fault = failure.detail if isinstance(failure, EncoderFault) else "it raised"
                self._model.condemn(fault)
                return False
            self._model.trust()
            logger.warning("the encoder passed its self-test and answers again")
            return True
        return False

    async def _load_anew(self) -> None:
        for pause_s in _ever_longer():
            # Before, since there may be no room for two.
            await asyncio.to_thread(self._memory.release)
            succeeded = await self._model.load_anew()
            self._observer.encoder_loaded_anew(succeeded=succeeded)
            if succeeded:
                return
            logger.error("the next try to load the encoder is in %g s", pause_s)
            await self._clock.sleep(pause_s)


def _ever_longer() -> Iterator[float]:
    """Seconds between tries: twice as many each time, up to a limit, without end."""
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
