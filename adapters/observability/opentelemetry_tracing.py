"""Traces with OpenTelemetry, sent over OTLP/HTTP."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from adapters.observability.tracing import RequestSpan, Tracing
from application.ports import Stage

_DISTRIBUTION: Final = "clip-embedding-server"
_CLOSE_SECONDS: Final = 2.0


class OpenTelemetryTracing(Tracing):
    """A server span for each request and a child for each stage.

    The SDK reads sampling, collector, headers, limits and resource from the standard variables.
    """

    def __init__(self) -> None:
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(_DISTRIBUTION, version(_DISTRIBUTION))

    @contextmanager
    def request(
        self, method: str, headers: Mapping[str, str], *, request_id: str
    ) -> Iterator[RequestSpan]:
        """See `Tracing.request`."""
        with self._tracer.start_as_current_span(
            method,  # the route is not known yet, and the path is the client's to choose
            context=propagate.extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "clip.request_id": request_id},
        ) as span:
            yield _OpenTelemetrySpan(span, method)

    def stage_passed(self, stage: Stage, started_s: float, ended_s: float) -> None:
        """See `ObserverPort.stage_passed`."""
        if trace.get_current_span().is_recording():
            since_s = time.time() - time.perf_counter()
            span = self._tracer.start_span(stage, start_time=_nanoseconds(since_s + started_s))
            span.end(_nanoseconds(since_s + ended_s))

    def close(self) -> None:
        """See `Tracing.close`."""
        # The SDK would wait 30 s for a collector that has gone.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_CLOSE_SECONDS)


class _OpenTelemetrySpan(RequestSpan):
    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method
        context = span.get_span_context()
        self.trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else None

    def finished(self, *, endpoint: str, outcome: str, status: int) -> None:
        """See `RequestSpan.finished`."""
        # Names and statuses by OpenTelemetry's semantic conventions for HTTP servers.
        self._span.update_name(f"{self._method} {endpoint}")
        self._span.set_attribute("http.route", endpoint)
        self._span.set_attribute("http.response.status_code", status)
        if outcome != "ok":
            self._span.set_attribute("error.type", outcome)
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))


def _resource() -> Resource:
    resource = Resource.create({SERVICE_VERSION: version(_DISTRIBUTION)})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: _DISTRIBUTION}))
    return resource


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
