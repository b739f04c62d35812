"""Turns requests away while the service is full, so cheaply that those inside do not notice."""

import asyncio
import logging
from collections.abc import Collection
from typing import Final

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from adapters.observability.prometheus_metrics import PrometheusMetrics
from application.inference.admission import Admission
from entrypoints.http.errors.problems import told
from entrypoints.http.middleware.response_headers import AnswerHeaders

logger = logging.getLogger(__name__)

_STATUS: Final = 503
_LOG_EVERY_SECONDS: Final = 1.0


class Door:
    """An ASGI application around all others.

    A full server is often asked many times as much as it can answer. Were each refusal a request
    like any other, with routing, a span and a line in the log, they would take the processor from
    the requests that were let in. Here a question is refused with 503 before its body is read; it
    counts in the metrics, and the log has one line a second about all of them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        questions: Collection[str],
        admission: Admission,
        headers: AnswerHeaders,
        metrics: PrometheusMetrics,
    ) -> None:
        """Make one.

        Args:
            app: answers what is let in.
            questions: the paths that are subject to admission.
            admission: says whether there is room.
            headers: what every answer carries.
            metrics: counts the refusals.
        """
        self._app = app
        self._questions = frozenset(questions)
        self._admission = admission
        self._headers = headers
        self._metrics = metrics
        self._turned_away = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if (
            scope["type"] == ScopeType.HTTP
            and self._admission.inside >= self._admission.capacity
            and not self._admission.draining
            and scope["method"] == "POST"
            and scope["path"] in self._questions
        ):
            await self._turn_away(scope, send)
        else:
            await self._app(scope, receive, send)

    async def _turn_away(self, scope: HTTPScope, send: Send) -> None:
        full = self._admission.full()
        answer = told(scope, _STATUS, full.detail, full.code)
        content = msgspec.json.encode(answer.content)
        start: Message = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (b"content-type", answer.media_type.encode()),
                (b"content-length", str(len(content)).encode()),
                (b"retry-after", str(full.retry_after_s).encode()),
            ],
        }
        await self._headers(start, scope)
        await send(start)
        await send({"type": "http.response.body", "body": content, "more_body": False})
        self._metrics.request_answered(
            endpoint=scope["path"], outcome=full.code, status=_STATUS, seconds=0.0
        )
        if not self._turned_away:
            asyncio.get_running_loop().call_later(_LOG_EVERY_SECONDS, self._log)
        self._turned_away += 1

    def _log(self) -> None:
        logger.warning(
            "turned %d requests away: as many as are taken at once, %d, were waiting or running",
            self._turned_away,
            self._admission.capacity,
        )
        self._turned_away = 0
