"""systemd is notified as long as the process can go on, and no longer."""

import asyncio
import contextlib
import socket
from pathlib import Path

from entrypoints.server.watchdog import Watchdog


async def test_it_is_told_only_while_alive(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    asked = 0
    enough = asyncio.Event()

    def alive() -> bool:
        nonlocal asked
        asked += 1
        if asked == 8:
            enough.set()
        return asked <= 3

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.setblocking(False)
        telling = asyncio.create_task(Watchdog(address, patience_s=0.003).tell(alive))
        await enough.wait()
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling
        received = []
        with contextlib.suppress(BlockingIOError):
            while True:
                received.append(systemd.recv(100))
    assert received == [b"WATCHDOG=1"] * 3
