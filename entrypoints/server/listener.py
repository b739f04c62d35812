"""The sockets that the server listens on: how they are bound, and how clients are accepted."""

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from entrypoints.server.client_limits import HEAD_SECONDS, LINGER_SECONDS
from entrypoints.server.connection import Connection
from entrypoints.server.connections import Connections

logger = logging.getLogger(__name__)

MakeConnection: TypeAlias = Callable[[socket.socket, str], Connection]

_BACKLOG: Final = 2048
_EACH_PASS: Final = 100
"""Connections accepted in one pass of the event loop."""

_PAUSE_SECONDS: Final = 0.1
"""Pause before accepting again if no file can be opened."""

_NO_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class CannotListen(Exception):
    """The server cannot listen on its address; the message says why and what to do."""


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Sockets for every address of ``host``; ``::`` includes IPv4.

    They do not listen yet.

    Args:
        host: the address to listen on.
        port: 0 chooses a free one.
        shared: whether other sockets may share the port in this way; the kernel then spreads new
            connections over those that listen.

    Raises:
        CannotListen: the port is taken, or the address is not this machine's.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    except socket.gaierror as unknown:
        raise CannotListen(
            f"HOST={host!r} is not an address of this machine ({unknown.strerror}); 0.0.0.0 and :: "
            "mean all of its addresses."
        ) from None
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            bound.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                everything = address[0] == "::"
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not everything))
            listening.bind(address)
            listening.setblocking(False)
    except OSError as refused:
        for listening in bound:
            listening.close()
        raise CannotListen(_why_not(host, port, refused)) from None
    return bound


def _why_not(host: str, port: int, refused: OSError) -> str:
    if refused.errno == errno.EADDRINUSE:
        occupant = occupant_of(port)
        return (
            f"port {port} on {host} is already taken by {occupant or 'another program'}; stop it, "
            "or choose another with PORT."
        )
    if refused.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; choose one above 1023 with PORT."
    if refused.errno == errno.EADDRNOTAVAIL:
        return (
            f"HOST={host!r} is not an address of this machine; 0.0.0.0 and :: mean all of its "
            "addresses."
        )
    return f"HOST={host!r}, PORT={port} cannot be listened on: {refused.strerror}."


def occupant_of(port: int) -> str | None:
    """The process that listens on a TCP port of this machine, such as ``process 812 (nginx)``.

    Returns:
        None if there is none, or if this user may not see it. Known on Linux only.
    """
    listening = "0A"
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            if columns[3] == listening and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(each) in inodes for each in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return f"process {process.name} ({name})"
        except OSError:
            continue
    return None


class Listener:
    """Accepts clients, a bounded number in each pass of the event loop.

    The loop's own servers are not used: uvloop's accepts one connection in each pass, however many
    wait, and neither uvloop's nor asyncio's tells of a connection before its TLS handshake.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        connections: Connections,
        tls: ssl.SSLContext | None,
    ) -> None:
        """Make one; nothing is accepted yet.

        Args:
            sockets: bound, from `bind`.
            connections: finds or makes room for a new one.
            tls: for the TLS handshake, if any.
        """
        self._sockets = sockets
        self._connections = connections
        self._tls = tls
        self._shaking_hands: set[asyncio.Task[None]] = set()

    def start(self, make: MakeConnection) -> None:
        """Listen, and accept clients in the running loop.

        Args:
            make: makes the connection from a socket and its client's address.
        """
        self._loop = asyncio.get_running_loop()
        self._make = make
        for listening in self._sockets:
            listening.listen(_BACKLOG)
            self._loop.add_reader(listening, self._accept, listening)

    def close(self) -> None:
        """Accept the clients that are already waiting, and then stop."""
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            self._accept(listening, _BACKLOG)
            listening.close()

    def _accept(self, listening: socket.socket, most: int = _EACH_PASS) -> None:
        for _ in range(most):
            try:
                accepted, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as failure:
                if failure.errno not in _NO_FILES:
                    continue  # the client was gone before it was accepted
                if not self._connections.make_room():
                    self._connections.not_accepted()
                self._pause(listening)
                return
            accepted.setblocking(False)
            connection = self._make(accepted, _readable(address))
            if not self._connections.opened(connection):
                accepted.close()
                continue
            task = self._loop.create_task(self._connect(accepted, connection))
            self._shaking_hands.add(task)
            task.add_done_callback(self._shaking_hands.discard)

    def _pause(self, listening: socket.socket) -> None:
        def again() -> None:
            if listening.fileno() >= 0:
                self._loop.add_reader(listening, self._accept, listening)

        self._loop.remove_reader(listening)
        self._loop.call_later(_PAUSE_SECONDS, again)

    async def _connect(self, accepted: socket.socket, connection: Connection) -> None:
        secured = self._tls is not None
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=HEAD_SECONDS if secured else None,
                ssl_shutdown_timeout=LINGER_SECONDS if secured else None,
            )
        except (OSError, asyncio.CancelledError) as failure:  # ssl.SSLError is an OSError
            logger.debug("no connection with %s: %s", connection.address, failure)
            self._connections.closed(connection)
            accepted.close()


def _readable(address: object) -> str:
    """The client's address; an IPv4 client on an IPv6 socket is written as IPv4."""
    host = address[0] if isinstance(address, tuple) else ""
    return str(host).removeprefix("::ffff:")
