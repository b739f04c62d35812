"""The model given up while nobody asks for it, and loaded again for the next request."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from application.inference.batcher import EncodingQueue
from application.model.model_lifecycle import ModelLifecycle, ModelState
from application.ports import ClockPort, EncoderPort, MemoryPort
from domain.limits import MAX_RELOAD_SECONDS

logger = logging.getLogger(__name__)


class IdleUnloading:
    """Lends the encoder to requests and notices when none has wanted it for a while.

    A request that finds the model unloaded waits for it; all that come meanwhile share one load.
    If that load fails they are told why, and the next request tries again: what was missing, such
    as memory of a graphics card that others use too, may be there by then.

    Used from the event loop only.
    """

    def __init__(
        self,
        model: ModelLifecycle,
        queue: EncodingQueue,
        *,
        memory: MemoryPort,
        clock: ClockPort,
        idle_s: float | None,
    ) -> None:
        """Make one.

        Args:
            model: what is given up and loaded again.
            queue: may still be encoding for clients that have gone.
            memory: where the memory goes back.
            clock: tells how long nothing was asked.
            idle_s: seconds without a request after which the model is given up; None: never.
        """
        self._model = model
        self._queue = queue
        self._memory = memory
        self._clock = clock
        self._idle_s = idle_s
        self._users = 0
        self._idle_since_s = 0.0
        self._moving = asyncio.Lock()
        self._loading: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def encoder_in_use(self) -> AsyncIterator[None]:
        """Keep the encoder loaded for the duration of the block; load it first if need be.

        Raises:
            ModelNotReady: starting for the first time, it could not be loaded, or loading it
                again took longer than `MAX_RELOAD_SECONDS`.
        """
        self._users += 1
        try:
            if self._model.state is ModelState.UNLOADED:
                await self._wait_until_loaded()
            self._model.encoder()
            yield
        finally:
            self._users -= 1
            self._idle_since_s = self._clock.now_s()

    async def run(self) -> None:
        """Give the model up whenever its idle time has passed; ends only by being cancelled."""
        if self._idle_s is None:
            return
        await asyncio.to_thread(self._memory.release)  # what loading has left over
        self._idle_since_s = self._clock.now_s()
        while True:
            remaining_s = self._idle_since_s + self._idle_s - self._clock.now_s()
            if not self._idle:
                await self._clock.sleep(self._idle_s)
            elif remaining_s > 0:
                await self._clock.sleep(remaining_s)
            else:
                await self._unload(self._idle_s)

    @property
    def _idle(self) -> bool:
        return self._model.state is ModelState.READY and not self._users and not self._queue.busy

    async def _unload(self, idle_s: float) -> None:
        async with self._moving:
            encoders = [self._model.give_up()]
            await asyncio.to_thread(_let_go, encoders, self._memory)
        logger.info("unloaded the model: nothing was asked for %g seconds", idle_s)

    async def _wait_until_loaded(self) -> None:
        if self._loading is None or self._loading.done():
            # In a context of its own: it is done for all requests, not for the first one only.
            self._loading = asyncio.get_running_loop().create_task(
                self._load(), context=contextvars.Context()
            )
        patience = asyncio.ensure_future(self._clock.sleep(MAX_RELOAD_SECONDS))
        try:
            await asyncio.wait((self._loading, patience), return_when=asyncio.FIRST_COMPLETED)
        finally:
            patience.cancel()

    async def _load(self) -> None:
        # Not before the old one is gone: there may be no room for both.
        async with self._moving:
            logger.info("loading the model again")
            await self._model.bring_up()
            await asyncio.to_thread(self._memory.release)


def _let_go(encoders: list[EncoderPort], memory: MemoryPort) -> None:
    """Drop the last references; in a thread, since freeing gigabytes takes a moment."""
    encoders.clear()
    memory.release()
