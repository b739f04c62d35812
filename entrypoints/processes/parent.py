"""Starts the processes that serve together, replaces those that have ended, and ends them."""

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

from adapters.system.process_table import ProcessTable
from entrypoints.processes.member import Membership
from entrypoints.server.listener import CannotListen, bind
from entrypoints.settings import LEAST_BODY_MIB, Settings

logger = logging.getLogger(__name__)

_METRICS_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's directory for counts of several processes; it is read at import."""

_LOOK_EVERY_SECONDS: Final = 1.0

_STUCK_SECONDS: Final = 60.0
"""A process whose event loop has been stuck for this long is replaced."""

_START_SECONDS: Final = 120.0
"""How long a process may take to start: its libraries are read from disk."""

_LASTED_SECONDS: Final = 3.0
_LONGEST_PAUSE_SECONDS: Final = 10.0

_LAST_SECONDS: Final = 5.0
"""Time for processes to end after the requests' grace period."""


@dataclass(slots=True)
class _Member:
    """One of the processes.

    Attributes:
        name: for the log.
        row: in the table.
        target: what it runs, with `Membership` as its first argument.
        arguments: further arguments of the target.
        process: the running process; None if there is none.
        started_s: when it was started, by `time.monotonic`.
        short_lives: how many in a row ended soon after their start.
        start_at_s: when to start the next one.
    """

    name: str
    row: int
    target: Callable[..., None]
    arguments: dict[str, Any]
    process: BaseProcess | None = None
    started_s: float = 0.0
    short_lives: int = 0
    start_at_s: float = field(default_factory=time.monotonic)


def serve_by_processes(settings: Settings, fronts: int) -> None:
    """Serve until a signal ends it; exits with a message where it cannot listen on the port.

    Args:
        settings: of the server.
        fronts: processes that serve HTTP.
    """
    try:
        # First without sharing: sockets that share a port would also share it with another server.
        alone = bind(settings.host, settings.port)
        port = alone[0].getsockname()[1]
        for each in alone:
            each.close()
        sockets = [bind(settings.host, port, shared=True) for _ in range(fronts)]
    except CannotListen as reason:
        sys.exit(str(reason))
    directory = Path(tempfile.mkdtemp(prefix="clip-server-"))  # readable by this user only
    try:
        metrics = directory / "metrics"
        metrics.mkdir()
        os.environ[_METRICS_DIRECTORY] = str(metrics)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as encoder_socket:
            address = directory / "encoder.sock"
            encoder_socket.bind(str(address))
            encoder_socket.listen(1024)
            encoder_socket.setblocking(False)
            _Parent(settings, sockets, encoder_socket, address).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def share_of(settings: Settings, fronts: int) -> Settings:
    """One process's share of the limits that the settings set for all of them.

    Requests are counted together (see `SharedPlaces`), so that limit is not divided.
    """
    return msgspec.structs.replace(
        settings,
        max_connections=-(-settings.max_connections // fronts),
        max_body_memory_mib=max(LEAST_BODY_MIB, settings.max_body_memory_mib // fronts),
        watchdog=None,  # systemd watches the parent
        warnings=(),
    )


def _front(member: Membership, **arguments: Any) -> None:
    # Imported in the new process: the parent does not need it.
    from entrypoints.processes.front import run_front

    run_front(member, **arguments)


def _encoder(member: Membership, **arguments: Any) -> None:
    from entrypoints.processes.encoder import run_encoder

    run_encoder(member, **arguments)


class _Parent:
    def __init__(
        self,
        settings: Settings,
        sockets: Sequence[list[socket.socket]],
        encoder_socket: socket.socket,
        address: Path,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._context = context
        self._settings = settings
        self._sockets = sockets
        self._table = ProcessTable(context, 1 + len(sockets))
        self._encoder_address = address
        self._encoder = _Member("the encoder's process", 0, _encoder, {"listening": encoder_socket})
        self._fronts = [
            _Member(f"front {row}", row, _front, {"sockets": of_front, "fronts": len(sockets)})
            for row, of_front in enumerate(sockets, start=1)
        ]
        self._signals = self._reacted_to = 0
        self._ends_at_s: float | None = None

    def run(self) -> None:
        """Run until all processes have ended after a signal."""
        with self._woken_by_signals() as woken:
            host, port = self._sockets[0][0].getsockname()[:2]
            scheme = "https" if self._settings.tls else "http"
            shown = f"[{host}]" if ":" in host else host
            logger.info("%d processes serve on %s://%s:%d", len(self._fronts), scheme, shown, port)
            while not self._all_have_ended():
                now_s = time.monotonic()
                for member in (self._encoder, *self._fronts):
                    self._look_after(member, now_s)
                self._notify_watchdog()
                running = [
                    member.process.sentinel
                    for member in (self._encoder, *self._fronts)
                    if member.process is not None
                ]
                wait([woken, *running], timeout=self._patience_s())
                with contextlib.suppress(BlockingIOError):
                    woken.recv(64)
                self._react()
        logger.info("all processes have ended")

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[socket.socket]:
        woken, wakes = socket.socketpair()
        with woken, wakes:
            woken.setblocking(False)
            wakes.setblocking(False)
            signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._note)
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                signal.signal(signal.SIGHUP, self._note)
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
            try:
                yield woken
            finally:
                signal.set_wakeup_fd(-1)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number != signal.SIGHUP or not self._signals:  # systemd may send it after SIGTERM
            self._signals += 1

    def _react(self) -> None:
        """Let the fronts finish; a second signal ends them at once."""
        if self._signals == self._reacted_to:
            return
        self._reacted_to = self._signals
        if self._ends_at_s is None:
            logger.info("shutting down: the fronts finish their requests")
            self._ends_at_s = time.monotonic() + self._settings.shutdown_grace_s + _LAST_SECONDS
            for listening in (each for of_front in self._sockets for each in of_front):
                listening.close()
        self._signal_fronts()

    def _signal_fronts(self) -> None:
        for front in self._fronts:
            if front.process is not None:
                front.process.terminate()

    def _all_have_ended(self) -> bool:
        """Whether everything has ended. The encoder's process is ended after the last front."""
        if self._ends_at_s is None or any(front.process is not None for front in self._fronts):
            return False
        encoder = self._encoder.process
        if encoder is None:
            return True
        encoder.terminate()
        encoder.join(_LAST_SECONDS)
        if encoder.is_alive():
            encoder.kill()
        return True

    def _look_after(self, member: _Member, now_s: float) -> None:
        process = member.process
        if process is None:
            if self._ends_at_s is None and now_s >= member.start_at_s:
                self._start(member, now_s)
            return
        if process.exitcode is not None:
            self._bury(member, process, now_s)
        elif self._ends_at_s is not None and now_s > self._ends_at_s:
            logger.warning("%s did not end in time", member.name)
            process.kill()
        else:
            patience_s = max(_STUCK_SECONDS, _START_SECONDS - (now_s - member.started_s))
            if (silent_s := self._table.silent_s(member.row)) > patience_s:
                logger.error("%s has not responded for %d seconds", member.name, silent_s)
                process.kill()

    def _start(self, member: _Member, now_s: float) -> None:
        self._table.seen(member.row)
        membership = Membership(
            settings=share_of(self._settings, len(self._fronts)),
            table=self._table,
            row=member.row,
            encoder_address=self._encoder_address,
        )
        process = self._context.Process(
            target=member.target, args=(membership,), kwargs=member.arguments, name=member.name
        )
        process.start()
        member.process, member.started_s = process, now_s
        logger.info("started %s as process %d", member.name, process.pid)

    def _bury(self, member: _Member, process: BaseProcess, now_s: float) -> None:
        """Record the end of a process. The next starts at once, unless several ended quickly."""
        process.join()
        member.process = None
        self._table.hold(member.row, 0)
        self._table.refuse(member.row, False)
        if self._ends_at_s is not None:
            return
        lasted_s = now_s - member.started_s
        member.short_lives = 0 if lasted_s > _LASTED_SECONDS else member.short_lives + 1
        pause_s = 0.0
        if member.short_lives > 1:
            pause_s = min(2.0 ** (member.short_lives - 2), _LONGEST_PAUSE_SECONDS)
        member.start_at_s = now_s + pause_s
        logger.error(
            "%s (process %d) ended with %s; starting another%s",
            member.name,
            process.pid,
            process.exitcode,
            f" in {pause_s:g} seconds" if pause_s else "",
        )

    def _patience_s(self) -> float:
        watchdog = self._settings.watchdog
        every_s = _LOOK_EVERY_SECONDS
        return every_s if watchdog is None else min(every_s, watchdog.patience_s / 3)

    def _notify_watchdog(self) -> None:
        if self._settings.watchdog is not None:
            self._settings.watchdog.notify()
