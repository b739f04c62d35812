"""Mutated raw requests, with a bystander who must not notice.

``python -m checks.hostile.raw_http`` runs it.

Each mutation is sent on its own connection, whose client then closes its side. The server must send
well-formed responses or none, without an unexpected error, and close.
"""

import asyncio
import contextlib
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import httpx

from tests.support.raw_exchange import statuses
from tests.support.raw_requests import BODY, RawCase, corpus
from tests.support.servers import SLOW, Server, running, wait_for

_AT_ONCE: Final = 16
_END_SECONDS: Final = 60
"""After which a connection counts as hanging; the server's own limits are shorter."""

_LARGEST: Final = 100_000
_FORESEEN: Final = (501, 503, 505)
_TOKENS: Final = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b";", b",", b"0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"Host: y\r\n", b"HTTP/1.0", b"HTTP/1.1",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"ffffffffffffffff", b"99999999999", b"\xff", b"-1",
)  # fmt: skip


@dataclass
class Fuzzing:
    """What came of it.

    Attributes:
        seen: how often each status came back; 0 where nothing did.
        findings: what must not be, with the bytes that led to it.
        bystander_s: what each of the bystander's requests took.
    """

    seen: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    bystander_s: list[float] = field(default_factory=list)


def mutated(rng: random.Random, cases: Sequence[RawCase]) -> list[bytes]:
    """Packets of a case, changed in one to four places."""
    sent = bytearray(b"".join(rng.choice(cases).packets))
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(sent) + 1)
        end = min(len(sent), place + rng.randint(1, 40))
        change = rng.randrange(6)
        if change == 0 and place < len(sent):
            sent[place] = rng.randrange(256)
        elif change == 1:
            del sent[place:end]
        elif change == 2:
            sent[place:place] = sent[place:end]
        elif change == 3:
            sent[place:place] = rng.choice(_TOKENS)
        elif change == 4:
            other = b"".join(rng.choice(cases).packets)
            sent[place:] = other[rng.randrange(len(other) + 1) :]
        else:
            del sent[place:]
    places = sorted(rng.sample(range(len(sent) + 1), min(len(sent), rng.randrange(3))))
    return [bytes(sent[a:b]) for a, b in zip([0, *places], [*places, len(sent)], strict=True)]


async def fuzz(server: Server, mutations: int, seed: int) -> Fuzzing:
    """Send this many mutations, with a bystander's requests all the while."""
    rng = random.Random(seed)
    cases = [case for case in corpus() if sum(map(len, case.packets)) <= _LARGEST]
    found = Fuzzing()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(packets: list[bytes]) -> None:
        async with gate:
            await _judge(server, packets, found)

    asking = asyncio.create_task(_stand_by(server, found))
    try:
        # In portions: ten thousand tasks at once would only wait.
        for start in range(0, mutations, 1000):
            portion = [mutated(rng, cases) for _ in range(min(1000, mutations - start))]
            await asyncio.gather(*map(one, portion))
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    return found


async def _judge(server: Server, packets: list[bytes], found: Fuzzing) -> None:
    try:
        received = await asyncio.wait_for(_exchange(server, packets), _END_SECONDS)
    except TimeoutError:
        found.findings.append(f"no end after {_END_SECONDS} s: {packets!r}")
        return
    except OSError as broken:
        found.findings.append(f"{broken}: {packets!r}")
        return
    head = b"".join(packets).lstrip(b"\r\n").startswith(b"HEAD")
    try:
        seen = statuses(received, head=head)
    except (HTTPException, ValueError) as malformed:
        # A HEAD further on has no body; without that, the responses cannot be told apart here.
        if b"HEAD" not in b"".join(packets):
            found.findings.append(f"{malformed!r} in {received[:500]!r}: {packets!r}")
        return
    found.seen.update(seen or [0])
    found.findings += [
        f"{status}: {packets!r}" for status in seen if status >= 500 and status not in _FORESEEN
    ]


async def _exchange(server: Server, packets: list[bytes]) -> bytes:
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        for packet in packets:
            writer.write(packet)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.transport.abort()


async def _stand_by(server: Server, found: Fuzzing) -> None:
    """Request one embedding and the health, again and again, on one connection."""
    headers = {"content-type": "application/json"}
    first: object = None
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        while True:
            started_s = time.perf_counter()
            response = await client.post("/embed", content=BODY, headers=headers)
            health = await client.get("/health")
            found.bystander_s.append(time.perf_counter() - started_s)
            embedding = json.loads(response.content).get("embedding")
            first = first or embedding
            if response.status_code != 200 or health.status_code != 200 or embedding != first:
                found.findings.append(f"the bystander got {response.status_code}: {response.text}")
            await asyncio.sleep(0.05)


@click.command()
@click.option("--mutations", default=10_000, show_default=True)
@click.option("--seed", default=12, show_default=True)
def main(mutations: int, seed: int) -> None:
    """Fuzz a server with a fake encoder."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        running(SLOW, Path(scratch) / "log", SLOW_SECONDS="0") as server,
    ):
        wait_for(server, "/health/ready")
        started_s = time.perf_counter()
        found = asyncio.run(fuzz(server, mutations, seed))
        click.echo(f"{mutations} mutations in {time.perf_counter() - started_s:.0f} s")
        click.echo(f"statuses: {dict(sorted(found.seen.items()))}")
        waits = sorted(found.bystander_s)
        click.echo(
            f"bystander: {len(waits)} times, median {waits[len(waits) // 2] * 1000:.0f} ms, "
            f"longest {waits[-1] * 1000:.0f} ms"
        )
        for finding in found.findings:
            click.echo(finding)
        assert not found.findings
        assert "Traceback" not in server.log
        assert server.stop() == 0


if __name__ == "__main__":
    main()
