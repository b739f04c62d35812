"""The load: a separate process that sends requests over sockets and times the responses.

Reads a `Plan` as JSON from standard input and writes a `Result` as JSON to standard output.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

FRESH: Final = b"@@FRESH@@"
"""In a body, stands for a number that no other request has."""

_HEALTH_EVERY_S: Final = 0.05


class Plan(msgspec.Struct):
    """What to send.

    Attributes:
        url: of the call.
        bodies: files whose contents are sent in turn.
        concurrency: requests at once, each on its own connection.
        seconds: after which no new request is sent; those under way are waited for.
        health_url: probed all the while on a separate connection; None for no probes.
    """

    url: str
    bodies: list[str]
    concurrency: int
    seconds: float
    health_url: str | None = None


class Result(msgspec.Struct):
    """What was measured.

    Attributes:
        latencies_s: of each request whose response was a 200.
        health_latencies_s: of each probe whose response was a 200.
        failures: requests with another status, or with no response.
        elapsed_s: from the first request to the last response.
    """

    latencies_s: list[float]
    health_latencies_s: list[float]
    failures: int
    elapsed_s: float


class _Bodies(Iterator[bytes]):
    """The bodies in turn, each with numbers of its own."""

    def __init__(self, files: Sequence[str]) -> None:
        self._turns = itertools.cycle([Path(file).read_bytes() for file in files])
        self._numbers = itertools.count(time.time_ns() % 10**9)

    def __next__(self) -> bytes:
        return next(self._turns).replace(FRESH, b"%d" % next(self._numbers))


async def put_under_load(plan: Plan) -> Result:
    """Send requests as the plan says."""
    bodies = _Bodies(plan.bodies)
    result = Result([], [], 0, 0.0)
    done = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        probe = asyncio.create_task(_probe(session, plan.health_url, result, done))
        start = time.perf_counter()
        deadline = start + plan.seconds
        await asyncio.gather(
            *(_work(session, plan.url, bodies, deadline, result) for _ in range(plan.concurrency))
        )
        result.elapsed_s = time.perf_counter() - start
        done.set()
        await probe
    return result


async def _work(
    session: aiohttp.ClientSession,
    url: str,
    bodies: Iterator[bytes],
    deadline: float,
    result: Result,
) -> None:
    headers = {"Content-Type": "application/json"}
    while (start := time.perf_counter()) < deadline:
        if await _succeeds(session.post(url, data=next(bodies), headers=headers)):
            result.latencies_s.append(time.perf_counter() - start)
        else:
            result.failures += 1


async def _probe(
    session: aiohttp.ClientSession, url: str | None, result: Result, done: asyncio.Event
) -> None:
    while url is not None and not done.is_set():
        start = time.perf_counter()
        if await _succeeds(session.get(url)):
            result.health_latencies_s.append(time.perf_counter() - start)
        else:
            result.failures += 1
        await asyncio.sleep(_HEALTH_EVERY_S)


async def _succeeds(request: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> bool:
    """Whether the response is a 200; False if the connection breaks."""
    try:
        async with request as response:
            await response.read()
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


if __name__ == "__main__":
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(put_under_load(plan))))
