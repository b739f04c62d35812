"""Figures of one run: gathered round by round, then summed up."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from benchmarks.running import Measurement


@dataclass(frozen=True, slots=True)
class Row:
    """One server under one kind of load, over all rounds.

    Attributes:
        server: its name.
        load: such as ``embed, 8 at once``.
        rate: responses a second, the median of the rounds.
        slowest_rate: of the rounds.
        fastest_rate: of the rounds.
        p50_ms: half of the requests took no longer.
        p99_ms: ninety-nine in a hundred took no longer.
        health_p99_ms: the same of ``/health``, probed meanwhile.
        cpu_s: processor seconds a request.
        memory_mib: the most that was resident.
        failures: requests whose response was not a 200.
    """

    server: str
    load: str
    rate: float
    slowest_rate: float
    fastest_rate: float
    p50_ms: float
    p99_ms: float
    health_p99_ms: float
    cpu_s: float
    memory_mib: float
    failures: int


@dataclass(slots=True)
class Results:
    """Everything that one run measured.

    Attributes:
        machine: its name.
        peaks: operations a second of a matrix product, by precision.
        bare: encoder → batch size → images a second, one for each round.
    """

    machine: str
    peaks: dict[str, float]
    bare: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    _rounds: dict[tuple[str, str], list[Measurement]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, server: str, load: str, measurement: Measurement) -> None:
        """One round of one server under one kind of load."""
        self._rounds[server, load].append(measurement)

    def add_bare(self, encoder: str, rates: dict[str, float]) -> None:
        """One round of an encoder alone."""
        for batch, rate in rates.items():
            self.bare.setdefault(encoder, {}).setdefault(batch, []).append(rate)

    def add_peaks(self, peaks: dict[str, float]) -> None:
        """The machine's limit, measured once more; the highest counts."""
        for precision, rate in peaks.items():
            self.peaks[precision] = max(self.peaks.get(precision, 0.0), rate)

    def rows(self) -> list[Row]:
        """One for each server and load, in the order they were first measured."""
        return [self._row(server, load) for server, load in self._rounds]

    def _row(self, server: str, load: str) -> Row:
        rounds = self._rounds[server, load]
        rates = [len(one.result.latencies_s) / one.result.elapsed_s for one in rounds]
        latencies = np.concatenate([one.result.latencies_s for one in rounds])
        health = np.concatenate([one.result.health_latencies_s for one in rounds])
        responses = max(len(latencies), 1)
        return Row(
            server,
            load,
            rate=float(np.median(rates)),
            slowest_rate=min(rates),
            fastest_rate=max(rates),
            p50_ms=_percentile_ms(latencies, 50),
            p99_ms=_percentile_ms(latencies, 99),
            health_p99_ms=_percentile_ms(health, 99),
            cpu_s=sum(one.cpu_s for one in rounds) / responses,
            memory_mib=max(one.peak_memory for one in rounds) / 1024**2,
            failures=sum(one.result.failures for one in rounds),
        )


def _percentile_ms(seconds: np.ndarray, percent: float) -> float:
    return float(np.percentile(seconds, percent)) * 1000 if len(seconds) else float("nan")
