"""The Litestar application."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from dependency_injector.providers import Provider
from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from domain.limits import MAX_BODY_BYTES
from entrypoints.container import Container, close_threads
from entrypoints.http.bodies.json_bodies import JsonRequest
from entrypoints.http.errors.problems import EXCEPTION_HANDLERS
from entrypoints.http.middleware.auth import KEY_HEADER, guards
from entrypoints.http.middleware.body_limits import Reception
from entrypoints.http.middleware.load_shedding import Door
from entrypoints.http.middleware.request_log import RequestObservation
from entrypoints.http.middleware.response_headers import (
    FINGERPRINT,
    REQUEST_ID,
    AnswerHeaders,
    security_headers,
)
from entrypoints.http.routes import ROUTES
from entrypoints.http.routes.documentation import documentation_assets, openapi_config
from entrypoints.http.routes.metrics import metrics
from entrypoints.settings import Settings
from entrypoints.web.page_files import page_routes


def create_app(container: Container) -> Litestar:
    """The HTTP service over a container's use cases; the model loads once the app has started."""

    @asynccontextmanager
    async def model_in_background(_: Litestar) -> AsyncIterator[None]:
        container.images().start()
        tasks = [asyncio.create_task(_keep_model(container))]
        if settings.watchdog is not None:
            health = container.report_health()
            tasks.append(asyncio.create_task(settings.watchdog.tell(lambda: health().alive)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            close_threads(container)
            await asyncio.to_thread(container.tracing().close)

    settings = container.settings()
    answer_headers = AnswerHeaders(
        container.model(),
        container.admission(),
        security=security_headers(
            cross_origin=bool(settings.cors_origins), tls=settings.tls is not None
        ),
    )
    app = Litestar(
        route_handlers=_routes(settings),
        guards=guards(settings.api_keys, settings.cors_origins),
        cors_config=_cors(settings.cors_origins),
        dependencies={
            "embed_image": _injected(container.embed_image),
            "score_anomaly": _injected(container.score_anomaly),
            "classify_image": _injected(container.classify_image),
            "compare_texts": _injected(container.compare_texts),
            "embed_images": _injected(container.embed_images),
            "embed_texts": _injected(container.embed_texts),
            "embed_inputs": _injected(container.embed_inputs),
            "compare_sightings": _injected(container.compare_sightings),
            "build_baseline": _injected(container.build_baseline),
            "report_health": _injected(container.report_health),
            "report_load": _injected(container.report_load),
            "prometheus": _injected(container.metrics),
        },
        lifespan=[model_in_background],
        before_send=[answer_headers],
        exception_handlers=EXCEPTION_HANDLERS,
        request_class=JsonRequest,
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,  # the process's own logging stands
        openapi_config=(
            openapi_config(version("clip-embedding-server"), keys=settings.api_keys is not None)
            if settings.serves_docs
            else None
        ),
    )
    questions = [path for each in ROUTES if "POST" in each.http_methods for path in each.paths]
    # Around all of it: Litestar's own middleware does not see what its router refuses.
    app.asgi_handler = Door(
        RequestObservation(
            Reception(app.asgi_handler, most_bytes=settings.max_body_memory_mib * 1024 * 1024),
            metrics=container.metrics(),
            stages=container.stage_times(),
            tracing=container.tracing(),
        ),
        questions=questions,
        admission=container.admission(),
        headers=answer_headers,
        metrics=container.metrics(),
    )
    return app


def _routes(settings: Settings) -> list[ControllerRouterHandler]:
    """What is served; whatever was closed is not there at all."""
    routes: list[ControllerRouterHandler] = [*ROUTES]
    if settings.serves_page:
        routes += page_routes(docs=settings.serves_docs)
    if settings.serves_metrics:
        routes.append(metrics)
    if settings.serves_docs:
        routes.append(documentation_assets())
    return routes


def _cors(origins: Sequence[str]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", KEY_HEADER, REQUEST_ID],
        expose_headers=[REQUEST_ID, FINGERPRINT, "Retry-After"],
    )


async def _keep_model(container: Container) -> None:
    """Serve as soon as possible, then as fast as possible; and let go of the model when idle.

    All the while an encoder that breaks its contract is seen to.
    """

    async def bring_up() -> None:
        await container.model().bring_up()
        await container.encoder_upgrade().run()
        await container.idle_unloading().run()

    await asyncio.gather(container.encoder_recovery().run(), bring_up())


def _injected(provider: Provider[Any]) -> Provide:
    def use_case() -> Any:
        return provider()

    return Provide(use_case, sync_to_thread=False)
