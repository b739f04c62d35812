"""Traces of requests: the interface that the server uses. This implementation traces nothing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from application.ports import ObserverPort


class RequestSpan:
    """The span of a request; this one is not sent anywhere."""

    trace_id: str | None = None

    def finished(self, *, endpoint: str, outcome: str, status: int) -> None:
        """Record how it ended.

        Args:
            endpoint: the route's template.
            outcome: ``ok``, or the error's code.
            status: HTTP's.
        """


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
        """Send what is still to be sent, within two seconds."""
