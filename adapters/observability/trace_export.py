"""Starts tracing with OpenTelemetry if the standard ``OTEL_*`` variables ask for it."""

import logging

from adapters.observability.tracing import Tracing
from adapters.system.installation import install_command

logger = logging.getLogger(__name__)


def start_tracing(*, wanted: bool, protocol: str) -> Tracing:
    """Traces over OTLP if they are wanted and possible, else none.

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
        logger.warning("no traces: %s. Run: %s", missing, install_command("otel"))
        return Tracing()
    return OpenTelemetryTracing()
