"""Whether the service works, for people and for probes."""

from collections.abc import Sequence
from typing import Final

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from application.model.states import Phase
from application.use_cases.health import Health
from entrypoints.http.middleware.auth import OPEN_TO_ALL
from entrypoints.http.routes.endpoint import UseCases, error_responses
from entrypoints.http.schemas.health import HealthResponse, LivenessResponse, ReadinessResponse

_BYTES_PER_GIB: Final = 1024**3


def health_routes(use: UseCases) -> Sequence[HTTPRouteHandler]:
    """``GET /health`` and its two probes."""
    errors = error_responses()

    @get("/health", sync_to_thread=False, tags=["health"], responses={401: errors[401]})
    def health() -> HealthResponse:
        """What is loaded and on what. 200 whether healthy or degraded."""
        return _health(use.report_health(), use)

    # Probes have no keys, and learn no more here than from a connection.
    @get(
        "/health/live",
        sync_to_thread=False,
        tags=["health"],
        opt=OPEN_TO_ALL,
        security=[{}],
        responses={
            503: ResponseSpec(
                LivenessResponse, description="Must be restarted.", generate_examples=False
            )
        },
    )
    def live() -> Response[LivenessResponse]:
        """200 unless only a restart helps: a call to the encoder hangs, or its device is lost."""
        now = use.report_health()
        if now.alive:
            return Response(LivenessResponse(status="alive"), status_code=200)
        status = "lost" if now.phase is Phase.LOST else "hanging"
        return Response(LivenessResponse(status=status), status_code=503)

    @get(
        "/health/ready",
        sync_to_thread=False,
        tags=["health"],
        opt=OPEN_TO_ALL,
        security=[{}],
        responses={
            503: ResponseSpec(ReadinessResponse, description="Not ready.", generate_examples=False)
        },
    )
    def ready() -> Response[ReadinessResponse]:
        """200 if a request sent now would be accepted, else 503."""
        now = use.report_health()
        return Response(
            ReadinessResponse(ready=now.ready, reason=now.reason),
            status_code=200 if now.ready else 503,
        )

    return (health, live, ready)


def _health(now: Health, use: UseCases) -> HealthResponse:
    encoder = now.encoder
    used = now.device_memory_used
    return HealthResponse(
        status="healthy" if now.healthy else "degraded",
        model=use.configured_model if encoder is None else encoder.model,
        model_loaded=now.model_loaded,
        unloaded_while_idle=now.phase is Phase.UNLOADED,
        device=None if now.device is None else now.device.name,
        cuda_available=now.device is not None and now.device.cuda_available,
        gpu_reason=now.gpu_reason,
        vram_used_gb=None if used is None else round(used / _BYTES_PER_GIB, 3),
        embedding_dimension=now.embedding_dimension,
        backend=use.configured_backend if encoder is None else encoder.backend,
        tensorrt_engine_path=None if encoder is None else encoder.engine_path,
        precision=None if encoder is None else encoder.precision,
        model_fingerprint=None if encoder is None else encoder.fingerprint,
        reason=now.reason,
        backend_reason=now.backend_reason,
    )
