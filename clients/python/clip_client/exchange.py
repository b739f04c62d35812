"""One call from its request to its result, with retries and errors, without any I/O.

Both clients wait and send as an `Exchange` tells them, and report the outcome to it. So the rules
are written once, and are tested without waiting.
"""

import email.utils
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

import httpx
import msgspec

from clip_client.errors import (
    ConnectionFailed,
    FingerprintMismatch,
    InvalidRequest,
    Refused,
    ServerFault,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnexpectedResponse,
)

Result = TypeVar("Result")

_BROKEN_OFF: Final = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""The connection was there and is gone, as when a server closes one that was idle.

Sending again is safe: no call changes anything in the server.
"""


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One question to the server.

    Attributes:
        method: ``GET`` or ``POST``.
        path: such as ``/embed``.
        body: JSON, or None.
        read: makes the result from the body of a 200 and the checkpoint's fingerprint.
        fingerprint: of the embeddings that are sent along, if they know it.
    """

    method: str
    path: str
    read: Callable[[bytes, str | None], Result]
    body: bytes | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Retries:
    """How a call that the server could not take is tried again.

    A 503 is tried again after its ``Retry-After``, and up to a quarter of it later so that clients
    that were refused together do not come back together. Without that header, and after a
    connection that broke off, the pauses are 0.5 s, 1 s, 2 s, …

    Attributes:
        times: how often at most; 0 never.
        within_s: seconds that the pauses of one call may add up to. A server that asks for more
            is not waited for.
    """

    times: int = 4
    within_s: float = 20.0


Outcome: TypeAlias = httpx.Response | httpx.TransportError
"""What came of sending a call; the response's body has been read."""


class Exchange(Generic[Result]):
    """One call under way.

    Attributes:
        pause_s: seconds to wait before sending the call (again); None once nothing is to be sent.
    """

    def __init__(self, call: Call[Result], retries: Retries, proxy: str | None = None) -> None:
        """Begin.

        Args:
            call: what to send.
            retries: how often and how long to try again.
            proxy: the URL of the proxy on the way, which errors name; None if there is none.
        """
        self._proxy = proxy
        self.pause_s: float | None = 0.0
        self._call = call
        self._times_left = retries.times
        self._seconds_left = retries.within_s
        self._backoff_s = 0.5
        self._outcome: Outcome | None = None

    @property
    def request(self) -> dict[str, Any]:
        """The call as arguments of httpx's ``request``."""
        body = self._call.body
        return {
            "method": self._call.method,
            "url": self._call.path,
            "content": body,
            "headers": {} if body is None else {"Content-Type": "application/json"},
        }

    def record(self, outcome: Outcome) -> None:
        """Take what came of sending the call once, and decide whether to try again."""
        self._outcome = outcome
        self.pause_s = None
        if not self._times_left or not _may_be_tried_again(outcome):
            return
        asked = _retry_after(outcome)
        pause_s = self._backoff_s if asked is None else asked
        if pause_s > self._seconds_left:
            return
        self._times_left -= 1
        self._seconds_left -= pause_s
        self._backoff_s *= 2.0
        self.pause_s = pause_s * random.uniform(1.0, 1.25)  # noqa: S311 no secret

    def result(self) -> Result:
        """What the last outcome means.

        Raises:
            ConnectionFailed, UnexpectedResponse, Refused, FingerprintMismatch: as
                `clip_client.errors` says.
        """
        outcome = self._outcome
        if outcome is None:
            raise RuntimeError("nothing was sent yet")
        if isinstance(outcome, httpx.TransportError):
            raise _connection_failed(outcome, self._proxy) from outcome
        if outcome.status_code != 200:
            raise _refused(outcome, self._proxy)
        call = self._call
        fingerprint = outcome.headers.get("X-Model-Fingerprint")
        if call.fingerprint is not None and fingerprint not in {None, call.fingerprint}:
            raise FingerprintMismatch(
                f"the embedding comes from checkpoint {call.fingerprint}, but the server has "
                f"{fingerprint}; embed the images again."
            )
        try:
            return call.read(outcome.content, fingerprint)
        except msgspec.DecodeError as unexpected:
            raise UnexpectedResponse(
                f"the response to {call.method} {outcome.url} is not this server's: {unexpected}."
            ) from unexpected


def with_key(headers: Mapping[str, str] | None, api_key: str | None) -> dict[str, str]:
    """The headers of every call, the key among them.

    Raises:
        ValueError: the key cannot be sent in a header.
    """
    if api_key is None:
        return dict(headers or {})
    if not api_key or not all("!" <= character <= "~" for character in api_key):
        raise ValueError("api_key must be visible ASCII characters without spaces.")
    return {**(headers or {}), "Authorization": f"Bearer {api_key}"}


def read_as(kind: type[Result]) -> Callable[[bytes, str | None], Result]:
    """A `Call.read` that decodes the body and needs no fingerprint."""
    return lambda body, _: msgspec.json.decode(body, type=kind)


def refusal(
    status: int,
    code: str,
    detail: str,
    *,
    request_id: str | None,
    retry_after_s: float | None = None,
) -> Refused:
    """The error for a status other than 200."""
    if status == 503:
        return Unavailable(status, code, detail, request_id, retry_after_s)
    if status == 401:
        return Unauthorized(status, code, detail, request_id)
    return (ServerFault if status >= 500 else InvalidRequest)(status, code, detail, request_id)


def _may_be_tried_again(outcome: Outcome) -> bool:
    if isinstance(outcome, httpx.TransportError):
        return isinstance(outcome, _BROKEN_OFF)
    return outcome.status_code == 503


def _retry_after(outcome: Outcome) -> float | None:
    """Seconds that the response asks to wait, if it does (RFC 9110, section 10.2.3)."""
    if isinstance(outcome, httpx.TransportError):
        return None
    value = outcome.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


class _Problem(msgspec.Struct):
    """RFC 9457 problem details."""

    detail: str
    code: str
    request_id: str | None = None


def _refused(response: httpx.Response, proxy: str | None) -> Refused | UnexpectedResponse:
    status = response.status_code
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        if status != 503:
            return UnexpectedResponse(
                f"{response.request.method} {response.url} was answered with {status} and no "
                f"problem details; is this the server?{_blame(proxy, response.request)}"
            )
        # A proxy with no server behind it says so in its own words.
        problem = _Problem(
            detail=f"there is no server to answer now.{_blame(proxy, response.request)}",
            code="service_unavailable",
        )
    return refusal(
        status,
        problem.code,
        problem.detail,
        request_id=problem.request_id or response.headers.get("X-Request-ID"),
        retry_after_s=_retry_after(response),
    )


def _connection_failed(failure: httpx.TransportError, proxy: str | None) -> ConnectionFailed:
    kind = TimedOut if isinstance(failure, httpx.TimeoutException) else ConnectionFailed
    reason = str(failure) or type(failure).__name__
    return kind(
        f"no response from {failure.request.url}: {reason.rstrip('.')}."
        f"{_blame(proxy, failure.request)}"
    )


def _blame(proxy: str | None, request: httpx.Request) -> str:
    if proxy is None:
        return ""
    return (
        f" The request went to the proxy {proxy}, which the environment names; to reach the server "
        f"directly, set NO_PROXY={request.url.host}."
    )
