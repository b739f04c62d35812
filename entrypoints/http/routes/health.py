"""Whether the service can answer, for people and for probes."""

from typing import Final

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec

from application.model.states import Phase
from application.use_cases.health import Health, ReportHealth
from entrypoints.http.middleware.auth import OPEN_TO_ALL
from entrypoints.http.routes.question import PROBLEMS
from entrypoints.http.schemas.health import HealthAnswer, LivenessAnswer, ReadinessAnswer

_BYTES_PER_GIB: Final = 1024**3


@get("/health", sync_to_thread=False, tags=["health"], responses={401: PROBLEMS[401]})
def health(report_health: NamedDependency[ReportHealth]) -> HealthAnswer:
    """What is loaded and on what. 200 whether healthy or degraded."""
    return _health_answer(report_health())


# Probes have no keys, and learn nothing here that connecting would not tell them.
@get(
    "/health/live",
    sync_to_thread=False,
    tags=["health"],
    opt=OPEN_TO_ALL,
    security=[{}],
    responses={
        503: ResponseSpec(LivenessAnswer, description="Must be restarted.", generate_examples=False)
    },
)
def live(report_health: NamedDependency[ReportHealth]) -> Response[LivenessAnswer]:
    """200 unless only a restart helps: a call of the encoder hangs, or its device is lost."""
    now = report_health()
    if now.alive:
        return Response(LivenessAnswer(status="alive"), status_code=200)
    status = "lost" if now.phase is Phase.LOST else "hanging"
    return Response(LivenessAnswer(status=status), status_code=503)


@get(
    "/health/ready",
    sync_to_thread=False,
    tags=["health"],
    opt=OPEN_TO_ALL,
    security=[{}],
    responses={
        503: ResponseSpec(ReadinessAnswer, description="Not ready.", generate_examples=False)
    },
)
def ready(report_health: NamedDependency[ReportHealth]) -> Response[ReadinessAnswer]:
    """200 if a request sent now would be taken, else 503."""
    now = report_health()
    return Response(
        ReadinessAnswer(ready=now.ready, reason=now.reason), status_code=200 if now.ready else 503
    )


def _health_answer(now: Health) -> HealthAnswer:
    encoder = now.encoder
    used = now.device_memory_used
    return HealthAnswer(
        status="healthy" if now.healthy else "degraded",
        model=None if encoder is None else encoder.model,
        model_loaded=now.model_loaded,
        unloaded_while_idle=now.phase is Phase.UNLOADED,
        device=None if now.device is None else now.device.name,
        cuda_available=now.device is not None and now.device.cuda_available,
        vram_used_gb=None if used is None else round(used / _BYTES_PER_GIB, 3),
        embedding_dimension=now.embedding_dimension,
        backend=None if encoder is None else encoder.backend,
        tensorrt_engine_path=None if encoder is None else encoder.engine_path,
        precision=None if encoder is None else encoder.precision,
        model_fingerprint=None if encoder is None else encoder.fingerprint,
        reason=now.reason,
        backend_reason=now.backend_reason,
    )
