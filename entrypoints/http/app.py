"""The HTTP service: one ordered list of middleware around the endpoints."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Final

from litestar import Litestar, Request, Response
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.types import ASGIApp, ControllerRouterHandler, HTTPScope, Receive, Scope, Send

from adapters.observability.prometheus_metrics import PrometheusMetrics
from adapters.observability.stage_times import StageTimes
from adapters.observability.tracing import Tracing
from application.inference.admission import Admission
from application.use_cases.health import Load
from entrypoints.http.dialects import Dialect
from entrypoints.http.errors.table import (
    ErrorBody,
    InvalidHost,
    MethodNotAllowed,
    NotFound,
    rendered,
)
from entrypoints.http.middleware import HttpApp
from entrypoints.http.middleware.auth import KEY_HEADER, OPEN_OPTION, Auth, ClientIdentity
from entrypoints.http.middleware.envelope import (
    FINGERPRINT,
    REQUEST_ID,
    TOKENS_CUT,
    UNKNOWN_FIELD,
    Envelope,
    RequestLog,
    security_headers,
)
from entrypoints.http.middleware.limits import BodyLimits, LoadShedding
from entrypoints.http.routes import endpoints_of
from entrypoints.http.routes.dialects import llama_cpp, weaviate
from entrypoints.http.routes.documentation import documentation_routes, openapi_config
from entrypoints.http.routes.endpoint import UseCases
from entrypoints.http.routes.health import health_routes
from entrypoints.http.routes.metrics import metrics_route
from entrypoints.http.routes.openai import model_routes
from entrypoints.settings import Settings
from entrypoints.web.page_files import page_routes

_BYTES_PER_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Parts:
    """What the HTTP service is composed of, made by the container.

    Attributes:
        use: the use cases.
        use_for: the use cases for one client's requests; see `Inference.asked_by`.
        report_load: reports the load for the metrics.
        admission: decides whether there is room for a request.
        fingerprint: of the loaded model, or of the one that will be reloaded; None before the
            first.
        metrics: counts and times requests.
        stages: sums up what a request spends its time on.
        tracing: one span for each request.
        lifespan: starts and stops the background work.
    """

    use: UseCases
    use_for: Callable[[str], UseCases]
    report_load: Callable[[], Load]
    admission: Admission
    fingerprint: Callable[[], str | None]
    metrics: PrometheusMetrics
    stages: StageTimes
    tracing: Tracing
    lifespan: Callable[[Litestar], AbstractAsyncContextManager[None]]


def create_app(settings: Settings, parts: Parts) -> ASGIApp:
    """The HTTP service, as an ASGI application."""
    client_of = ClientIdentity(keyed=settings.api_keys is not None)
    endpoints = Litestar(
        route_handlers=_routes(settings, parts, client_of),
        lifespan=[parts.lifespan],
        exception_handlers={Exception: _as_response},
        request_max_body_size=None,  # BodyLimits does that
        logging_config=None,  # keep the process's own logging
        openapi_config=(
            openapi_config(version("clip-embedding-server"), keys=settings.api_keys is not None)
            if settings.serves_docs
            else None
        ),
    )
    # Requests pass these from top to bottom, responses from bottom to top.
    middleware: Sequence[Callable[[HttpApp], HttpApp]] = (
        partial(
            Envelope,
            fingerprint=parts.fingerprint,
            draining=lambda: parts.admission.draining,
            security=security_headers(
                cross_origin=bool(settings.cors_origins), tls=settings.tls is not None
            ),
        ),
        partial(
            LoadShedding,
            paths=[endpoint.path for endpoint in endpoints_of(settings.dialects)],
            admission=parts.admission,
            client_of=client_of,
            metrics=parts.metrics,
        ),
        partial(
            RequestLog,
            paths=[route.path for route in endpoints.routes],
            metrics=parts.metrics,
            stages=parts.stages,
            tracing=parts.tracing,
        ),
        partial(
            Auth,
            keys=settings.api_keys,
            is_open=_open_paths(endpoints),
            origins=settings.cors_origins,
            allowed_headers=["Authorization", "Content-Type", KEY_HEADER, REQUEST_ID],
            exposed_headers=[REQUEST_ID, FINGERPRINT, UNKNOWN_FIELD, TOKENS_CUT, "Retry-After"],
        ),
        partial(BodyLimits, most_bytes=settings.max_body_memory_mib * _BYTES_PER_MIB),
    )
    service: HttpApp = endpoints
    for around in reversed(middleware):
        service = around(service)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Pass lifespan events to the endpoints, and requests through the middleware."""
        if scope["type"] == ScopeType.HTTP:
            await service(scope, receive, send)
        else:
            await endpoints(scope, receive, send)

    return app


def _routes(
    settings: Settings, parts: Parts, client_of: ClientIdentity
) -> list[ControllerRouterHandler]:
    """All routes except those that the settings switch off."""

    def use_for(scope: HTTPScope) -> UseCases:
        return parts.use_for(client_of(scope))

    routes: list[ControllerRouterHandler] = [
        *(endpoint.handler(use_for) for endpoint in endpoints_of(settings.dialects)),
        *model_routes(parts.use),
        *health_routes(parts.use),
    ]
    if Dialect.LLAMA_CPP in settings.dialects:
        routes += llama_cpp.server_routes(parts.use)
    if Dialect.WEAVIATE in settings.dialects:
        routes += weaviate.module_routes(parts.use)
    if settings.serves_page:
        routes += page_routes(docs=settings.serves_docs, max_pixels=settings.max_decoded_pixels)
    if settings.serves_metrics:
        routes.append(metrics_route(parts.metrics, parts.use.report_health, parts.report_load))
    if settings.serves_docs:
        routes += documentation_routes()
    return routes


def _open_paths(endpoints: Litestar) -> Callable[[str], bool]:
    """Whether a path needs no key, as the handlers' `OPEN_TO_ALL` says."""
    exact: set[str] = set()
    below: set[str] = set()
    for route in endpoints.routes:
        if any(handler.opt.get(OPEN_OPTION) for handler in _handlers(route)):
            fixed, parameter, _ = route.path.partition("{")
            (below if parameter else exact).add(fixed)
    prefixes = tuple(below)
    return lambda path: path in exact or (bool(prefixes) and path.startswith(prefixes))


def _handlers(route: Any) -> Sequence[Any]:
    return getattr(route, "route_handlers", None) or [route.route_handler]


def _as_response(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorBody]:
    """The response for any error that an endpoint or the router raises."""
    if isinstance(error, HTTPException):
        error = _own_error(request, error)
    told = rendered(request.scope, error)
    return Response(
        told.body, status_code=told.status, media_type=told.media_type, headers=told.headers
    )


def _own_error(request: Request[Any, Any, Any], error: HTTPException) -> Exception:
    """This service's error for a framework error, whose message never reaches a client."""
    path = request.scope["path"]
    match error:
        case MethodNotAllowedException():
            return MethodNotAllowed(request.method, path, (error.headers or {}).get("Allow", ""))
        case NotFoundException():
            return NotFound.at(path)
        case _ if error.status_code == 400:
            return InvalidHost("the Host header is not the name of a host.")
        case _:
            return error
