"""What Prometheus scrapes."""

from collections.abc import Callable
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from adapters.observability.prometheus_metrics import PrometheusMetrics
from application.use_cases.health import Health, Load


def metrics_route(
    prometheus: PrometheusMetrics,
    report_health: Callable[[], Health],
    report_load: Callable[[], Load],
) -> HTTPRouteHandler:
    """``GET /metrics``."""

    @get("/metrics", sync_to_thread=False, include_in_schema=False)
    def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Every metric, in OpenMetrics or in Prometheus's text format, as asked for."""
        page, content_type = prometheus.page(
            request.headers.get("accept", ""), health=report_health(), load=report_load()
        )
        # Set as a header, since Litestar would add its own charset to a media type.
        return Response(page, headers={"content-type": content_type})

    return metrics
