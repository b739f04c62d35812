"""Hostile clients: they hold connections, stall, flood and hang up."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from tests.support.photos import as_base64, plain

Attack: TypeAlias = Callable[["Target"], Coroutine[Any, Any, None]]

_PHOTO: Final = json.dumps({"image": as_base64(plain(9, 8, 7), "PNG")}).encode()
_HEADER: Final = b"X-Filling: " + b"a" * 8000 + b"\r\n"
_GONE: Final = (OSError, asyncio.IncompleteReadError)


@dataclass
class Target:
    """A server that is attacked.

    Attributes:
        url: where it is.
        statuses: of the responses that attackers got.
        closed: connections that the server closed.
    """

    url: str
    statuses: list[int] = field(default_factory=list)
    closed: int = 0

    @asynccontextmanager
    async def connection(
        self, *, receive_buffer: int | None = None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare connection; what breaks it is counted and not raised."""
        address = urlsplit(self.url)
        raw = socket.socket()
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
            reader, writer = await asyncio.open_connection(sock=raw)
        except BaseException:
            raw.close()
            raise
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def status(self, reader: asyncio.StreamReader) -> int | None:
        """The status of the next response, whose body is left unread; None if none comes."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except _GONE:
            self.closed += 1
            return None
        status = int(head.split(b" ", 2)[1])
        self.statuses.append(status)
        return status


def head(path: str = "/embed", length: int | None = None) -> bytes:
    """The head of a POST of JSON; its body comes in chunks if it has no length."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


async def _pour(writer: asyncio.StreamWriter, piece: bytes, times: int) -> None:
    """Send a piece many times, as fast as the server reads, or until it closes the connection."""
    with contextlib.suppress(*_GONE):
        for _ in range(times):
            writer.write(piece)
            await writer.drain()


async def stay_idle(target: Target) -> None:
    """Connect and send nothing until the server closes the connection."""
    async with target.connection() as (reader, _):
        await target.status(reader)


async def drip_head(target: Target) -> None:
    """Send a head that never ends, a byte now and then."""
    async with target.connection() as (reader, writer):
        ended = asyncio.ensure_future(target.status(reader))
        writer.write(b"POST /embed HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        while not ended.done():
            writer.write(b"a")
            await asyncio.sleep(0.5)


async def drip_body(target: Target) -> None:
    """Announce a large body and send a byte now and then."""
    async with target.connection() as (reader, writer):
        ended = asyncio.ensure_future(target.status(reader))
        writer.write(head(length=1_000_000))
        while not ended.done():
            writer.write(b" ")
            await asyncio.sleep(0.5)


async def send_half_a_large_body(target: Target) -> None:
    """Send most of the largest body at full speed, and then nothing."""
    async with target.connection() as (reader, writer):
        writer.write(head(length=16_000_000))
        await _pour(writer, b" " * 1_000_000, 15)
        await target.status(reader)


async def never_read(target: Target) -> None:
    """Request large responses, again and again, and read none of them."""
    body = json.dumps({"input": [str(number) for number in range(500)], "model": "clip"}).encode()
    asking = head("/v1/embeddings", len(body)) + body
    async with target.connection(receive_buffer=4096) as (_, writer):
        # Otherwise asyncio would read ahead.
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(*_GONE):
            while not writer.transport.is_closing():
                writer.write(asking)
                await asyncio.wait_for(writer.drain(), 120)
                await asyncio.sleep(0.5)
        target.closed += 1


async def pipeline_half_requests(target: Target) -> None:
    """Send many whole requests and the beginning of another at once; stay."""
    async with target.connection() as (reader, writer):
        writer.write((head(length=len(_PHOTO)) + _PHOTO) * 20 + head(length=500) + b'{"image": ')
        await target.status(reader)
        while await reader.read(65536):
            pass
        target.closed += 1


async def send_endless_headers(target: Target) -> None:
    """Send headers as fast as they are taken."""
    async with target.connection() as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        await _pour(writer, _HEADER, 10_000)
        await target.status(reader)


async def send_one_endless_header(target: Target) -> None:
    """Send one header's value as fast as it is taken."""
    async with target.connection() as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Filling: ")
        await _pour(writer, b"a" * 65536, 2_000)
        await target.status(reader)


async def send_endless_trailers(target: Target) -> None:
    """End a body in chunks, and send trailers as fast as they are taken."""
    async with target.connection() as (reader, writer):
        writer.write(head() + b"2\r\n{}\r\n0\r\n")
        await _pour(writer, _HEADER, 10_000)
        await target.status(reader)


async def hang_up_while_encoding(target: Target) -> None:
    """Send a valid request, and hang up before the response."""
    async with target.connection() as (_, writer):
        writer.write(head(length=len(_PHOTO)) + _PHOTO)
        await asyncio.sleep(0.02)


async def ask_for_a_websocket(target: Target) -> None:
    """Ask for another protocol."""
    async with target.connection() as (reader, writer):
        writer.write(
            b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await target.status(reader)


async def talk_nonsense(target: Target) -> None:
    """Send bytes that are not HTTP."""
    async with target.connection() as (reader, writer):
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 4)
        await target.status(reader)


@asynccontextmanager
async def attacking(target: Target, attack: Attack, *, clients: int) -> AsyncIterator[None]:
    """Run an attack with that many clients at a time for the duration of the block."""

    async def again_and_again() -> None:
        while True:
            try:
                await attack(target)
            except _GONE:  # not even let in
                target.closed += 1
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(again_and_again()) for _ in range(clients)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
