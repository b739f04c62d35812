"""Searches for the costliest request of each kind: `python -m checks.hostile.costs [--seconds N]`.

A search by evolution: what is known to be costly comes first, then new inputs and changed ones of
those that cost the most so far. Each is measured in a process of its own, under the limits that a
decoder has. Prints a table.
"""

import argparse
import gc
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.system.memory import return_large_blocks_at_once
from checks.hostile.inputs import Body, Forms, Inputs, JsonBodies, Pictures, TextInputs, Texts
from checks.hostile.measuring import Cost, measured
from domain.limits import (
    IMAGE_FORMATS,
    MAX_BODY_BYTES,
    MAX_DECODING_BYTES,
    MAX_DECODING_CPU_SECONDS,
    MAX_IMAGES,
)

_ELITE: Final = 4
"""Inputs that are kept for each measure."""

_GUARD_S: Final = 120
"""Of what has no limit of processor time of its own; only so that the search ends."""


@dataclass(frozen=True, slots=True)
class Found:
    """An input and what it cost.

    Attributes:
        name: what it is.
        genome: what it was made from.
        cost: of doing it once.
        times: how often a request of `MAX_BODY_BYTES` can hold it.
    """

    name: str
    genome: Any
    cost: Cost
    times: int

    @property
    def request_s(self) -> float:
        """Processor seconds of a request that is full of it."""
        return self.times * self.cost.seconds


_MEASURES: Final[tuple[Callable[[Found], float], ...]] = (
    lambda found: found.cost.seconds,
    lambda found: found.cost.mebibytes,
    lambda found: found.request_s,
)


@dataclass(slots=True)
class Search:
    """The search among inputs of one kind.

    Attributes:
        inputs: what to try.
        pictures: whether each is a file that is decoded under a decoder's limits.
        tried: how many were measured.
        best: the worst so far, by each of the measures.
        surprises: outcomes that no request may have.
    """

    inputs: Inputs[Any]
    pictures: bool
    tried: int = 0
    best: list[list[Found]] = field(default_factory=lambda: [[] for _ in _MEASURES])
    surprises: list[str] = field(default_factory=list)

    def run(self, rng: random.Random, seconds: float) -> tuple[Found, Found, Found]:
        """What is known, and then as much as the time allows.

        Returns:
            The worst by processor time, by memory and by the processor time of a whole request.
        """
        for name, genome in self.inputs.known():
            self._try(name, genome)
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            elite = [found for kept in self.best for found in kept]
            if rng.random() < 0.4 or not elite:
                self._try(*self.inputs.fresh(rng))
            else:
                parent = rng.choice(elite)
                changed = self.inputs.changed(parent.genome, rng)
                name = parent.name.removesuffix(", changed") + ", changed" if parent.name else ""
                self._try(name, changed)
        if not self.pictures:
            finalists = {found.genome: found.name for kept in self.best for found in kept[:1]}
            self.best = [[] for _ in _MEASURES]
            for genome, name in finalists.items():
                self._try(name, self.inputs.whole(genome))
        slowest, largest, request = (kept[0] for kept in self.best)
        return slowest, largest, request

    def _try(self, name: str, genome: Any) -> None:
        cost = measured(
            self.inputs.work(genome),
            cpu_s=MAX_DECODING_CPU_SECONDS if self.pictures else _GUARD_S,
            memory_bytes=MAX_DECODING_BYTES if self.pictures else None,
        )
        self.tried += 1
        if " " in cost.outcome or (cost.outcome == "time" and not self.pictures):
            self.surprises.append(f"{name or genome}: {cost}")
        times = 1
        if self.pictures:  # base64, as JSON holds them
            times = max(1, min(MAX_IMAGES, MAX_BODY_BYTES * 3 // 4 // (len(genome) + 3)))
        found = Found(name, genome, cost, times)
        for kept, measure in zip(self.best, _MEASURES, strict=True):
            kept.append(found)
            kept.sort(key=measure, reverse=True)
            del kept[_ELITE:]


def _named(found: Found) -> str:
    if found.name:
        return found.name
    genome: Body | Texts = found.genome
    if isinstance(genome, Body):
        return f"{genome.head[-30:]!r} " + " ".join(map(repr, genome.units))
    return " ".join(map(repr, genome.pieces))


def _row(kind: str, tried: int, slowest: Found, largest: Found, request: Found) -> str:
    cells = (
        kind,
        str(tried),
        f"{slowest.cost.seconds:.2f}",
        f"`{_named(slowest)}` ({slowest.cost.outcome})",
        f"{largest.cost.mebibytes:.0f}",
        f"`{_named(largest)}` ({largest.cost.outcome})",
        f"{request.request_s:.1f}",
        f"{request.times} x `{_named(request)}`",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> int:
    """How many inputs had an outcome that none may have."""
    parser = argparse.ArgumentParser(prog="python -m checks.hostile.costs")
    parser.add_argument("--seconds", type=float, default=60, help="of search for each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="only these, separated by commas")
    asked = parser.parse_args()
    return_large_blocks_at_once()
    gc.freeze()  # what is there now need not be looked at again before each measurement
    searches = {name: Search(Pictures(name), pictures=True) for name in IMAGE_FORMATS}
    searches["texts"] = Search(TextInputs(), pictures=False)
    searches["JSON"] = Search(JsonBodies(), pictures=False)
    searches["form"] = Search(Forms(), pictures=False)
    wanted = asked.kinds.split(",") if asked.kinds else list(searches)
    print(  # noqa: T201
        "| kind | tried | s | of | MiB | of | s for 16 MiB | of |\n"
        "| --- | ---: | ---: | --- | ---: | --- | ---: | --- |"
    )
    surprises = []
    for kind in wanted:
        search = searches[kind]
        worst = search.run(random.Random(f"{kind} {asked.seed}"), asked.seconds)
        print(_row(kind, search.tried, *worst), flush=True)  # noqa: T201
        surprises += [f"{kind}: {surprise}" for surprise in search.surprises]
    print("\n".join(surprises))  # noqa: T201
    return len(surprises)


if __name__ == "__main__":
    sys.exit(main() > 0)
