"""An index of embeddings that needs no file."""

from collections.abc import Iterator, Sequence

import numpy as np

from application.bulk_ports import EmbeddingsIndexPort, IndexBlock


class MemoryIndex(EmbeddingsIndexPort):
    """An index of an array, in blocks of any size; its paths are numbers unless they are given."""

    name = "memory"

    def __init__(
        self,
        vectors: np.ndarray,
        *,
        fingerprint: str,
        block: int = 2,
        paths: Sequence[str] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.dimension = vectors.shape[1]
        self._vectors = vectors.astype(np.float32)
        self._block = block
        self._paths = paths or [str(place) for place in range(len(vectors))]

    def blocks(self) -> Iterator[IndexBlock]:
        for start in range(0, len(self._vectors), self._block):
            end = start + self._block
            yield IndexBlock(self._paths[start:end], self._vectors[start:end])
