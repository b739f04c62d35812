"""Servers as processes: started, loaded from a process of their own, and watched meanwhile."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psutil

from benchmarks.contestants import Contestant
from benchmarks.load import Plan, Result
from tests.support.servers import launched, wait_for

_SAMPLE_EVERY_S: Final = 0.1
_START_WITHIN_S: Final = 600


@dataclass(frozen=True, slots=True)
class Measurement:
    """One server under one load.

    Attributes:
        result: what the load's process saw.
        cpu_s: processor seconds that the server used meanwhile.
        peak_memory: bytes resident, the largest value seen.
    """

    result: Result
    cpu_s: float
    peak_memory: int


class RunningContestant:
    """A server that is up."""

    def __init__(self, contestant: Contestant, url: str, process_id: int) -> None:
        self.contestant = contestant
        self.url = url
        self._process = psutil.Process(process_id)

    def measure(
        self, path: str, bodies: list[bytes], *, concurrency: int, seconds: float
    ) -> Measurement:
        """Put it under load."""
        with tempfile.TemporaryDirectory() as directory:
            files = []
            for number, body in enumerate(bodies):
                file = Path(directory) / str(number)
                file.write_bytes(body)
                files.append(str(file))
            health = self.url + self.contestant.health
            plan = Plan(self.url + path, files, concurrency, seconds, health)
            before = self._cpu_s()
            with self._watched_memory() as memory:
                load = subprocess.run(
                    [sys.executable, "-m", "benchmarks.load"],
                    input=msgspec.json.encode(plan),
                    stdout=subprocess.PIPE,
                    check=True,
                )
            result = msgspec.json.decode(load.stdout, type=Result)
            return Measurement(result, self._cpu_s() - before, max(memory))

    def _family(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def _cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._family())

    @contextmanager
    def _watched_memory(self) -> Iterator[list[int]]:
        seen = [0]
        finished = threading.Event()

        def watch() -> None:
            while not finished.wait(_SAMPLE_EVERY_S):
                seen.append(sum(process.memory_info().rss for process in self._family()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield seen
        finally:
            finished.set()
            watcher.join()


@contextmanager
def started(contestant: Contestant, logs: Path) -> Iterator[RunningContestant]:
    """Start a server and wait until it can be asked."""
    log = logs / f"{contestant.name.replace(' ', '-').replace(',', '')}.log"
    with launched(list(contestant.command), log, **contestant.environment) as server:
        wait_for(server, contestant.ready, seconds=_START_WITHIN_S)
        yield RunningContestant(contestant, server.url, server.process.pid)
