"""Each request seen from outside: counted, timed, traced, and a line in the log when it ends."""

import logging
import time
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from adapters.observability.prometheus_metrics import PrometheusMetrics
from adapters.observability.stage_times import SecondsByStage, StageTimes
from adapters.observability.tracing import RequestSpan, Tracing
from entrypoints.http.middleware.response_headers import request_id

logger = logging.getLogger(__name__)

_OUTCOME_KEY: Final = "clip_outcome"
_UNROUTED: Final = "unrouted"
_BROKEN_OFF: Final = 499
_MACHINES: Final = ("/health", "/health/live", "/health/ready", "/metrics")
"""What probes and scrapers call all the time: not traced, and logged only if it failed."""


def note_outcome(scope: Scope, code: str) -> None:
    """Remember the code of the error that a request is answered with."""
    scope["state"][_OUTCOME_KEY] = code


class RequestObservation:
    """An ASGI application around another one, outside of its routing: sees 404s too."""

    def __init__(
        self, app: ASGIApp, *, metrics: PrometheusMetrics, stages: StageTimes, tracing: Tracing
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._stages = stages
        self._tracing = tracing
        self._untraced = Tracing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        status = _BROKEN_OFF

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        identity = request_id(scope)
        tracing = self._untraced if scope["path"] in _MACHINES else self._tracing
        headers = _headers(scope) if tracing is self._tracing else {}
        with (
            self._stages.of_request() as stages,
            tracing.request(scope["method"], headers, request_id=identity) as span,
            bound_contextvars(request_id=identity, **_trace_of(span)),
        ):
            try:
                await self._app(scope, receive, watched)
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
        endpoint = scope.get("path_template") or _UNROUTED
        outcome = scope["state"].get(_OUTCOME_KEY) or _outcome(status)
        self._metrics.request_answered(
            endpoint=endpoint, outcome=outcome, status=status, seconds=seconds
        )
        span.answered(endpoint=endpoint, outcome=outcome, status=status)
        unknown = {}
        if endpoint == _UNROUTED:
            # Still percent-encoded, so that nothing in it can look like a line of the log.
            unknown["path"] = scope.get("raw_path", b"")[:200].decode("latin-1")
        routine = endpoint in _MACHINES and status < 400
        logger.log(
            logging.DEBUG if routine else logging.INFO,
            "answered",
            extra={
                "method": scope["method"],
                "endpoint": endpoint,
                **unknown,
                "status": status,
                "outcome": outcome,
                "client": scope["client"][0] if scope["client"] else None,
                "duration_ms": _milliseconds(seconds),
                **{f"{stage}_ms": _milliseconds(spent) for stage, spent in stages.items()},
            },
        )


def _headers(scope: HTTPScope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _trace_of(span: RequestSpan) -> dict[str, str]:
    return {} if span.trace_id is None else {"trace_id": span.trace_id}


def _outcome(status: int) -> str:
    if status < 400:
        return "ok"
    return "client_gone" if status == _BROKEN_OFF else "failed"


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
