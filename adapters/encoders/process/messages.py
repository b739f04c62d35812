"""Messages between the processes that serve HTTP and the one that owns the encoder.

A message is a head in MessagePack, followed by the bytes of an array if there is one. The side that
connects sends a request and reads its reply before it sends the next one.
"""

import asyncio
import socket
import struct
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from application.use_cases.health import Health
from domain import errors
from domain.errors import ClipError, EncoderFault, ServiceUnavailable

_LENGTHS: Final = struct.Struct("<IQ")
"""Bytes of the head, and of the array after it."""

_READ_AT_ONCE: Final = 16 * 1024
"""Bytes of a reply that are received with one call: that to a single image is smaller."""


class EncodeImages(msgspec.Struct, tag=True, frozen=True):
    """Encode the images in the array after this head.

    Attributes:
        fingerprint: of the model that they were prepared for.
    """

    fingerprint: str


class EncodeTexts(msgspec.Struct, tag=True, frozen=True):
    """Encode texts, with the model of this fingerprint."""

    fingerprint: str
    texts: list[str]


class CountTokens(msgspec.Struct, tag=True, frozen=True):
    """Count the tokens of all texts together."""

    fingerprint: str
    texts: list[str]


class Report(msgspec.Struct, tag=True, frozen=True):
    """Report the encoder's state."""


class Embeddings(msgspec.Struct, tag=True, frozen=True):
    """The rows are in the array after this head."""


class Tokens(msgspec.Struct, tag=True, frozen=True):
    """As `application.ports.TokenCount`."""

    read: int
    cut: int


class EncoderReport(msgspec.Struct, tag=True, frozen=True):
    """The encoder at this moment.

    Attributes:
        health: as seen by the process that owns it.
        queue_depth: images, and requests' texts, that wait for it.
        cached_texts: text embeddings that are kept.
    """

    health: Health
    queue_depth: int
    cached_texts: int


class Failure(msgspec.Struct, tag=True, frozen=True):
    """Why there is no result.

    Attributes:
        kind: the error's class.
        detail: see `ClipError`; for an unexpected error, a text without internals.
        code: see `ClipError`.
        retry_after_s: see `ServiceUnavailable`.
    """

    kind: str
    detail: str
    code: str = ""
    retry_after_s: int = 1

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """The failure as a message; an error that is not a domain error is unexpected."""
        match error:
            case ServiceUnavailable():
                return cls(type(error).__name__, error.detail, error.code, error.retry_after_s)
            case EncoderFault():
                return cls(type(error).__name__, error.detail, error.code)
            case _:
                return cls("", "the encoder failed unexpectedly; its process logged the reason")

    def error(self) -> Exception:
        """The original error."""
        kind = getattr(errors, self.kind, None) if self.kind else None
        if isinstance(kind, type) and issubclass(kind, ServiceUnavailable):
            return kind(self.detail, code=self.code, retry_after_s=self.retry_after_s)
        if isinstance(kind, type) and issubclass(kind, ClipError):
            return kind(self.detail, code=self.code)
        return RuntimeError(self.detail)


Request: TypeAlias = EncodeImages | EncodeTexts | CountTokens | Report
Reply: TypeAlias = Embeddings | Tokens | EncoderReport | Failure

Array: TypeAlias = NDArray[Any]


class _Head(msgspec.Struct, frozen=True):
    """A message, and the type and shape of its array; an empty type means no array."""

    message: Request | Reply
    kind: str = ""
    shape: list[int] = []


def pack(message: Request | Reply, array: Array | None = None) -> list[bytes | memoryview]:
    """A message as buffers to send, in order."""
    if array is None:
        head = msgspec.msgpack.encode(_Head(message))
        return [_LENGTHS.pack(len(head), 0) + head]
    array = np.ascontiguousarray(array)
    head = msgspec.msgpack.encode(_Head(message, array.dtype.str, list(array.shape)))
    return [_LENGTHS.pack(len(head), array.nbytes) + head, array.reshape(-1).view(np.uint8).data]


def _unpack(head: bytes, data: bytes | memoryview) -> tuple[Request | Reply, Array | None]:
    decoded = msgspec.msgpack.decode(head, type=_Head)
    if not decoded.kind:
        return decoded.message, None
    return decoded.message, np.frombuffer(data, dtype=decoded.kind).reshape(decoded.shape)


async def read_request(reader: asyncio.StreamReader) -> tuple[Request | Reply, Array | None]:
    """The next message.

    Raises:
        IncompleteReadError, ConnectionError: the other side has closed.
    """
    head, data = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    return _unpack(await reader.readexactly(head), await reader.readexactly(data))


def exchange(
    connection: socket.socket, request: Request, array: Array | None = None
) -> tuple[Request | Reply, Array | None]:
    """Send a request and wait for its reply. Blocks.

    Raises:
        OSError: the other side has closed, or the connection timed out.
    """
    # As few calls as possible: after each of them, the thread waits until the event loop lets it
    # continue.
    parts = pack(request, array)
    sent = connection.sendmsg(parts)
    for part in parts:
        if sent < len(part):
            connection.sendall(memoryview(part)[sent:])
        sent = max(sent - len(part), 0)
    received = bytearray(_READ_AT_ONCE)
    count = _receive(connection, received, 0, _LENGTHS.size)
    head, data = _LENGTHS.unpack_from(received)
    start, end = _LENGTHS.size + head, _LENGTHS.size + head + data
    if end > len(received):
        received.extend(bytes(end - len(received)))
    count = _receive(connection, received, count, end)
    if count > end:
        raise ConnectionResetError("the encoder's process sent more than its reply")
    whole = memoryview(received)
    return _unpack(bytes(whole[_LENGTHS.size : start]), whole[start:end])


def _receive(connection: socket.socket, into: bytearray, count: int, wanted: int) -> int:
    """Receive at least ``wanted`` bytes, of which ``count`` are there; returns how many are."""
    with memoryview(into) as view:
        while count < wanted:
            more = connection.recv_into(view[count:])
            if not more:
                raise ConnectionResetError("the encoder's process closed the connection")
            count += more
    return count
