"""The servers that are measured: how each is started, and the requests for each."""

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from benchmarks.load import FRESH

_OURS: Final = (sys.executable, "-m", "entrypoints.cli", "serve")

_THINGS: Final = (
    "person", "delivery truck", "dog", "cat", "package",
    "bicycle", "red car", "fire", "fox", "bird",
)  # fmt: skip
KNOWN_LABELS: Final = [f"a {thing}" for thing in _THINGS]
FRESH_LABELS: Final = [f"a {thing} {FRESH.decode()}" for thing in _THINGS]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server.

    Attributes:
        name: for the report.
        command: starts it; it must listen on 127.0.0.1 at the port in ``PORT``.
        environment: variables that it is started with.
        ready: the path that returns 200 once the server is ready.
        health: the path that is probed while the server is under load.
        embed: the path that returns embeddings.
        classify: the path that takes an image and labels; None if it has none.
        openai: whether images are sent as data URIs in OpenAI's format instead of the contract's.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: str = "/health"
    health: str = "/health"
    embed: str = "/embed"
    classify: str | None = "/classify"
    openai: bool = False

    def embed_body(self, photo: bytes) -> bytes:
        """The request for one photo's embedding."""
        encoded = base64.b64encode(photo).decode()
        if self.openai:
            uri = f"data:image/jpeg;base64,{encoded}"
            return json.dumps({"model": "bench", "modality": "image", "input": [uri]}).encode()
        return json.dumps({"image": encoded}).encode()

    def classify_body(self, photo: bytes, labels: Sequence[str]) -> bytes:
        """The request for one photo's classification."""
        encoded = base64.b64encode(photo).decode()
        return json.dumps({"image": encoded, "labels": list(labels)}).encode()


def ours(name: str, cache: Path, **environment: str) -> Contestant:
    """This project's server, with the given variables."""
    return Contestant(
        name,
        _OURS,
        {"HOST": "127.0.0.1", "CLIP_CACHE_DIR": str(cache), **environment},
        ready="/health/ready",
    )


SIGLIP: Final = ", SigLIP 2 base"
"""What the names of servers end with that serve this instead of ViT-L/14."""


def contestants(checkpoint: Path, siglip: Path, cache: Path, infinity: Path) -> list[Contestant]:
    """Every server there is to compare.

    Args:
        checkpoint: a ViT-L/14, what most of them load.
        siglip: a SigLIP 2 base, what the others load.
        cache: where this project's server keeps compiled models.
        infinity: the command ``infinity_emb`` in a virtual environment of its own.
    """
    model = {"CLIP_MODEL_PATH": str(checkpoint)}
    openvino = {**model, "CLIP_ENCODER": "openvino"}
    peers = (
        Contestant(
            "FastAPI + transformers", (sys.executable, "-m", "benchmarks.fastapi_transformers")
        ),
        Contestant(
            "infinity-emb",
            (sys.executable, "-m", "benchmarks.infinity", str(infinity)),
            embed="/embeddings",
            classify=None,
            openai=True,
        ),
    )
    other = {"CLIP_MODEL_PATH": str(siglip)}
    return [
        ours("ours, OpenVINO bf16 (default)", cache, **openvino),
        ours("ours, OpenVINO bf16, 2 streams", cache, CLIP_OPENVINO_STREAMS="2", **openvino),
        ours("ours, OpenVINO int8", cache, CLIP_PRECISION="int8", **openvino),
        ours("ours, OpenVINO fp32", cache, CLIP_PRECISION="fp32", **openvino),
        ours("ours, torch bf16", cache, CLIP_ENCODER="torch", **model),
        *(replace(peer, environment=model) for peer in peers),
        ours(f"ours, OpenVINO{SIGLIP}", cache, CLIP_ENCODER="openvino", **other),
        ours(
            f"ours, OpenVINO fp32{SIGLIP}",
            cache,
            CLIP_ENCODER="openvino",
            CLIP_PRECISION="fp32",
            **other,
        ),
        # infinity reads SigLIP's texts with sentencepiece, which this checkpoint has no file for.
        replace(peers[0], name=peers[0].name + SIGLIP, environment=other),
    ]
