"""Use cases: whether the service can respond, and how much it has to do."""

from dataclasses import dataclass

from application.inference.admission import Admission
from application.inference.batcher import EncodingQueue
from application.inference.text_cache import TextEmbeddings
from application.model.encoder_upgrade import EncoderUpgrade
from application.model.model_lifecycle import ModelLifecycle, ModelState
from application.ports import Device, EncoderDescription


@dataclass(frozen=True, slots=True)
class Health:
    """The service at this moment.

    Attributes:
        alive: whether starting the process again would not help more than waiting.
        ready: whether a request sent now would be taken.
        healthy: whether there is a model to answer with, loaded or to be loaded again.
        reason: why it is not ready or not healthy, else None.
        backend_reason: why a slower backend answers than the one that was asked for, else None.
        state: where the model is on its way to answering.
        encoder: what is loaded, or was and will be again; else None.
        device: the hardware; None until it was looked at.
        device_memory_used: bytes; None where there is no CUDA or no model.
        embedding_dimension: floats per embedding that the service promises.
    """

    alive: bool
    ready: bool
    healthy: bool
    reason: str | None
    backend_reason: str | None
    state: ModelState
    encoder: EncoderDescription | None
    device: Device | None
    device_memory_used: int | None
    embedding_dimension: int


class ReportHealth:
    """Answers ``GET /health`` and its two probes. Never blocks on the encoder."""

    def __init__(
        self,
        *,
        model: ModelLifecycle,
        upgrade: EncoderUpgrade,
        admission: Admission,
        embedding_dimension: int,
    ) -> None:
        self._model = model
        self._upgrade = upgrade
        self._admission = admission
        self._embedding_dimension = embedding_dimension

    def __call__(self) -> Health:
        """The service at this moment."""
        encoder, state = self._model.loaded, self._model.state
        draining, failure = self._admission.draining, self._model.failure
        reason = failure
        if draining:
            reason = "the server is shutting down."
        elif state is ModelState.STARTING:
            reason = "the model is still being loaded."
        unsure = state in (ModelState.DOUBTED, ModelState.HANGING)
        return Health(
            alive=state is not ModelState.HANGING,
            # What was unloaded while idle is loaded again for whoever asks.
            ready=not draining and state in (ModelState.READY, ModelState.UNLOADED),
            healthy=state is ModelState.READY or (state is ModelState.UNLOADED and not failure),
            reason=reason,
            backend_reason=None if encoder is None else self._upgrade.reason,
            state=state,
            encoder=self._model.description,
            device=self._model.device,
            # One that is doubted is not asked anything.
            device_memory_used=(
                None if encoder is None or unsure else encoder.device_memory_used()
            ),
            embedding_dimension=self._embedding_dimension,
        )


@dataclass(frozen=True, slots=True)
class Load:
    """The service's work at this moment.

    Attributes:
        requests: waiting or running.
        max_requests: how many of them are taken at once.
        queue_depth: images, and requests' texts, that wait for the encoder.
        cached_texts: text embeddings that are kept.
    """

    requests: int
    max_requests: int
    queue_depth: int
    cached_texts: int


class ReportLoad:
    """Part of what ``GET /metrics`` answers."""

    def __init__(
        self, *, admission: Admission, queue: EncodingQueue, texts: TextEmbeddings
    ) -> None:
        self._admission = admission
        self._queue = queue
        self._texts = texts

    def __call__(self) -> Load:
        """The service's work at this moment."""
        return Load(
            requests=self._admission.inside,
            max_requests=self._admission.capacity,
            queue_depth=self._queue.depth,
            cached_texts=self._texts.kept,
        )
