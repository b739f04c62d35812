"""Use cases: whether the service can serve requests, and how busy it is."""

from dataclasses import dataclass
from typing import Final

from application.inference.admission import Admission
from application.inference.batcher import Batcher
from application.inference.text_cache import TextEmbeddings
from application.model.states import Phase
from application.model.supervisor import Supervisor
from application.ports import Device, EncoderDescription

SHUTTING_DOWN: Final = "the server is shutting down."


@dataclass(frozen=True, slots=True)
class Health:
    """The service at this moment.

    Attributes:
        alive: False if only a new process helps.
        ready: whether a request sent now would be accepted.
        healthy: whether a model is loaded, or will be loaded again on request.
        model_loaded: whether a usable model is in memory.
        reason: why it is not ready or not healthy, else None.
        backend_reason: why a slower backend serves than the requested one, else None.
        phase: the name of the encoder's state.
        encoder: the model that is loaded, or will be loaded again; else None.
        device: the hardware; None until it is known.
        gpu_reason: why this machine's NVIDIA GPU is not used, although no other device was
            requested; else None.
        device_memory_used: bytes; None without CUDA or without a model.
        embedding_dimension: floats per embedding: the promised number, else the model's; None:
            neither is known yet.
    """

    alive: bool
    ready: bool
    healthy: bool
    model_loaded: bool
    reason: str | None
    backend_reason: str | None
    phase: Phase
    encoder: EncoderDescription | None
    device: Device | None
    gpu_reason: str | None
    device_memory_used: int | None
    embedding_dimension: int | None


class ReportHealth:
    """Serves ``GET /health`` and its two probes. Never blocks on the encoder."""

    def __init__(
        self,
        *,
        model: Supervisor,
        admission: Admission,
        promised_dimension: int | None = None,
    ) -> None:
        """Make one; ``promised_dimension`` as for `Inference`."""
        self._model = model
        self._admission = admission
        self._promised_dimension = promised_dimension

    def __call__(self) -> Health:
        """The service at this moment."""
        row, reason, encoder = self._model.health, self._model.reason, self._model.encoder
        draining = self._admission.draining
        description = self._model.description
        return Health(
            alive=row.alive,
            ready=row.ready and not draining,
            healthy=reason is None,
            model_loaded=row.model_loaded,
            reason=SHUTTING_DOWN if draining else reason,
            backend_reason=None if description is None else self._model.upgrade_reason,
            phase=row.phase,
            encoder=description,
            device=self._model.device,
            gpu_reason=self._model.gpu_reason,
            # A suspect encoder is not called, not even for this.
            device_memory_used=None if encoder is None else encoder.device_memory_used(),
            embedding_dimension=self._promised_dimension
            or (None if description is None else description.embedding_dimension),
        )


@dataclass(frozen=True, slots=True)
class Load:
    """The service's work at this moment.

    Attributes:
        requests: waiting or running.
        max_requests: how many of them are accepted at once.
        queue_depth: images, and requests' texts, that wait for the encoder.
        cached_texts: text embeddings that are kept.
    """

    requests: int
    max_requests: int
    queue_depth: int
    cached_texts: int


class ReportLoad:
    """Part of ``GET /metrics``."""

    def __init__(self, *, admission: Admission, batcher: Batcher, texts: TextEmbeddings) -> None:
        self._admission = admission
        self._batcher = batcher
        self._texts = texts

    def __call__(self) -> Load:
        """The service's work at this moment."""
        return Load(
            requests=self._admission.inside,
            max_requests=self._admission.capacity,
            queue_depth=self._batcher.depth,
            cached_texts=self._texts.kept,
        )
