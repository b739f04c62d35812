"""Frames embedded by a running server instead of in this process."""

import asyncio
from collections.abc import Sequence
from typing import Final

from adapters.remote.clip_server import ClipServer
from application.ports import ServerFailure
from application.watch_ports import EmbeddedFrame, EmbedderUnavailable, FrameEmbedderPort
from domain.embedding import Embedding
from domain.errors import InvalidImage

_OF_THE_PICTURE: Final = (400, 413, 415, 422)
_LATER: Final = (408, 429, 500, 502, 503, 504)


class ServerEmbedder(FrameEmbedderPort):
    """``POST /embed``, and ``POST /classify`` where there are labels."""

    def __init__(self, server: ClipServer) -> None:
        """Name the server."""
        self._server = server

    async def embed(self, picture: bytes, labels: Sequence[str]) -> EmbeddedFrame:
        """See `FrameEmbedderPort.embed`.

        Raises:
            ServerFailure: the server refuses this client, whatever the picture.
        """
        try:
            return await asyncio.to_thread(self._ask, picture, labels)
        except ServerFailure as failure:
            if failure.status in _OF_THE_PICTURE:
                raise InvalidImage(str(failure)) from failure
            if failure.status is None or failure.status in _LATER:
                raise EmbedderUnavailable(str(failure)) from failure
            raise

    def _ask(self, picture: bytes, labels: Sequence[str]) -> EmbeddedFrame:
        numbers, fingerprint = self._server.embedding(picture)
        scores = None
        if labels:
            scores = self._server.numbers_of_texts(
                "/classify", "scores", image=picture, labels=list(labels)
            )
        embedding = Embedding.from_numbers(numbers, dimension=len(numbers), name="embedding")
        return EmbeddedFrame(embedding, fingerprint or "", scores)
