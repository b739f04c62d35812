"""Other servers on the same card, where they are installed: infinity and vLLM."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.contestants import Contestant, Format
from checks.gpu.report import Report
from tests.support.servers import launched, wait_for

_START_WITHIN_S: Final = 600
_PLACES: Final = (Path(sys.executable).parent, Path(".bench/infinity/bin"))
"""Where commands are looked for after ``PATH``: the second is what ``make bench`` installs."""


@dataclass(frozen=True)
class Peer:
    """Another server.

    Attributes:
        name: of its command.
        contestant: how it is started; None where it is not installed.
    """

    name: str
    contestant: Contestant | None


def installed(command: str) -> Path | None:
    """Where a command is; None where it is not installed."""
    place = shutil.which(command) or next(
        (found for each in _PLACES if (found := shutil.which(command, path=str(each)))), None
    )
    return None if place is None else Path(place).absolute()


def infinity(source: Path) -> Peer:
    """As ``make bench`` starts it, on the card."""
    if (command := installed("infinity_emb")) is None:
        return Peer("infinity_emb", None)
    contestant = Contestant(
        "infinity_emb",
        (sys.executable, "-m", "benchmarks.peers.infinity", str(command)),
        {"CLIP_MODEL_PATH": str(source), "INFINITY_DEVICE": "cuda"},
        embed="/embeddings",
        format=Format.INPUT,
    )
    return Peer(contestant.name, contestant)


def vllm(source: Path) -> Peer:
    """By its manual: ``vllm serve`` as a pooling model."""
    if (command := installed("vllm")) is None:
        return Peer("vllm", None)
    contestant = Contestant(
        "vllm",
        (sys.executable, "-m", "benchmarks.peers.vllm", str(command), "--dtype", "float16"),
        {"CLIP_MODEL_PATH": str(source)},
        embed="/v1/embeddings",
        format=Format.MESSAGES,
    )
    return Peer(contestant.name, contestant)


def measure_peers(
    report: Report,
    peers: Sequence[Peer],
    picture: bytes,
    *,
    rate: Callable[[str, bytes, int], float],
    clients: Sequence[int],
    logs: Path,
) -> None:
    """How many requests each takes; one that is not there or does not start is named.

    Args:
        report: where it goes. What becomes of others is no promise of this server's.
        peers: the others.
        picture: a JPEG file.
        rate: responses a second of an address to a body, from so many clients.
        clients: how many at once.
        logs: a directory for what they print.
    """
    for peer in peers:
        if peer.contestant is None:
            report.say(f"{peer.name}: not installed")
            continue
        log = logs / f"{peer.name}.log"
        command, variables = list(peer.contestant.command), peer.contestant.environment
        try:
            with launched(command, log, **variables) as server:
                wait_for(server, peer.contestant.ready, _START_WITHIN_S)
                for number in clients:
                    body = peer.contestant.embed_body(picture)
                    found = rate(server.url + peer.contestant.embed, body, number)
                    report.say(f"{peer.name}, {number} clients: {found:.1f} requests a second")
        except (AssertionError, OSError) as failure:
            last = " ".join(str(failure).split())[-200:]
            report.say(f"{peer.name}: installed, and could not be measured: {last}")
