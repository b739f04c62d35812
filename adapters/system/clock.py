"""The system's clock."""

import asyncio
import time

from application.ports import ClockPort


class SystemClock(ClockPort):
    """Real time."""

    def now_s(self) -> float:
        """See `ClockPort.now_s`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `ClockPort.sleep`."""
        await asyncio.sleep(seconds)
