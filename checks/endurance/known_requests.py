"""Requests of every kind, each with its right response computed beforehand."""

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.images.pillow_preparation import prepare_picture
from application.ports import EncoderPort
from domain.classification import classify
from domain.embedding import Embedding

LABELS = [f"thing {number}" for number in range(60)]


@dataclass(frozen=True)
class KnownRequest:
    """A request, and a check of whether a response is the right one."""

    path: str
    body: bytes
    fits: Callable[[Any], bool]
    content_type: str = "application/json"


class KnownRequests:
    """Draws requests about a few hundred images; an encoder here computes the right responses."""

    def __init__(self, rng: random.Random, encoder: EncoderPort, files: Sequence[bytes]) -> None:
        """Compute all right responses.

        Args:
            rng: draws the requests.
            encoder: one that computes what the server's computes.
            files: image files.
        """
        self._rng = rng
        self._logit_scale = encoder.description.logit_scale
        self._files = files
        self._embeddings = [
            Embedding.from_encoder(encoder.encode_images(prepare_picture(file)[np.newaxis])[0])
            for file in files
        ]
        rows = encoder.encode_texts(LABELS)
        self._labels = dict(zip(LABELS, map(Embedding.from_encoder, rows), strict=True))

    def draw(self) -> KnownRequest:
        """A random request, as cameras send them: mostly single images, sometimes many."""
        kinds = [self._embed, self._anomaly, self._classify, self._similarities]
        rare = [self._bare, self._batch, self._texts, self._compare, self._openai]
        return self._rng.choice(kinds * 4 + rare)()

    def _place(self) -> int:
        return self._rng.randrange(len(self._files))

    def _image(self, place: int) -> str:
        return base64.b64encode(self._files[place]).decode()

    def _embed(self) -> KnownRequest:
        place = self._place()
        return _known(
            "/embed",
            {"image": self._image(place)},
            lambda response: response["embedding"],
            self._embeddings[place].vector,
        )

    def _bare(self) -> KnownRequest:
        place = self._place()
        return KnownRequest(
            "/embed",
            self._files[place],
            _fits(lambda response: response["embedding"], self._embeddings[place].vector),
            "application/octet-stream",
        )

    def _anomaly(self) -> KnownRequest:
        place, other = self._place(), self._place()
        cosine = self._embeddings[place].cosine(self._embeddings[other])
        baseline = self._embeddings[other].vector.tolist()
        return _known(
            "/anomaly-score",
            {"image": self._image(place), "baseline_embedding": baseline},
            lambda response: [response["similarity_to_baseline"], response["anomaly_score"]],
            [cosine, min(max(1 - cosine, 0.0), 1.0)],
        )

    def _classify(self) -> KnownRequest:
        place = self._place()
        chosen = {label: self._labels[label] for label in self._rng.sample(LABELS, 5)}
        scores = classify(self._embeddings[place], chosen, logit_scale=self._logit_scale).scores
        return _known(
            "/classify",
            {"image": self._image(place), "labels": list(chosen)},
            lambda response: [response["scores"][label] for label in chosen],
            list(scores.values()),
        )

    def _similarities(self) -> KnownRequest:
        place = self._place()
        chosen = self._rng.sample(LABELS, 3)
        return _known(
            "/batch-similarity",
            {"image": self._image(place), "texts": chosen},
            lambda response: [response["similarities"][text] for text in chosen],
            [self._embeddings[place].cosine(self._labels[text]) for text in chosen],
        )

    def _batch(self) -> KnownRequest:
        places = [self._place() for _ in range(5)]
        return _known(
            "/embed/batch",
            {"images": [self._image(place) for place in places]},
            lambda response: [item["embedding"] for item in response["results"]],
            [self._embeddings[place].vector for place in places],
        )

    def _texts(self) -> KnownRequest:
        chosen = self._rng.sample(LABELS, 4)
        return _known(
            "/embed/text",
            {"texts": chosen},
            lambda response: response["embeddings"],
            [self._labels[text].vector for text in chosen],
        )

    def _compare(self) -> KnownRequest:
        place, other = self._place(), self._place()
        return _known(
            "/compare",
            {"image_a": self._image(place), "image_b": self._image(other)},
            lambda response: response["similarity"],
            self._embeddings[place].cosine(self._embeddings[other]),
        )

    def _openai(self) -> KnownRequest:
        place, text = self._place(), self._rng.choice(LABELS)
        inputs = [f"data:image/png;base64,{self._image(place)}", text]
        return _known(
            "/v1/embeddings",
            {"input": inputs, "model": "clip"},
            lambda response: [entry["embedding"] for entry in response["data"]],
            [self._embeddings[place].vector, self._labels[text].vector],
        )


def _known(
    path: str, body: dict[str, Any], found: Callable[[Any], Any], expected: Any
) -> KnownRequest:
    return KnownRequest(path, json.dumps(body).encode(), _fits(found, expected))


def _fits(found: Callable[[Any], Any], expected: Any) -> Callable[[Any], bool]:
    """A check of whether the numbers found in a response are the expected ones, in order."""
    wanted = np.asarray(expected)

    def fits(response: Any) -> bool:
        given = np.asarray(found(response))
        return given.shape == wanted.shape and bool(np.allclose(given, wanted, atol=1e-4))

    return fits
