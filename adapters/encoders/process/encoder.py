"""The encoder port, for a process that serves HTTP: its calls go to the encoder's process."""

import contextlib
import logging
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import numpy as np

from adapters.encoders.process.messages import (
    Array,
    CountTokens,
    Embeddings,
    EncodeImages,
    EncoderReport,
    EncodeTexts,
    Failure,
    Reply,
    Report,
    Request,
    Tokens,
    exchange,
)
from application.ports import (
    Device,
    EncoderDescription,
    EncoderLoaderPort,
    EncoderPort,
    EncoderUnavailable,
    PixelBatch,
    RawEmbeddings,
    TokenCount,
)
from application.use_cases.health import SHUTTING_DOWN
from domain.errors import ModelNotReady

logger = logging.getLogger(__name__)

RESTARTING: Final = (
    "the encoder's process does not respond; if it has ended, it is being started again."
)

_REPORT_SECONDS: Final = 5.0
"""How long the encoder's process may take to report its state."""

_PAUSE_SECONDS: Final = 0.1


class EncoderConnection:
    """Sends requests to the encoder's process; each thread has a connection of its own."""

    def __init__(self, address: Path) -> None:
        """Connect with the first request.

        Args:
            address: the Unix socket that the encoder's process listens on.
        """
        self._address = address
        self._of_thread = threading.local()
        self._open: set[socket.socket] = set()

    def request(
        self, request: Request, array: Array | None = None, *, timeout_s: float | None = None
    ) -> tuple[Request | Reply, Array | None]:
        """Send a request and wait for the reply. Blocks.

        A connection from before a restart of the process is replaced. A request that was sent is
        not retried: it may have crashed the process.

        Args:
            request: the message to send.
            array: the request's data.
            timeout_s: how long to wait for each part of the reply; None: no limit. The encoder's
                process itself notices a call that hangs.

        Raises:
            ModelNotReady: the process has ended or is not running.
            ClipError: reported by the encoder's process.
        """
        try:
            connection = self._connected()
            if connection.gettimeout() != timeout_s:
                connection.settimeout(timeout_s)
            reply, rows = exchange(connection, request, array)
        except OSError as gone:
            self._forget()
            raise ModelNotReady(RESTARTING, code="model_starting", retry_after_s=2) from gone
        if isinstance(reply, Failure):
            raise reply.error()
        return reply, rows

    def close(self) -> None:
        """Close the connections of all threads; pending requests get no reply."""
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):  # the other side has closed it already
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def _connected(self) -> socket.socket:
        """The connection of this thread."""
        connection: socket.socket | None = getattr(self._of_thread, "connection", None)
        if connection is not None and _is_closed(connection):
            self._forget()
            connection = None
        if connection is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._of_thread.connection = connection
            self._open.add(connection)
            connection.connect(str(self._address))
        return connection

    def _forget(self) -> None:
        connection: socket.socket = self._of_thread.connection
        connection.close()
        self._open.discard(connection)
        self._of_thread.connection = None


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed. It sends nothing between two requests."""
    if connection.gettimeout() is not None:
        connection.setblocking(False)  # or `recv` would wait in spite of the flag
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _unexpected(reply: object) -> NoReturn:
    raise RuntimeError(f"the encoder's process replied with {type(reply).__name__}")


class ProcessEncoder(EncoderPort):
    """The encoder of another process; may be called from several threads.

    Its embeddings are already normalised. Rows from a model other than the one described are never
    returned.
    """

    def __init__(self, connection: EncoderConnection, description: EncoderDescription) -> None:
        """Use the encoder behind a connection.

        Args:
            connection: to its process.
            description: as that process reported it.
        """
        self._connection = connection
        self._description = description

    @property
    def description(self) -> EncoderDescription:
        """See `EncoderPort.description`."""
        return self._description

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`.

        Raises:
            ServiceUnavailable: reported by the encoder's process, or the process has ended.
            EncoderFault: the encoder returned something that is not an embedding.
        """
        if len(batch) == 0:
            return self._none()
        return self._rows(EncodeImages(self._description.fingerprint), batch)

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`. Raises as `encode_images` does."""
        if not texts:
            return self._none()
        return self._rows(EncodeTexts(self._description.fingerprint, list(texts)))

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """See `EncoderPort.count_tokens`. Raises as `encode_images` does."""
        request = CountTokens(self._description.fingerprint, list(texts))
        reply, _ = self._connection.request(request)
        return (
            TokenCount(reply.read, reply.cut) if isinstance(reply, Tokens) else _unexpected(reply)
        )

    def device_memory_used(self) -> int | None:
        """None: the encoder's process reports it."""
        return None

    def _rows(self, request: Request, array: Array | None = None) -> RawEmbeddings:
        reply, rows = self._connection.request(request, array)
        if not isinstance(reply, Embeddings) or rows is None:
            _unexpected(reply)
        return rows.astype(np.float32, copy=False)

    def _none(self) -> RawEmbeddings:
        return np.empty((0, self._description.embedding_dimension), dtype=np.float32)


class ProcessEncoderLoader(EncoderLoaderPort):
    """Waits for the encoder's process instead of loading anything."""

    def __init__(self, connection: EncoderConnection) -> None:
        self._connection = connection
        self._reason: str | None = None
        self._closed = threading.Event()

    def probe_device(self) -> Device:
        """The device of the encoder's process, once known."""
        while not self._closed.is_set():
            report = self.report()
            if report is not None and report.health.device is not None:
                return report.health.device
            self._closed.wait(_PAUSE_SECONDS)
        raise EncoderUnavailable(SHUTTING_DOWN)

    def load(self) -> ProcessEncoder:
        """See `EncoderLoaderPort.load`. Waits until there is a model, however long it takes."""
        while not self._closed.is_set():
            report = self.report()
            if report is not None:
                health = report.health
                self._reason = health.reason
                if health.encoder is not None and health.ready:
                    return ProcessEncoder(self._connection, health.encoder)
            self._closed.wait(_PAUSE_SECONDS)
        raise EncoderUnavailable(SHUTTING_DOWN)

    def close(self) -> None:
        """End a wait for the encoder, if there is one, and close every connection."""
        self._closed.set()
        self._connection.close()

    def progress(self) -> str | None:
        """Why the encoder's process has no model yet."""
        return self._reason

    def report(self) -> EncoderReport | None:
        """The encoder's state; None if its process does not respond. Blocks."""
        try:
            reply, _ = self._connection.request(Report(), timeout_s=_REPORT_SECONDS)
        except ModelNotReady:
            return None
        return reply if isinstance(reply, EncoderReport) else _unexpected(reply)
