"""A response of JSON lines, each sent as soon as it is made."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, TypeAlias

import msgspec
from litestar.response import Stream

JSON_LINES: Final = "application/jsonl"

_Line: TypeAlias = bytes | Exception | None
"""An encoded line; or the error that ends the response; or None at the end."""


async def streamed(
    made: AsyncGenerator[msgspec.Struct, None],
    unless_gone: Callable[[Awaitable[_Line]], Awaitable[_Line]],
) -> Stream:
    """The response, as soon as its first line is ready.

    A separate task makes the lines and keeps them until they are sent, so that a slow reader does
    not hold a place that another request needs.

    Args:
        made: makes the lines.
        unless_gone: awaits something, and stops if the client hangs up.

    Raises:
        Exception: whatever ``made`` raises before its first line. After that, an error cuts the
            response off.
    """
    lines: asyncio.Queue[_Line] = asyncio.Queue()
    making = asyncio.create_task(_make(made, lines))
    try:
        first = await unless_gone(lines.get())
        if isinstance(first, Exception):
            raise first
    except BaseException:
        making.cancel()
        raise
    return Stream(_sent(first, lines, making), media_type=JSON_LINES)


async def _make(made: AsyncGenerator[msgspec.Struct, None], lines: asyncio.Queue[_Line]) -> None:
    try:
        async with aclosing(made):
            async for line in made:
                lines.put_nowait(msgspec.json.encode(line) + b"\n")
    except Exception as failure:
        lines.put_nowait(failure)
    else:
        lines.put_nowait(None)


async def _sent(
    line: _Line, lines: asyncio.Queue[_Line], making: asyncio.Task[Any]
) -> AsyncGenerator[bytes, None]:
    try:
        while line is not None:
            if isinstance(line, Exception):
                raise line
            yield line
            line = await lines.get()
    finally:
        making.cancel()
