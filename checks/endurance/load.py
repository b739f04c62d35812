"""Puts a server under load and judges every answer."""

import asyncio
import contextlib
import gc
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import numpy as np

from checks.endurance.known_requests import KnownRequest, KnownRequests

RIGHT: Final = "right"
WRONG: Final = "wrong"
BROKEN: Final = "broken off"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and what became of it.

    Attributes:
        ended_s: by `time.monotonic`.
        seconds: how long it took.
        outcome: `RIGHT`, `WRONG`, `BROKEN`, or the status and code of an error.
    """

    ended_s: float
    seconds: float
    outcome: str


@dataclass
class Tally:
    """All that was asked."""

    asked: list[Asked] = field(default_factory=list)

    @property
    def outcomes(self) -> Counter[str]:
        """How often each."""
        return Counter(each.outcome for each in self.asked)

    def milliseconds(self, percent: float, *, right: bool = True) -> float:
        """A percentile of the time to a right answer, or to a refusal; NaN if there is none."""
        seconds = [each.seconds for each in self.asked if (each.outcome == RIGHT) is right]
        return float(np.percentile(seconds, percent)) * 1000 if seconds else float("nan")

    def between(self, start_s: float, end_s: float) -> "Tally":
        """What ended in that time."""
        return Tally([each for each in self.asked if start_s <= each.ended_s < end_s])


def session() -> aiohttp.ClientSession:
    """For as many requests at once as are asked."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120)
    )


async def ask(client: aiohttp.ClientSession, url: str, request: KnownRequest, tally: Tally) -> str:
    """Ask once; returns the outcome, which is in the tally too."""
    started_s = time.monotonic()
    headers = {"Content-Type": request.content_type}
    try:
        async with client.post(url + request.path, data=request.body, headers=headers) as response:
            answer = await response.json(content_type=None)
            outcome = _judged(response.status, answer, request)
    except (aiohttp.ClientError, TimeoutError, OSError):
        outcome = BROKEN
    ended_s = time.monotonic()
    tally.asked.append(Asked(ended_s, ended_s - started_s, outcome))
    return outcome


async def ask_steadily(
    url: str, requests: Sequence[KnownRequest], rate: float, seconds: float, tally: Tally
) -> None:
    """So many requests a second, whether or not the ones before have been answered."""
    gc.disable()  # looking through a million answers takes a second in which nothing would be asked
    start_s = time.monotonic()
    running: set[asyncio.Task[str]] = set()
    async with session() as client:
        for number in range(int(rate * seconds)):
            ahead_s = start_s + number / rate - time.monotonic()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            elif number % 100 == 0:
                await asyncio.sleep(0)  # behind: answers must be seen all the same
            request = requests[number % len(requests)]
            task = asyncio.create_task(ask(client, url, request, tally))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
    gc.enable()


async def ask_in_turn(
    url: str,
    requests: KnownRequests,
    clients: int,
    seconds: float,
    tally: Tally,
    *,
    pause_s: float = 0.0,
) -> None:
    """So many clients, each of which asks again when it has been answered, after a pause.

    One that was refused waits for a tenth of a second at least.
    """
    end_s = time.monotonic() + seconds

    async def one(client: aiohttp.ClientSession) -> None:
        while time.monotonic() < end_s:
            outcome = await ask(client, url, requests.draw(), tally)
            await asyncio.sleep(pause_s if outcome == RIGHT else max(pause_s, 0.1))

    async with session() as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))


async def abandon(client: aiohttp.ClientSession, url: str, request: KnownRequest) -> None:
    """Ask, and hang up before the answer."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ask(client, url, request, Tally()), 0.01)


def _judged(status: int, answer: Any, request: KnownRequest) -> str:
    if status != 200:
        error = answer.get("error", answer)
        return f"{status} {error['code']}"
    for item in answer["results"] if request.path == "/embed/batch" else ():
        if item["error"] is not None:  # of one image, in its place
            return f"{item['error']['status']} {item['error']['code']}"
    return RIGHT if request.fits(answer) else WRONG
