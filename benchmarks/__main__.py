"""``python -m benchmarks``: measure every server side by side and write the report."""

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from benchmarks.checkpoint import checkpoint_at, frame_file, photo_files, siglip_at
from benchmarks.contestants import FRESH_LABELS, KNOWN_LABELS, Contestant, contestants, ours
from benchmarks.machine import machine_name
from benchmarks.report import write_report
from benchmarks.results import Results
from benchmarks.running import RunningContestant, started

logger = logging.getLogger("benchmarks")

_BARE = (
    ("OpenVINO bf16", "openvino", "bf16", 1),
    ("OpenVINO bf16, 2 streams", "openvino", "bf16", 2),
    ("OpenVINO int8", "openvino", "int8", 1),
    ("OpenVINO int8, 2 streams", "openvino", "int8", 2),
    ("OpenVINO fp32", "openvino", "fp32", 1),
    ("torch bf16", "torch", "bf16", 1),
    ("torch fp32", "torch", "fp32", 1),
)
"""Name, encoder, precision and streams of what is measured without a server."""


CONCURRENCIES: Final = (1, 8, 32)
"""Requests under way at once."""


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of load.

    Attributes:
        name: as the report has it.
        path: that is asked.
        bodies: that are sent in turn.
        concurrency: requests at once.
    """

    name: str
    path: str
    bodies: list[bytes]
    concurrency: int


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path(".bench"), show_default=True,
              help="Where checkpoint, caches and logs lie.")  # fmt: skip
@click.option("--infinity", type=click.Path(path_type=Path, exists=True), required=True,
              help="The command infinity_emb in a virtual environment of its own.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/results"),
              show_default=True, help="Where the report goes.")  # fmt: skip
@click.option("--seconds", type=float, default=8.0, show_default=True,
              help="Of each load in each round.")  # fmt: skip
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--only", multiple=True, metavar="WORDS",
              help="Only servers whose name holds these words; may be repeated.")  # fmt: skip
def main(
    *, work: Path, infinity: Path, output: Path, seconds: float, rounds: int, only: tuple[str, ...]
) -> None:
    """Measure throughput and latency of every server, of the encoders alone and of the machine."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    checkpoint = checkpoint_at(work / "vit-l-14").absolute()
    siglip = siglip_at(work / "siglip2-base").absolute()
    cache = (work / "cache").absolute()
    results = Results(machine_name(), peaks={})
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=work)))
        running = []
        for one in contestants(checkpoint, siglip, cache, infinity.absolute()):
            if only and not any(words in one.name for words in only):
                continue
            logger.info("starting %s", one.name)
            running.append(stack.enter_context(started(one, logs)))
        for number in range(rounds):
            _one_round(running, results, seconds, first=number)
    with tempfile.TemporaryDirectory(dir=work) as directory:
        fake = ours("ours, fake encoder", cache, CLIP_ENCODER="fake")
        with started(fake, Path(directory)) as server:
            for _ in range(rounds):
                for load in _own_cost_loads(fake):
                    _measure(server, load, results, seconds)
    for _ in range(rounds):
        results.add_peaks(_program("benchmarks.machine"))
        for name, *encoder in _BARE:
            arguments = (*map(str, encoder), str(checkpoint), str(cache), str(seconds))
            results.add_bare(name, _program("benchmarks.bare", *arguments))
    click.echo(write_report(results, output).read_text(encoding="utf-8"))


def _one_round(
    running: Sequence[RunningContestant], results: Results, seconds: float, *, first: int
) -> None:
    """Every load on every server; another one begins in each round."""
    first %= len(running)
    turned = [*running[first:], *running[:first]]
    loads = [_loads(server.contestant) for server in turned]
    for name in max(loads, key=len):
        for server, known in zip(turned, loads, strict=True):
            if name in known:
                _measure(server, known[name], results, seconds)


def _loads(contestant: Contestant) -> dict[str, Load]:
    """The loads for a server, by name."""
    photos = photo_files()
    embed = [contestant.embed_body(photo) for photo in photos]
    loads = [Load(f"embed, {n} at once", contestant.embed, embed, n) for n in CONCURRENCIES]
    if contestant.classify is not None:
        for kind, labels in (("known", KNOWN_LABELS), ("new", FRESH_LABELS)):
            bodies = [contestant.classify_body(photo, labels) for photo in photos]
            name = f"classify, 10 {kind} labels, 8 at once"
            loads.append(Load(name, contestant.classify, bodies, 8))
    return {load.name: load for load in loads}


def _own_cost_loads(fake: Contestant) -> list[Load]:
    """What shows the server's own cost: a camera's frame, and an encoder that takes no time."""
    body = [fake.embed_body(frame_file())]
    return [
        Load(f"embed, 640 x 480, {n} at once, fake encoder", fake.embed, body, n)
        for n in CONCURRENCIES
    ]


def _measure(server: RunningContestant, load: Load, results: Results, seconds: float) -> None:
    measured = server.measure(load.path, load.bodies, concurrency=load.concurrency, seconds=seconds)
    rate = len(measured.result.latencies_s) / measured.result.elapsed_s
    logger.info("%s: %s: %.2f a second", load.name, server.contestant.name, rate)
    results.add(server.contestant.name, load.name, measured)


def _program(module: str, *arguments: str) -> dict[str, float]:
    """What a module prints when it is run in a process of its own."""
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, check=True
    )
    # The last line: quantising prints its progress before it.
    figures: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    logger.info("%s %s: %s", module, " ".join(arguments[:3]), figures)
    return figures


if __name__ == "__main__":
    main()
