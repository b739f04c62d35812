"""What Prometheus scrapes."""

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency

from adapters.observability.prometheus_metrics import PrometheusMetrics
from application.use_cases.health import ReportHealth, ReportLoad


@get("/metrics", sync_to_thread=False, include_in_schema=False)
def metrics(
    request: Request[Any, Any, Any],
    prometheus: NamedDependency[PrometheusMetrics],
    report_health: NamedDependency[ReportHealth],
    report_load: NamedDependency[ReportLoad],
) -> Response[bytes]:
    """Every metric, in OpenMetrics or in Prometheus's text format, as asked for."""
    page, content_type = prometheus.page(
        request.headers.get("accept", ""), health=report_health(), load=report_load()
    )
    # As a header: to a media type Litestar would add its own charset.
    return Response(page, headers={"content-type": content_type})
