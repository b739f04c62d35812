"""A supervisor at work, as the server runs it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from application.model.states import Phase
from application.model.supervisor import Supervisor


@asynccontextmanager
async def supervised(model: Supervisor, *, within_s: float = 20) -> AsyncIterator[Supervisor]:
    """For the duration of the block the supervisor runs; at its beginning the first load ends."""
    running = asyncio.create_task(model.run())
    try:
        await until(lambda: model.health.phase is not Phase.LOADING, within_s=within_s)
        yield model
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        model.close()


async def until(holds: Callable[[], bool], *, within_s: float = 20) -> None:
    """Let threads and tasks go on until something holds; real encoders need longer for that."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.to_thread(time.sleep, 0.002)
