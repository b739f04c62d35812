"""A server whose embeddings are compared with a checkpoint's."""

from collections.abc import Mapping, Sequence

from adapters.remote.clip_server import ClipServer
from application.use_cases.verify import EmbeddingServerPort


class HttpEmbeddingServer(EmbeddingServerPort):
    """``POST /embed`` and ``POST /batch-similarity`` as JSON."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        """Name a server. As `ClipServer` says."""
        self._server = ClipServer(url, key=key)

    def embed(self, image: bytes) -> Sequence[float]:
        """See `EmbeddingServerPort.embed`."""
        return self._server.embedding(image)[0]

    def cosines(self, image: bytes, texts: Sequence[str]) -> Mapping[str, float]:
        """See `EmbeddingServerPort.cosines`."""
        return self._server.numbers_of_texts(
            "/batch-similarity", "similarities", image=image, texts=list(texts)
        )
