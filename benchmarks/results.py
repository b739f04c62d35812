"""Figures of one run, raw: gathered round by round, kept in a file, and summed up from there."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

FILE: Final = "results.json"
"""What they are kept in, in the directory of their kind of processor."""

AS_DEFAULT: Final = " (default)"
"""After the name of this project's server as it is without settings."""


class Round(msgspec.Struct):
    """One server under one load, once.

    Attributes:
        latencies_s: of each request whose response was a 200.
        health_latencies_s: the same of ``/health``, probed meanwhile.
        failures: requests whose response was not a 200.
        elapsed_s: from the first request to the last response.
        cpu_s: processor seconds that the server used meanwhile.
        peak_memory: bytes resident, the largest value seen.
    """

    latencies_s: list[float]
    health_latencies_s: list[float]
    failures: int
    elapsed_s: float
    cpu_s: float
    peak_memory: int

    @property
    def rate(self) -> float:
        """Responses a second."""
        return len(self.latencies_s) / self.elapsed_s


class Served(msgspec.Struct):
    """A server that was measured.

    Attributes:
        name: with what really served, for this project's.
        model: by its name.
        computes: runtime, precision and instructions.
        ours: whether it is this project's.
        loaded_memory: bytes resident once it has answered its first request.
        cosine: of its embedding of the first photo with that of `REFERENCE`; None without that.
        loads: by the load's name, a round each.
    """

    name: str
    model: str
    computes: str
    ours: bool
    loaded_memory: int
    cosine: float | None = None
    loads: dict[str, list[Round]] = {}

    @property
    def key(self) -> str:
        """Its name with its model."""
        return f"{self.name}, {self.model}"

    def is_the_same_as(self, other: "Served") -> bool:
        """Whether the same serves the same model, whatever was asked for."""
        mine, its = (
            (one.ours, one.model, one.name.removesuffix(AS_DEFAULT)) for one in (self, other)
        )
        return mine == its

    @property
    def peak_memory(self) -> int:
        """Bytes resident under any load, the largest value seen."""
        seen = [one.peak_memory for rounds in self.loads.values() for one in rounds]
        return max(seen, default=self.loaded_memory)


class OwnCost(msgspec.Struct):
    """The server before an encoder that computes nothing, for one kind of picture.

    Attributes:
        picture: such as ``640 x 480``.
        processes: that speak HTTP.
        checkout: where the server's code is, if not here.
        per_second: requests, of each round.
        cpu_ms: processor time of all the server's processes for a request, of each round.
        alone_ms: how long a request takes that is the only one, the median of each round.
        decoder_ms: processor time of the JPEG decoder alone, of each round.
        memory: bytes resident at most.
    """

    picture: str
    processes: int
    checkout: str = ""
    per_second: list[float] = []
    cpu_ms: list[float] = []
    alone_ms: list[float] = []
    decoder_ms: list[float] = []
    memory: int = 0


class BareEncoder(msgspec.Struct):
    """An encoder without a server.

    Attributes:
        name: of its runtime, with what is set of it.
        precision: that it was given.
        computes: that, with the instructions.
        rates: images a second by the size of the batch, of each round.
    """

    name: str
    precision: str
    computes: str
    rates: dict[str, list[float]] = {}


@dataclass(frozen=True, slots=True)
class Row:
    """One server under one kind of load, over all rounds.

    Attributes:
        server: its name.
        model: by its name.
        load: such as ``embed, 8 at once``.
        rate: responses a second, the median of the rounds.
        slowest_rate: of the rounds.
        fastest_rate: of the rounds.
        p50_ms: half of the requests took no longer.
        p99_ms: ninety-nine in a hundred took no longer.
        health_p99_ms: the same of ``/health``, probed meanwhile.
        cpu_s: processor seconds a request.
        failures: requests whose response was not a 200.
    """

    server: str
    model: str
    load: str
    rate: float
    slowest_rate: float
    fastest_rate: float
    p50_ms: float
    p99_ms: float
    health_p99_ms: float
    cpu_s: float
    failures: int


class Results(msgspec.Struct):
    """Everything that one run measured.

    Attributes:
        kind: of processor, as its directory is named.
        machine: its name, cores and memory.
        instructions: of the processor, those that matter, by Linux's names.
        date: on which it was measured.
        rounds: of every load.
        seconds: of every load in every round.
        peaks: operations a second of a matrix product, by precision.
        servers: in the order of the report.
        bare: encoders without a server.
        own_costs: of the server without an encoder.
        not_measured: by the name of what was to be measured, why it was not.
    """

    kind: str
    machine: str
    instructions: list[str]
    date: str
    rounds: int
    seconds: float
    peaks: dict[str, float] = {}
    servers: list[Served] = []
    bare: list[BareEncoder] = []
    own_costs: list[OwnCost] = []
    not_measured: dict[str, str] = {}

    def add_peaks(self, peaks: dict[str, float]) -> None:
        """The machine's limit, measured once more; the highest counts."""
        for precision, rate in peaks.items():
            self.peaks[precision] = max(self.peaks.get(precision, 0.0), rate)

    def rows(self) -> list[Row]:
        """One for each server and load."""
        return [
            _row(server, load, rounds)
            for server in self.servers
            for load, rounds in server.loads.items()
        ]

    def keep(self, directory: Path) -> None:
        """Write them into the directory of their kind of processor, in another directory."""
        place = directory / self.kind
        place.mkdir(parents=True, exist_ok=True)
        (place / FILE).write_bytes(msgspec.json.encode(self) + b"\n")


def kept_results(directory: Path) -> list[Results]:
    """All that `Results.keep` has written there, by kind."""
    files = sorted(directory.glob(f"*/{FILE}"))
    return [msgspec.json.decode(file.read_bytes(), type=Results) for file in files]


def _row(server: Served, load: str, rounds: list[Round]) -> Row:
    rates = [one.rate for one in rounds]
    latencies = [seconds for one in rounds for seconds in one.latencies_s]
    health = [seconds for one in rounds for seconds in one.health_latencies_s]
    return Row(
        server.name,
        server.model,
        load,
        rate=float(np.median(rates)),
        slowest_rate=min(rates),
        fastest_rate=max(rates),
        p50_ms=_percentile_ms(latencies, 50),
        p99_ms=_percentile_ms(latencies, 99),
        health_p99_ms=_percentile_ms(health, 99),
        cpu_s=sum(one.cpu_s for one in rounds) / (len(latencies) or math.nan),
        failures=sum(one.failures for one in rounds),
    )


def _percentile_ms(seconds: list[float], percent: float) -> float:
    return float(np.percentile(seconds, percent)) * 1000 if seconds else float("nan")
