"""``python -m benchmarks``: measure every server side by side and write the report."""

import json
import logging
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import click
import numpy as np

from adapters.system.hardware import processor, usable_cores
from benchmarks.bare import BARE
from benchmarks.checkpoint import VIT_L, model_at, photo_files
from benchmarks.contestants import (
    FRESH_LABELS,
    KNOWN_LABELS,
    REFERENCE,
    Contestant,
    contestants,
    reason_in,
)
from benchmarks.machine import computes_in, kind_of, machine_name, reason_against
from benchmarks.own_cost import CAMERA_SIZES, own_costs, process_counts
from benchmarks.report import write_reports
from benchmarks.results import BareEncoder, Results, Served
from benchmarks.running import NotMeasured, RunningContestant, started

logger = logging.getLogger("benchmarks")

CONCURRENCIES: Final = (1, 8, 32)
"""Requests under way at once."""

_KEPT: Final = Path("benchmarks/results")


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


@dataclass(slots=True)
class _Field:
    """The servers that run side by side; one that fails is named and left out."""

    results: Results
    logs: Path
    _running: list[tuple[RunningContestant, Served, dict[str, Load]]] = field(default_factory=list)

    def start(self, contestant: Contestant, until: ExitStack) -> None:
        """Start one, which then runs until the stack is closed."""
        logger.info("starting %s", contestant.key)
        try:
            with ExitStack() as own:
                server = own.enter_context(started(contestant, self.logs))
                found = server.introduced(photo_files()[0])
                if any(found.is_the_same_as(other) for other in self.results.servers):
                    raise NotMeasured("this is what the default is here")
                until.push(own.pop_all())
        except NotMeasured as reason:
            self._give_up(contestant.key, reason)
            return
        self.results.servers.append(found)
        self._running.append((server, found, _loads(contestant)))

    def compare(self) -> None:
        """Note how near each server's embedding of a photo is to the reference's."""
        references = {
            found.model: np.array(server.embedding)
            for server, found, _ in self._running
            if found.name == REFERENCE
        }
        for server, found, _ in self._running:
            if (expected := references.get(found.model)) is not None:
                found.cosine = _cosine(expected, np.array(server.embedding))

    def one_round(self, seconds: float, *, first: int) -> None:
        """Every load on every server; another one begins in each round."""
        for name in dict.fromkeys(name for _, _, loads in self._running for name in loads):
            first %= max(len(self._running), 1)
            for one in [*self._running[first:], *self._running[:first]]:
                server, found, loads = one
                if name not in loads:
                    continue
                load = loads[name]
                try:
                    measured = server.measure(
                        load.path, load.bodies, concurrency=load.concurrency, seconds=seconds
                    )
                except NotMeasured as reason:
                    self._give_up(f"{found.key}: {name}", reason)
                    self._running.remove(one)
                    continue
                logger.info("%s: %s: %.2f a second", name, found.key, measured.rate)
                found.loads.setdefault(name, []).append(measured)

    def _give_up(self, name: str, reason: NotMeasured) -> None:
        logger.info("not measured: %s: %s", name, reason)
        self.results.not_measured[name] = str(reason)


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path(".bench"), show_default=True,
              help="Where checkpoints, caches and the others' environments lie.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=None,
              help=f"Where results are kept, by kind of processor: {_KEPT}, and with --only "
                   "results in --work, so that a part does not replace the whole.")  # fmt: skip
@click.option("--seconds", type=float, default=3.0, show_default=True,
              help="Of each load in each round.")  # fmt: skip
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--only", multiple=True, metavar="WORDS",
              help="Only servers whose name, with the model's, holds these words, and no encoders "
                   "alone; may be repeated.")  # fmt: skip
def main(
    *, work: Path, output: Path | None, seconds: float, rounds: int, only: tuple[str, ...]
) -> None:
    """Measure throughput and latency of every server, of the encoders alone and of the machine."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    work.mkdir(parents=True, exist_ok=True)
    output = output or (work / "results" if only else _KEPT)
    cache = (work / "cache").absolute()
    found = processor()
    results = Results(
        kind_of(found),
        machine_name(),
        list(found.instructions),
        f"{datetime.now(UTC):%Y-%m-%d}",
        rounds,
        seconds,
    )
    chosen = contestants(partial(model_at, work=work), cache, work, only)
    # One model after the other: all servers at once would need more memory than most machines have.
    for model in dict.fromkeys(one.model for one in chosen):
        with ExitStack() as stack:
            logs = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=work)))
            servers = _Field(results, logs)
            for one in chosen:
                if one.model == model:
                    servers.start(one, stack)
            servers.compare()
            for number in range(rounds):
                servers.one_round(seconds, first=number)
        results.keep(output)  # a run that is stopped later has measured this much
    _measure_own_costs(results)
    if not only:
        _measure_peaks(results)
        _measure_encoders(results, model_at(VIT_L, work).absolute(), cache)
    results.keep(output)
    click.echo(write_reports(output).read_text(encoding="utf-8"))


def _measure_own_costs(results: Results) -> None:
    counts = process_counts(usable_cores())
    try:
        results.own_costs = own_costs(
            CAMERA_SIZES, counts, seconds=results.seconds, rounds=results.rounds
        )
    except NotMeasured as reason:
        results.not_measured["ours, fake encoder"] = str(reason)


def _measure_peaks(results: Results) -> None:
    try:
        for _ in range(results.rounds):
            results.add_peaks(_program("benchmarks.machine"))
    except NotMeasured as reason:
        results.not_measured["the machine's products of matrices"] = str(reason)


def _measure_encoders(results: Results, checkpoint: Path, cache: Path) -> None:
    """In rounds, so that a machine which changes its speed changes it for all."""
    encoders = [
        (one, BareEncoder(one.name, one.precision, computes_in(one.precision, processor())))
        for one in BARE
    ]
    for _ in range(results.rounds):
        for one, measured in list(encoders):
            try:
                if (reason := reason_against(one.precision)) is not None:
                    raise NotMeasured(reason)
                arguments = (one.choice, one.precision, one.streams, checkpoint, cache)
                rates = _program("benchmarks.bare", *map(str, (*arguments, results.seconds)))
            except NotMeasured as failure:
                encoders.remove((one, measured))
                results.not_measured[f"{one.name} {one.precision}, encoder alone"] = str(failure)
                continue
            for batch, rate in rates.items():
                measured.rates.setdefault(batch, []).append(rate)
    results.bare = [measured for _, measured in encoders]


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


def _program(module: str, *arguments: str) -> dict[str, float]:
    """What a module prints when it is run in a process of its own.

    Raises:
        NotMeasured: it failed.
    """
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise NotMeasured(reason_in(run.stderr))
    # The last line: quantising prints its progress before it.
    figures: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    logger.info("%s %s: %s", module, " ".join(arguments[:3]), figures)
    return figures


def _cosine(one: np.ndarray, other: np.ndarray) -> float | None:
    if one.shape != other.shape:
        return None
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


if __name__ == "__main__":
    main()
