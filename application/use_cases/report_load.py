"""Use case: how much the service has to do."""

from dataclasses import dataclass

from application.inference.admission import Admission
from application.inference.batcher import EncodingQueue
from application.inference.text_cache import TextEmbeddings


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
