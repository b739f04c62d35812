"""The servers that are measured: how each is started, and the requests for each."""

import base64
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from adapters.models.precision import Precision
from adapters.system.hardware import multiplies_bfloat16
from benchmarks.checkpoint import SIGLIP, VIT_B, VIT_L
from benchmarks.load import FRESH
from benchmarks.machine import reason_against

_OURS: Final = (sys.executable, "-m", "entrypoints.cli", "serve")

_THINGS: Final = (
    "person", "delivery truck", "dog", "cat", "package",
    "bicycle", "red car", "fire", "fox", "bird",
)  # fmt: skip
KNOWN_LABELS: Final = [f"a {thing}" for thing in _THINGS]
FRESH_LABELS: Final = [f"a {thing} {FRESH.decode()}" for thing in _THINGS]

REFERENCE: Final = "FastAPI + transformers"
"""The server that ratios are against, with the same model."""

DEFAULT: Final = "default"
"""In the name of this project's server as it is without settings."""

_LONGEST_REASON: Final = 200
_ERROR: Final = re.compile(r"(?:^|\s)(\w*(?:Error|Exception|ERROR): \S.*)")


class Format(StrEnum):
    """How a picture is sent: by this project's contract, as infinity wants it, or as vLLM does."""

    CONTRACT = "contract"
    INPUT = "input"
    MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server.

    Attributes:
        name: what is asked for; what this project's server is called in the report, it tells.
        command: starts it; it must listen on 127.0.0.1 at the port in ``PORT``.
        environment: variables that it is started with.
        model: by its name.
        computes: runtime and precision, of one whose ``/health`` does not tell.
        instructions: what it multiplies with, where it does not take the best that there is.
        missing: why it cannot be started here; None if it can.
        ready: the path that returns 200 once the server is ready.
        health: the path that is probed while the server is under load.
        embed: the path that returns embeddings.
        classify: the path that takes an image and labels; None if it has none.
        format: how it is sent a picture.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    model: str = VIT_L
    computes: tuple[str, Precision] | None = None
    instructions: str | None = None
    missing: str | None = None
    ready: str = "/health"
    health: str = "/health"
    embed: str = "/embed"
    classify: str | None = "/classify"
    format: Format = Format.CONTRACT

    @property
    def key(self) -> str:
        """What it is asked for by, with its model."""
        return f"{self.name}, {self.model}"

    @property
    def is_ours(self) -> bool:
        """Whether it is this project's."""
        return self.command == _OURS

    def embed_body(self, photo: bytes) -> bytes:
        """The request for one photo's embedding."""
        encoded = base64.b64encode(photo).decode()
        uri = f"data:image/jpeg;base64,{encoded}"
        body: dict[str, Any]
        match self.format:
            case Format.CONTRACT:
                body = {"image": encoded}
            case Format.INPUT:
                body = {"model": "clip", "modality": "image", "input": [uri]}
            case Format.MESSAGES:
                content = [{"type": "image_url", "image_url": {"url": uri}}]
                body = {"model": "clip", "messages": [{"role": "user", "content": content}]}
        return json.dumps(body).encode()

    def embedding(self, response: Any) -> list[float]:
        """What it answered, as an embedding; raises what wrong JSON raises."""
        if self.format is Format.CONTRACT:
            return [float(number) for number in response["embedding"]]
        return [float(number) for number in response["data"][0]["embedding"]]

    def classify_body(self, photo: bytes, labels: Sequence[str]) -> bytes:
        """The request for one photo's classification."""
        encoded = base64.b64encode(photo).decode()
        return json.dumps({"image": encoded, "labels": list(labels)}).encode()


def ours(name: str, cache: Path, **environment: str) -> Contestant:
    """This project's server with ViT-L/14, and the given variables."""
    return Contestant(
        name,
        _OURS,
        {"HOST": "127.0.0.1", "CLIP_CACHE_DIR": str(cache), **environment},
        ready="/health/ready",
    )


def contestants(
    at: Callable[[str], Path], cache: Path, peers: Path, only: Sequence[str] = ()
) -> list[Contestant]:
    """Every server there is to compare.

    Args:
        at: the directory of a model by its name; asked for those only that are to be measured.
        cache: where this project's server keeps compiled models.
        peers: in which each peer has an environment of its own.
        only: words, one of which must be in `Contestant.key`; all of them if there is none.
    """
    everyone = [
        _ours(f"ours, {DEFAULT}", VIT_L, cache),
        _ours("ours, int8", VIT_L, cache, precision=Precision.INT8),
        _ours("ours, fp32", VIT_L, cache, precision=Precision.FP32),
        _ours("ours, torch", VIT_L, cache, encoder="torch"),
        _fastapi(VIT_L),
        _infinity(VIT_L, peers),
        _vllm(VIT_L, peers),
        _ours(f"ours, {DEFAULT}", SIGLIP, cache),
        _fastapi(SIGLIP),
        _infinity(SIGLIP, peers),
        _vllm(SIGLIP, peers),
        _ours(f"ours, {DEFAULT}", VIT_B, cache),
        _fastapi(VIT_B),
        _faster_clip(peers),
    ]
    chosen = [one for one in everyone if not only or any(words in one.key for words in only)]
    return [
        one
        if one.missing
        else replace(
            one, environment={**one.environment, "CLIP_MODEL_PATH": str(at(one.model).absolute())}
        )
        for one in chosen
    ]


def _ours(
    name: str,
    model: str,
    cache: Path,
    *,
    encoder: str = "openvino",
    precision: Precision | None = None,
) -> Contestant:
    asked = {} if precision is None else {"CLIP_PRECISION": str(precision)}
    one = ours(name, cache.absolute(), CLIP_ENCODER=encoder, **asked)
    return replace(one, model=model, missing=reason_against(precision))


def _fastapi(model: str) -> Contestant:
    command = (sys.executable, "-m", "benchmarks.peers.fastapi_transformers")
    return Contestant(REFERENCE, command, model=model)


def _infinity(model: str, peers: Path) -> Contestant:
    executable = peers / "infinity" / "bin" / "infinity_emb"
    missing = _not_installed(peers / "infinity")
    if model == SIGLIP:
        missing = "it reads SigLIP's texts with a file of sentencepiece that the checkpoint lacks"
    return Contestant(
        "infinity-emb",
        (sys.executable, "-m", "benchmarks.peers.infinity", str(executable.absolute())),
        model=model,
        computes=("torch", Precision.FP32),
        missing=missing,
        embed="/embeddings",
        classify=None,
        format=Format.INPUT,
    )


def _vllm(model: str, peers: Path) -> Contestant:
    """In bf16 where this processor multiplies in it, as this project's server is by itself."""
    executable = peers / "vllm" / "bin" / "vllm"
    low = multiplies_bfloat16()
    return Contestant(
        "vllm",
        (
            *(sys.executable, "-m", "benchmarks.peers.vllm", str(executable.absolute())),
            *("--dtype", "bfloat16" if low else "float32"),
            # Else it wants nine tenths of the memory to be free, which others share here.
            *("--gpu-memory-utilization", "0.1"),
        ),
        model=model,
        computes=("torch", Precision.BF16 if low else Precision.FP32),
        missing=_not_installed(peers / "vllm"),
        embed="/v1/embeddings",
        classify=None,
        format=Format.MESSAGES,
    )


def _faster_clip(peers: Path) -> Contestant:
    """It keeps weights in int8, and its kernels are written for AVX2, whatever else there is."""
    python = peers / "faster-clip" / "bin" / "python"
    return Contestant(
        "faster-clip",
        (str(python.absolute()), "-m", "benchmarks.peers.faster_clip"),
        model=VIT_B,
        computes=("Rust", Precision.FP32),
        instructions="AVX2, weights in int8",
        missing=_not_installed(peers / "faster-clip"),
        classify=None,
    )


def _not_installed(peer: Path) -> str | None:
    """Why a peer cannot be started, by what its installation printed; None if it can."""
    if (peer / ".installed").is_file():
        return None
    log = peer / "install.log"
    return f"not installed: {reason_in(log.read_text())}" if log.is_file() else "not installed"


def reason_in(log: str) -> str:
    """What a program that failed said of it first, in a line and without this machine's paths.

    The first error, since those that follow say that something else did not work because of it.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = (found[1] for line in lines if (found := _ERROR.search(line)))
    told = next(errors, lines[-1] if lines else "it said nothing")
    return re.sub(r"(?:/[\w.+@-]+)+/", "", told)[:_LONGEST_REASON]
