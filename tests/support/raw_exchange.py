"""Sends raw requests and reads what comes back, byte by byte accounted for."""

import http.client
import io
import socket
import time
from urllib.parse import urlsplit

from tests.support.raw_requests import LAST, RawCase


class _Received(io.BytesIO):
    """Bytes as a socket, for `http.client` to parse one response after the other."""

    def makefile(self, *_: object, **__: object) -> "_Received":
        return self

    def close(self) -> None:
        """Stay open: the next response follows."""


def exchange(url: str, case: RawCase) -> bytes:
    """Send a case, and `LAST` where the connection stays open; all that comes back until its end.

    Raises:
        OSError: the connection was reset, or nothing came for 20 seconds.
    """
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0), 20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pause_s = 0.02 if len(case.packets) < 10 else 0.001
        for packet in (*case.packets, LAST) if case.open else case.packets:
            connection.sendall(packet)
            time.sleep(pause_s)
        if case.ends:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def statuses(received: bytes, *, head: bool = False) -> list[int]:
    """The responses' statuses, including interim ones; they must use up all received bytes.

    Args:
        received: from `exchange`.
        head: whether the first request was a HEAD.
    """
    seen: list[int] = []
    stream = _Received(received)
    while (place := stream.tell()) < len(received):
        if received.startswith(b"HTTP/1.1 100 ", place):
            seen.append(100)
            stream.seek(received.index(b"\r\n\r\n", place) + 4)
            continue
        method = "HEAD" if head and not seen else "GET"
        response = http.client.HTTPResponse(stream, method=method)  # type: ignore[arg-type]
        response.begin()
        response.read()
        seen.append(response.status)
    return seen
