"""Traces of requests, where the standard ``OTEL_*`` variables ask for them."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from application.ports import ObserverPort

logger = logging.getLogger(__name__)


class RequestSpan:
    """The span of a request; this one goes nowhere."""

    trace_id: str | None = None

    def answered(self, *, endpoint: str, outcome: str, status: int) -> None:
        """Say how it ended: the route's template, ``ok`` or an error's code, HTTP's status."""


class Tracing(ObserverPort):
    """Traces nothing."""

    @contextmanager
    def request(
        self, method: str, headers: Mapping[str, str], *, request_id: str
    ) -> Iterator[RequestSpan]:
        """The span of one request; stages passed in the block become its children.

        Args:
            method: of HTTP.
            headers: with names in lower case; ``traceparent`` names the caller's span.
            request_id: finds the request in the log.
        """
        yield RequestSpan()

    def close(self) -> None:
        """Send what has not been sent, but keep nobody waiting for long."""


def start_tracing(*, wanted: bool, protocol: str) -> Tracing:
    """Traces over OTLP if they are wanted and can be had, else none.

    Args:
        wanted: whether the environment names a collector.
        protocol: OTLP's, as ``OTEL_EXPORTER_OTLP_PROTOCOL`` has it.
    """
    if not wanted:
        return Tracing()
    if protocol != "http/protobuf":
        logger.warning("no traces: OTLP over %s is not supported, http/protobuf is", protocol)
        return Tracing()
    try:
        # Imported only here: the packages are an extra, and slow to import.
        from adapters.observability.opentelemetry_tracing import OpenTelemetryTracing
    except ImportError as missing:
        logger.warning("no traces: install the extra 'otel' (%s)", missing)
        return Tracing()
    return OpenTelemetryTracing()
