"""systemd's watchdog: it restarts a process that stops notifying it."""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Where to notify systemd, from the environment (sd_notify(3), sd_watchdog_enabled).

    Attributes:
        address: ``NOTIFY_SOCKET``, a path, or a name that begins with ``@``.
        patience_s: ``WATCHDOG_USEC`` in seconds; systemd restarts a process that is silent this
            long.
    """

    address: str
    patience_s: float

    async def tell(self, alive: Callable[[], bool]) -> None:
        """Notify three times as often as needed while ``alive``; runs until cancelled."""
        while True:
            if alive():
                self.notify()
            await asyncio.sleep(self.patience_s / 3)

    def notify(self) -> None:
        """Notify once. Never blocks, and never raises."""
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            notifications.setblocking(False)
            try:
                notifications.sendto(b"WATCHDOG=1", address)
            except OSError as failure:
                logger.warning("systemd's watchdog could not be notified: %s", failure)
