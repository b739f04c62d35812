"""Time that stands still until it is told to pass."""

import asyncio

from application.ports import ClockPort


class FakeClock(ClockPort):
    """Starts at zero."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_s(self) -> float:
        return self._now_s

    @property
    def sleeping(self) -> bool:
        """Whether anybody sleeps."""
        return self.sleepers > 0

    @property
    def sleepers(self) -> int:
        """How many sleep."""
        return sum(not woken.done() for _, woken in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now_s + seconds, woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let time pass, and those who slept through it go on."""
        self._now_s += seconds
        for due_s, woken in self._sleepers:
            if due_s <= self._now_s and not woken.done():
                woken.set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)
