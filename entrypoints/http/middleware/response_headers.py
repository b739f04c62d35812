"""Headers that every answer carries, errors included."""

import re
import uuid
from collections.abc import Mapping
from typing import Final

from litestar.types import Message, Scope

from application.inference.admission import Admission
from application.model.supervisor import Supervisor

REQUEST_ID: Final = "X-Request-ID"
FINGERPRINT: Final = "X-Model-Fingerprint"

_SENT_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_STATE_KEY: Final = "clip_request_id"


def request_id(scope: Scope) -> str:
    """The request's id: the client's own ``X-Request-ID`` if it is harmless, else a new one."""
    state = scope["state"]
    if _STATE_KEY not in state:
        sent = next(
            (value for name, value in scope["headers"] if name.lower() == b"x-request-id"), b""
        )
        harmless = _SENT_ID.fullmatch(sent) is not None
        state[_STATE_KEY] = sent.decode("ascii") if harmless else uuid.uuid4().hex
    return str(state[_STATE_KEY])


def security_headers(*, cross_origin: bool, tls: bool) -> dict[str, str]:
    """What tells browsers to be careful, for answers that don't say otherwise themselves.

    Args:
        cross_origin: whether pages of other websites may ask.
        tls: whether this process itself ends TLS. A proxy that does has a policy of its own.
    """
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        # Answers are data; the page and the documentation have policies of their own.
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        # They depend on the key, and on photos that nobody should find in a cache.
        "Cache-Control": "no-store",
    }
    if not cross_origin:
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if tls:
        # A day only: it holds for every port of this host name, and so for the neighbours' too.
        headers["Strict-Transport-Security"] = "max-age=86400"
    return headers


class AnswerHeaders:
    """A Litestar ``before_send`` hook: request id, the checkpoint's fingerprint, security headers.

    While the service shuts down it also asks clients to close the connection, so that they turn
    to a server that stays.
    """

    def __init__(
        self, model: Supervisor, admission: Admission, *, security: Mapping[str, str]
    ) -> None:
        self._model = model
        self._admission = admission
        # As they travel, since this is done for every answer, refusals of a full server included.
        self._security = [_raw(name, value) for name, value in security.items()]

    async def __call__(self, message: Message, scope: Scope) -> None:
        """Add the headers to the message that starts an answer, but for those it has already."""
        if message["type"] != "http.response.start":
            return
        own = list(message["headers"])
        added = [_raw(REQUEST_ID, request_id(scope)), *self._security]
        if (description := self._model.description) is not None:
            added.append(_raw(FINGERPRINT, description.fingerprint))
        if self._admission.draining:
            added.append(_raw("Connection", "close"))
        present = {name.lower() for name, _ in own}
        message["headers"] = own + [header for header in added if header[0] not in present]


def _raw(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")
