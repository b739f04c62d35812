"""Request normalisation, response headers and the request log."""

import logging
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from litestar.types import HTTPScope, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from adapters.observability.prometheus_metrics import PrometheusMetrics
from adapters.observability.stage_times import SecondsByStage, StageTimes
from adapters.observability.tracing import RequestSpan, Tracing
from entrypoints.http.errors.table import OUTCOME_KEY, REQUEST_ID_KEY, NotFound, send_error
from entrypoints.http.middleware import HttpApp

logger = logging.getLogger(__name__)

REQUEST_ID: Final = "X-Request-ID"
FINGERPRINT: Final = "X-Model-Fingerprint"
UNKNOWN_FIELD: Final = "X-Unknown-Field"
"""Names the first unknown field of a request; `note_unknown_field` sets it."""
TOKENS_CUT: Final = "X-Tokens-Cut"
"""Tokens that were cut off the ends of a request's texts; `note_tokens_cut` sets it."""

_MAX_PATH_CHARACTERS: Final = 2048
_SENT_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_SLASHES: Final = re.compile("//+")
_UNKNOWN_FIELD_KEY: Final = "clip_unknown_field"
_TOKENS_CUT_KEY: Final = "clip_tokens_cut"
_UNROUTED: Final = "unrouted"
_CLIENT_GONE: Final = 499
_PROBES: Final = (
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/.well-known/live",
    "/.well-known/ready",
)
"""Endpoints that probes and scrapers call all the time: not traced, and logged only on failure."""


def request_id(scope: Scope) -> str:
    """The request's id: the client's own ``X-Request-ID`` if it is harmless, else a new one."""
    return str(scope["state"][REQUEST_ID_KEY])


def note_unknown_field(scope: Scope, what: str) -> None:
    """Report an unknown field in the response's headers and in the log.

    Args:
        scope: of the request.
        what: printable ASCII.
    """
    scope["state"][_UNKNOWN_FIELD_KEY] = what


def note_tokens_cut(scope: Scope, count: int) -> None:
    """Report in the response's headers how many tokens of the texts were not read."""
    scope["state"][_TOKENS_CUT_KEY] = count


def security_headers(*, cross_origin: bool, tls: bool) -> dict[str, str]:
    """Security headers for responses that don't set their own.

    Args:
        cross_origin: whether pages of other websites may send requests.
        tls: whether this process itself terminates TLS. A proxy that does has its own policy.
    """
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        # Responses are data; the page and the documentation have policies of their own.
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        # Responses depend on the key, and on photos that must not end up in a cache.
        "Cache-Control": "no-store",
    }
    if not cross_origin:
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if tls:
        # Only a day: it applies to every port of this host name, including other services.
        headers["Strict-Transport-Security"] = "max-age=86400"
    return headers


class Envelope:
    """Middleware that normalises requests and adds headers to responses.

    Everything after it, load shedding and routing included, sees one path for each endpoint
    (``//embed/`` is ``/embed``) and HEAD as GET. Every response, errors included, has the request's
    id, the model's fingerprint and the security headers; while the server shuts down it also asks
    clients to close the connection, so that they move to another server.
    """

    def __init__(
        self,
        app: HttpApp,
        *,
        fingerprint: Callable[[], str | None],
        draining: Callable[[], bool],
        security: Mapping[str, str],
    ) -> None:
        """Put it around ``app``.

        Args:
            app: handles requests.
            fingerprint: of the loaded model, or of the one that will be reloaded; None before the
                first.
            draining: whether the server is shutting down.
            security: the security headers.
        """
        self._app = app
        self._fingerprint = fingerprint
        self._draining = draining
        # Encoded once, since every response has them, even those of a full server.
        self._security = [_raw(name, value) for name, value in security.items()]

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        head = scope["method"] == "HEAD"
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = self._complete(message["headers"], scope)
            elif head and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        scope.setdefault("state", {})[REQUEST_ID_KEY] = _request_id(scope)
        path = _one_path(scope)
        if head or path != scope["path"]:
            # A copy: the server below must still see HEAD, or it would wait for a body.
            scope = scope.copy()
            scope["path"], scope["root_path"] = path, ""
            if head:
                scope["method"] = "GET"
        try:
            if len(path) > _MAX_PATH_CHARACTERS:
                raise NotFound.at(path)
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if started:
                raise
            await send_error(scope, send_with_headers, error)

    def _complete(
        self, own: Iterable[tuple[bytes, bytes]], scope: HTTPScope
    ) -> list[tuple[bytes, bytes]]:
        """The response's own headers, and the common ones that it does not set."""
        added = [_raw(REQUEST_ID, request_id(scope)), *self._security]
        if (fingerprint := self._fingerprint()) is not None:
            added.append(_raw(FINGERPRINT, fingerprint))
        if (unknown := scope["state"].get(_UNKNOWN_FIELD_KEY)) is not None:
            added.append(_raw(UNKNOWN_FIELD, unknown))
        if (cut := scope["state"].get(_TOKENS_CUT_KEY)) is not None:
            added.append(_raw(TOKENS_CUT, str(cut)))
        if self._draining():
            added.append(_raw("Connection", "close"))
        headers = list(own)
        present = {name.lower() for name, _ in headers}
        return headers + [header for header in added if header[0] not in present]


class RequestLog:
    """Middleware that counts, times and traces each request, and logs it at the end.

    It comes before routing, so it also sees requests for paths that do not exist.
    """

    def __init__(
        self,
        app: HttpApp,
        *,
        paths: Collection[str],
        metrics: PrometheusMetrics,
        stages: StageTimes,
        tracing: Tracing,
    ) -> None:
        """Make one.

        Args:
            app: handles the request.
            paths: of the endpoints, for requests refused before routing.
            metrics: counts and times.
            stages: times the stages of a request.
            tracing: one span for each request.
        """
        self._app = app
        self._paths = frozenset(paths)
        self._metrics = metrics
        self._stages = stages
        self._tracing = tracing
        self._untraced = Tracing()

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        started_s = time.perf_counter()
        status = _CLIENT_GONE

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        identity = request_id(scope)
        tracing = self._untraced if scope["path"] in _PROBES else self._tracing
        headers = _headers(scope) if tracing is self._tracing else {}
        with (
            self._stages.of_request() as stages,
            tracing.request(scope["method"], headers, request_id=identity) as span,
            bound_contextvars(request_id=identity, **_trace_of(span)),
        ):
            try:
                await self._app(scope, receive, send_and_note)
            finally:
                self._finish(scope, status, time.perf_counter() - started_s, stages, span)

    def _finish(
        self,
        scope: HTTPScope,
        status: int,
        seconds: float,
        stages: SecondsByStage,
        span: RequestSpan,
    ) -> None:
        state = scope["state"]
        known = scope["path"] if scope["path"] in self._paths else _UNROUTED
        endpoint = scope.get("path_template") or known
        outcome = state.get(OUTCOME_KEY) or _outcome(status)
        self._metrics.request_finished(
            endpoint=endpoint, outcome=outcome, status=status, seconds=seconds
        )
        span.finished(endpoint=endpoint, outcome=outcome, status=status)
        routine = endpoint in _PROBES and status < 400
        level = logging.DEBUG if routine else logging.INFO
        if not logger.isEnabledFor(level):
            return
        sometimes = {}
        if endpoint == _UNROUTED:
            # Still percent-encoded, so that it cannot fake a log line.
            sometimes["path"] = scope.get("raw_path", b"")[:200].decode("latin-1")
        if _UNKNOWN_FIELD_KEY in state:
            sometimes["unknown_field"] = state[_UNKNOWN_FIELD_KEY]
        logger.log(
            level,
            "request",
            extra={
                "method": scope["method"],
                "endpoint": endpoint,
                **sometimes,
                "status": status,
                "outcome": outcome,
                "client": scope["client"][0] if scope["client"] else None,
                "duration_ms": _milliseconds(seconds),
                **{f"{stage}_ms": _milliseconds(spent) for stage, spent in stages.items()},
            },
        )


def _one_path(scope: HTTPScope) -> str:
    """The path below the root, with single slashes and without a trailing slash."""
    path = scope["path"]
    if root := scope.get("root_path", ""):
        path = path.split(root, maxsplit=1)[-1]
    return "/" + _SLASHES.sub("/", path.strip("/"))


def _request_id(scope: HTTPScope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SENT_ID.fullmatch(value):
            return value.decode("ascii")
    return uuid.uuid4().hex


def _headers(scope: HTTPScope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _trace_of(span: RequestSpan) -> dict[str, str]:
    return {} if span.trace_id is None else {"trace_id": span.trace_id}


def _outcome(status: int) -> str:
    if status < 400:
        return "ok"
    return "client_gone" if status == _CLIENT_GONE else "failed"


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _raw(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")
