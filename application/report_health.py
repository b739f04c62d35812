"""Use case: is the service able to answer, and with what."""

from dataclasses import dataclass

from application.admission import Admission
from application.model_lifecycle import ModelLifecycle
from application.ports import Device, EncoderDescription


@dataclass(frozen=True, slots=True)
class Health:
    """The service at this moment.

    Attributes:
        ready: whether a request sent now would be taken.
        reason: why not, else None.
        encoder: what is loaded, or None.
        device: the hardware; None until it was looked at.
        device_memory_used: bytes; None where there is no CUDA or no model.
        embedding_dimension: floats per embedding that the service promises.
    """

    ready: bool
    reason: str | None
    encoder: EncoderDescription | None
    device: Device | None
    device_memory_used: int | None
    embedding_dimension: int


class ReportHealth:
    """Answers ``GET /health`` and its two probes. Never blocks on the encoder."""

    def __init__(
        self, *, model: ModelLifecycle, admission: Admission, embedding_dimension: int
    ) -> None:
        self._model = model
        self._admission = admission
        self._embedding_dimension = embedding_dimension

    def __call__(self) -> Health:
        """The service at this moment."""
        encoder = self._model.loaded
        reason = None
        if self._admission.draining:
            reason = "the server is shutting down."
        elif encoder is None:
            reason = self._model.failure or "the model is still being loaded."
        return Health(
            ready=reason is None,
            reason=reason,
            encoder=None if encoder is None else encoder.description,
            device=self._model.device,
            device_memory_used=None if encoder is None else encoder.device_memory_used(),
            embedding_dimension=self._embedding_dimension,
        )
