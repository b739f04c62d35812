"""Ten thousand mixed requests, some of them abandoned: every answer belongs to its question."""

import asyncio
import contextlib
import functools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from adapters.encoders.fake_encoder import FakeEncoder
from adapters.images.pillow_preparation import PillowImagePreparation
from domain.classification import classify
from domain.embedding import Embedding
from tests.e2e.servers import SLOW, Server, running, wait_for
from tests.photos import as_base64, as_file, plain

REQUESTS = 10_000
CONCURRENCY = 40
ABANDONED = 0.1
"""Share of the requests whose client hangs up after up to 20 ms."""

SEED = 20261124
LABELS = [f"thing {number}" for number in range(60)]


@dataclass(frozen=True)
class Question:
    """A request, and whether an answer is the right one."""

    path: str
    body: bytes
    fits: Callable[[Any], bool]


class Questions:
    """Requests of every kind about a few hundred images, with the answers worked out beforehand."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        encoder = FakeEncoder(embedding_dimension=768)
        self._logit_scale = encoder.description.logit_scale
        byte = functools.partial(rng.randrange, 256)
        pictures = [plain(byte(), byte(), byte(), size=(32, 24)) for _ in range(300)]
        prepare = PillowImagePreparation().prepare
        pixels = np.stack([prepare(as_file(picture, "PNG")) for picture in pictures])
        self._images = [as_base64(picture, "PNG") for picture in pictures]
        self._embeddings = [Embedding.from_encoder(r) for r in encoder.encode_images(pixels)]
        rows = encoder.encode_texts(LABELS)
        self._labels = dict(zip(LABELS, map(Embedding.from_encoder, rows), strict=True))

    def draw(self) -> Question:
        """One at random."""
        place = self._rng.randrange(len(self._images))
        kind = self._rng.choice([self._embed, self._anomaly, self._classify, self._similarities])
        return kind(self._images[place], self._embeddings[place])

    def _embed(self, image: str, embedding: Embedding) -> Question:
        return _question("/embed", {"image": image}, "embedding", embedding.vector.tolist())

    def _anomaly(self, image: str, embedding: Embedding) -> Question:
        other = self._rng.choice(self._embeddings)
        body = {"image": image, "baseline_embedding": other.vector.tolist()}
        return _question("/anomaly-score", body, "similarity_to_baseline", embedding.cosine(other))

    def _classify(self, image: str, embedding: Embedding) -> Question:
        chosen = {label: self._labels[label] for label in self._rng.sample(LABELS, 5)}
        expected = classify(embedding, chosen, logit_scale=self._logit_scale).scores
        return _question(
            "/classify", {"image": image, "labels": list(chosen)}, "scores", list(expected.values())
        )

    def _similarities(self, image: str, embedding: Embedding) -> Question:
        chosen = self._rng.sample(LABELS, 3)
        expected = [embedding.cosine(self._labels[text]) for text in chosen]
        return _question(
            "/batch-similarity", {"image": image, "texts": chosen}, "similarities", expected
        )


def _question(path: str, body: dict[str, Any], field: str, expected: Any) -> Question:
    def fits(answer: Any) -> bool:
        given = answer[field]
        numbers = list(given.values()) if isinstance(given, dict) else given
        return bool(np.allclose(numbers, expected, atol=1e-5))

    return Question(path, json.dumps(body).encode(), fits)


async def ask(client: httpx.AsyncClient, question: Question) -> bool:
    """Whether the answer was the right one; a refusal is tried again, as its header says."""
    while True:
        answer = await client.post(
            question.path, content=question.body, headers={"Content-Type": "application/json"}
        )
        if answer.status_code != 503:
            break
        await asyncio.sleep(float(answer.headers["Retry-After"]) / 10)
    return answer.status_code == 200 and question.fits(answer.json())


async def abandon(client: httpx.AsyncClient, question: Question, after_s: float) -> None:
    """Ask, and hang up."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ask(client, question), after_s)


async def ask_all(server: Server) -> tuple[int, int]:
    """Right answers, and requests that were abandoned."""
    rng = random.Random(SEED)
    questions = Questions(rng)
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one() -> bool | None:
        async with gate:
            question = questions.draw()
            if rng.random() < ABANDONED:
                await abandon(client, question, rng.random() * 0.02)
                return None
            return await ask(client, question)

    limits = httpx.Limits(max_connections=CONCURRENCY)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=120) as client:
        outcomes = await asyncio.gather(*(one() for _ in range(REQUESTS)))
    return outcomes.count(True), outcomes.count(None)


async def test_nothing_is_lost_and_nothing_mixed_up(tmp_path: Path) -> None:
    settings = {"SLOW_SECONDS": "0.002", "CLIP_MAX_BATCH_SIZE": "8"}
    with running(SLOW, tmp_path / "log", **settings) as server:
        wait_for(server, "/health/ready")
        right, abandoned = await ask_all(server)
        assert abandoned > REQUESTS * ABANDONED / 2
        assert right == REQUESTS - abandoned
        assert "Traceback" not in server.log
        assert server.stop() == 0
