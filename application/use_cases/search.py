"""Use case: find the rows in a file of embeddings that are most like a text, a photo or both."""

import asyncio
import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from application.bulk_ports import BulkFailure, EmbeddingsIndexPort
from application.inference.inference import Inference
from domain.embedding import Embedding, Vector
from domain.errors import InvalidInputs
from domain.limits import MAX_KNOWN_SIGHTINGS, MAX_SEARCH_RESULTS


@dataclass(frozen=True, slots=True)
class Match:
    """A row of the index.

    Attributes:
        path: of the image, as it was when it was embedded.
        similarity: cosine with the query in [-1, 1]; with a text and a photo, the mean of both.
    """

    path: str
    similarity: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search.

    Attributes:
        matches: the most similar first; equal ones in the order of the index.
        searched: rows that have an embedding.
        without_embedding: rows that have an error instead.
    """

    matches: list[Match]
    searched: int
    without_embedding: int


class SearchIndex:
    """Compares a query with every row: exact, a block of rows at a time.

    A product of 1,000,000 rows of 768 floats takes about as long as reading them from memory. An
    approximate index would take minutes to build for a search that takes seconds.
    """

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(
        self,
        index: EmbeddingsIndexPort,
        *,
        text: str | None = None,
        photo: bytes | None = None,
        top: int = 10,
    ) -> SearchResult:
        """Find the ``top`` rows that are most like the query.

        Args:
            index: the file to search.
            text: words that describe the image.
            photo: an image file that the results should resemble.
            top: 1 to `MAX_SEARCH_RESULTS` results.

        Raises:
            InvalidInputs: neither text nor photo, or too many results requested.
            BulkFailure: the index was made with another model, or cannot be read. Else as
                `Inference` says.
        """
        if text is None and photo is None:
            raise InvalidInputs("a search needs a text, a photo, or both.", code="empty_query")
        if not 1 <= top <= MAX_SEARCH_RESULTS:
            raise InvalidInputs(
                f"{top} results were requested; 1 to {MAX_SEARCH_RESULTS} are possible.",
                code="wrong_number_of_results",
            )
        images = {} if photo is None else {"photo": photo}
        embedded, texts = await self._inference.embed_all(images, [] if text is None else [text])
        _check_model(index.name, index.fingerprint, self._inference.encoder.fingerprint)
        query = _mean([*embedded, *texts])
        return await asyncio.to_thread(most_similar, index, query, top)


class KnownSightings:
    """The rows of an index, kept in memory to find the nearest row for many queries."""

    def __init__(self, index: EmbeddingsIndexPort) -> None:
        """Read the index. Blocks.

        Raises:
            BulkFailure: it cannot be read, or has no embeddings or more than `MAX_KNOWN_SIGHTINGS`.
        """
        self._name, self._fingerprint = index.name, index.fingerprint
        self._paths: list[str] = []
        vectors = []
        for block in index.blocks():
            known = ~np.isnan(block.vectors[:, 0])
            self._paths += [
                str(path) for path, kept in zip(block.paths, known, strict=True) if kept
            ]
            vectors.append(block.vectors[known])
            if len(self._paths) > MAX_KNOWN_SIGHTINGS:
                raise BulkFailure(
                    f"{index.name} has more than {MAX_KNOWN_SIGHTINGS} embeddings; so many are not "
                    "kept in memory. Use a smaller file, or search this one afterwards."
                )
        if not self._paths:
            raise BulkFailure(f"{index.name} has no embeddings.")
        self._vectors = np.concatenate(vectors)

    def nearest(self, embedding: Embedding, fingerprint: str) -> tuple[str, float]:
        """Path and cosine of the row that is nearest to an embedding.

        Raises:
            BulkFailure: the embedding is from another model (its fingerprint differs).
        """
        _check_model(self._name, self._fingerprint, fingerprint)
        cosines = self._vectors @ embedding.vector
        place = int(cosines.argmax())
        return self._paths[place], min(max(float(cosines[place]), -1.0), 1.0)


def _check_model(name: str, of_index: str, of_query: str) -> None:
    if of_index != of_query:
        raise BulkFailure(
            f"{name} was made by a model with fingerprint {of_index}; the loaded model has "
            f"{of_query}. Embeddings of two models cannot be compared: load the other model, or "
            "embed the images again."
        )


def _mean(queries: list[Embedding]) -> Vector:
    """The vector whose product with a row is the mean of the queries' cosines with it."""
    vector: Vector = np.mean([query.vector for query in queries], axis=0, dtype=np.float32)
    return vector


def most_similar(index: EmbeddingsIndexPort, query: Vector, top: int) -> SearchResult:
    """The rows with the largest products with a query, exact, a block at a time. Blocks."""
    best: list[tuple[float, int, str]] = []  # a heap; its first entry is the weakest one kept
    rows = searched = 0
    for block in index.blocks():
        cosines = block.vectors @ query
        known = ~np.isnan(cosines)
        searched += int(np.count_nonzero(known))
        cosines[~known] = -np.inf
        for place in _candidates(cosines, top, best[0][0] if len(best) == top else -np.inf):
            # If cosines are equal, the earlier row wins: its negative number is larger.
            entry = (float(cosines[place]), -(rows + place), str(block.paths[place]))
            if len(best) < top:
                heapq.heappush(best, entry)
            else:
                heapq.heappushpop(best, entry)
        rows += len(cosines)
    matches = [
        Match(path, min(max(cosine, -1.0), 1.0)) for cosine, _, path in sorted(best, reverse=True)
    ]
    return SearchResult(matches, searched, rows - searched)


def _candidates(cosines: Vector, top: int, floor: float) -> Iterator[int]:
    """Places in a block that may be among the overall ``top``; about ``top`` of them at most."""
    places = np.flatnonzero(cosines > floor)
    if len(places) > top:
        # Rows equal to the weakest one kept are checked too, so that the order decides.
        weakest = np.partition(cosines[places], len(places) - top)[len(places) - top]
        places = places[cosines[places] >= weakest]
    return (int(place) for place in places if cosines[place] != -np.inf)
