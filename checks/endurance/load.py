"""Puts a server under load and checks every response."""

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
    """One request and its outcome.

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
    """All requests that were sent."""

    asked: list[Asked] = field(default_factory=list)

    @property
    def outcomes(self) -> Counter[str]:
        """How often each outcome occurred."""
        return Counter(each.outcome for each in self.asked)

    def milliseconds(self, percent: float, *, right: bool = True) -> float:
        """A percentile of the time to a right response, or to a refusal; NaN if there is none."""
        seconds = [each.seconds for each in self.asked if (each.outcome == RIGHT) is right]
        return float(np.percentile(seconds, percent)) * 1000 if seconds else float("nan")

    def between(self, start_s: float, end_s: float) -> "Tally":
        """What ended in that time."""
        return Tally([each for each in self.asked if start_s <= each.ended_s < end_s])


def session() -> aiohttp.ClientSession:
    """A session without a limit on concurrent requests."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120)
    )


async def ask(client: aiohttp.ClientSession, url: str, request: KnownRequest, tally: Tally) -> str:
    """Send one request; returns the outcome and adds it to the tally."""
    started_s = time.monotonic()
    headers = {"Content-Type": request.content_type}
    try:
        async with client.post(url + request.path, data=request.body, headers=headers) as response:
            body = await response.json(content_type=None)
            outcome = _judged(response.status, body, request)
    except (aiohttp.ClientError, TimeoutError, OSError):
        outcome = BROKEN
    ended_s = time.monotonic()
    tally.asked.append(Asked(ended_s, ended_s - started_s, outcome))
    return outcome


async def ask_steadily(
    url: str, requests: Sequence[KnownRequest], rate: float, seconds: float, tally: Tally
) -> None:
    """Send requests at a fixed rate, whether or not earlier ones have got their responses."""
    gc.disable()  # a collection over a million responses would stop the sending for a second
    start_s = time.monotonic()
    running: set[asyncio.Task[str]] = set()
    async with session() as client:
        for number in range(int(rate * seconds)):
            ahead_s = start_s + number / rate - time.monotonic()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            elif number % 100 == 0:
                await asyncio.sleep(0)  # behind schedule: responses must be read all the same
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
    """Run that many clients; each sends its next request after a response and a pause.

    After a refusal it waits for at least a tenth of a second.
    """
    end_s = time.monotonic() + seconds

    async def one(client: aiohttp.ClientSession) -> None:
        while time.monotonic() < end_s:
            outcome = await ask(client, url, requests.draw(), tally)
            await asyncio.sleep(pause_s if outcome == RIGHT else max(pause_s, 0.1))

    async with session() as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))


async def abandon(client: aiohttp.ClientSession, url: str, request: KnownRequest) -> None:
    """Send a request, and hang up before the response."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ask(client, url, request, Tally()), 0.01)


def _judged(status: int, body: Any, request: KnownRequest) -> str:
    if status != 200:
        error = body.get("error", body)
        return f"{status} {error['code']}"
    for item in body["results"] if request.path == "/embed/batch" else ():
        if item["error"] is not None:  # of one image, in its place
            return f"{item['error']['status']} {item['error']['code']}"
    return RIGHT if request.fits(body) else WRONG
