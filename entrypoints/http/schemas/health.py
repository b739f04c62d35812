"""What the service says about itself."""

from typing import Annotated

from msgspec import Struct

from entrypoints.http.schemas.fields import documented


class HealthResponse(Struct):
    """The service at this moment."""

    status: Annotated[str, documented("`healthy`, or `degraded` while there is no model.")]
    model: Annotated[
        str, documented("The model that is loaded; while there is none, the configured one's name.")
    ]
    model_loaded: bool
    unloaded_while_idle: Annotated[
        bool, documented("Its memory was given back; the next request loads it again and waits.")
    ]
    device: Annotated[str | None, documented("`cuda:0` or `cpu`; null until it was looked at.")]
    cuda_available: bool
    vram_used_gb: Annotated[float | None, documented("GiB; null without CUDA.")]
    embedding_dimension: int
    backend: Annotated[
        str,
        documented("`torch`, …; while no model is loaded, what `CLIP_ENCODER` says, as `auto`."),
    ]
    tensorrt_engine_path: str | None
    precision: Annotated[str | None, documented("What the towers compute in, such as `fp32`.")]
    model_fingerprint: Annotated[
        str | None,
        documented("Embeddings with different fingerprints must never be compared."),
    ]
    reason: Annotated[str | None, documented("Why the service is degraded.")]
    backend_reason: Annotated[
        str | None,
        documented("Why TensorRT, though asked for, is not what answers; null where it is."),
    ]


class LivenessResponse(Struct):
    """Whether the process can go on."""

    status: Annotated[
        str,
        documented(
            "`alive`; `hanging` in a call that does not return; `lost` once the device has failed."
        ),
    ]


class ReadinessResponse(Struct):
    """Whether a request sent now would be taken."""

    ready: bool
    reason: str | None
