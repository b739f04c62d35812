"""Servers as processes: started, loaded from a process of their own, and watched meanwhile."""

import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import psutil

from adapters.system.hardware import Processor, processor
from benchmarks.contestants import DEFAULT, Contestant, reason_in
from benchmarks.load import Plan, Result
from benchmarks.machine import computes_in
from benchmarks.results import AS_DEFAULT, Round, Served
from tests.support.servers import Server, launched, wait_for

_SAMPLE_EVERY_S: Final = 0.1
_START_WITHIN_S: Final = 1200
"""Quantising ViT-L/14 takes minutes on a machine that is busy."""

_FIRST_ANSWER_S: Final = 300
_END_WITHIN_S: Final = 20
_RUNTIMES: Final = {"openvino": "OpenVINO", "tensorrt": "TensorRT"}
_DIGITS: Final = 5
"""Of a latency in seconds; the rest is noise, and the results are kept."""


class NotMeasured(Exception):
    """A server cannot be measured here; the text says why."""


class RunningContestant:
    """A server that is up."""

    def __init__(self, contestant: Contestant, url: str, process_id: int) -> None:
        self.contestant = contestant
        self.url = url
        self.embedding: list[float] = []
        self._process = psutil.Process(process_id)

    def introduced(self, photo: bytes) -> Served:
        """What it is, once it has answered a first request.

        Args:
            photo: whose embedding is asked for.

        Raises:
            NotMeasured: it does not answer with an embedding.
        """
        try:
            response = httpx.post(
                self.url + self.contestant.embed,
                content=self.contestant.embed_body(photo),
                headers={"Content-Type": "application/json"},
                timeout=_FIRST_ANSWER_S,
            )
            response.raise_for_status()
            self.embedding = self.contestant.embedding(response.json())
            health = httpx.get(self.url + self.contestant.health, timeout=_FIRST_ANSWER_S)
        except httpx.HTTPStatusError as failure:
            answer = failure.response
            raise NotMeasured(f"{answer.status_code}: {reason_in(answer.text)}") from failure
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as failure:
            told = f"{type(failure).__name__}: {failure}"
            raise NotMeasured(f"its answer is no embedding: {told}") from failure
        state = {}
        with suppress(ValueError):  # vLLM's is empty
            state = health.json()
        return served(self.contestant, state, self._memory(), processor())

    def measure(self, path: str, bodies: list[bytes], *, concurrency: int, seconds: float) -> Round:
        """Put it under load.

        Raises:
            NotMeasured: it has ended, or the load could not be sent.
        """
        with tempfile.TemporaryDirectory() as directory:
            files = []
            for number, body in enumerate(bodies):
                file = Path(directory) / str(number)
                file.write_bytes(body)
                files.append(str(file))
            health = self.url + self.contestant.health
            plan = Plan(self.url + path, files, concurrency, seconds, health)
            try:
                before = self._cpu_s()
                with self._watched_memory() as memory:
                    load = subprocess.run(
                        [sys.executable, "-m", "benchmarks.load"],
                        input=msgspec.json.encode(plan),
                        stdout=subprocess.PIPE,
                        check=True,
                    )
                cpu_s = self._cpu_s() - before
            except psutil.NoSuchProcess as ended:
                raise NotMeasured("it ended under load") from ended
            except subprocess.CalledProcessError as failure:
                raise NotMeasured(f"the load failed: {failure}") from failure
        result = msgspec.json.decode(load.stdout, type=Result)
        return Round(
            [round(one, _DIGITS) for one in result.latencies_s],
            [round(one, _DIGITS) for one in result.health_latencies_s],
            result.failures,
            result.elapsed_s,
            cpu_s,
            max(memory),
        )

    def _cpu_s(self) -> float:
        return self._sum(lambda process: sum(process.cpu_times()[:2]))

    def _memory(self) -> int:
        return int(self._sum(lambda process: process.memory_info().rss))

    def _sum(self, figure: Callable[[psutil.Process], float]) -> float:
        """Of its process and all that descend from it, those aside that end meanwhile."""
        total = figure(self._process)
        for child in self._process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                total += figure(child)
        return total

    @contextmanager
    def _watched_memory(self) -> Iterator[list[int]]:
        seen = [0]
        finished = threading.Event()

        def watch() -> None:
            with suppress(psutil.NoSuchProcess):  # who measures will notice
                while not finished.wait(_SAMPLE_EVERY_S):
                    seen.append(self._memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield seen
        finally:
            finished.set()
            watcher.join()


def served(
    contestant: Contestant, health: Mapping[str, Any], memory: int, found: Processor
) -> Served:
    """What really serves, by the runtime and the precision that the server itself tells.

    Args:
        contestant: what was asked for.
        health: what its ``/health`` says.
        memory: bytes resident.
        found: the processor.
    """
    if health.get("precision"):
        runtime, precision = health["backend"], health["precision"]
        runtime = _RUNTIMES.get(runtime, runtime)
    elif contestant.computes is not None:
        runtime, precision = contestant.computes
    else:
        raise NotMeasured("it does not tell what it computes in")
    if contestant.instructions is None:
        computes = computes_in(precision, found)
    else:
        computes = f"{precision}, {contestant.instructions}"
    name = contestant.name
    if contestant.is_ours:
        name = f"ours, {runtime} {precision}{AS_DEFAULT if DEFAULT in name else ''}"
    return Served(name, contestant.model, f"{runtime} {computes}", contestant.is_ours, memory)


@contextmanager
def started(contestant: Contestant, logs: Path) -> Iterator[RunningContestant]:
    """Start a server, wait until it can be asked, and end it with all its processes.

    Raises:
        NotMeasured: it cannot be started here.
    """
    if contestant.missing is not None:
        raise NotMeasured(contestant.missing)
    log = logs / f"{re.sub(r'[^a-z0-9]+', '-', contestant.key.lower())}.log"
    try:
        with (
            launched(list(contestant.command), log, **contestant.environment) as server,
            _ended_wholly(server.process.pid),
        ):
            _wait_until_ready(server, contestant)
            yield RunningContestant(contestant, server.url, server.process.pid)
    except OSError as failure:
        raise NotMeasured(f"not started: {failure.strerror}") from failure


def _wait_until_ready(server: Server, contestant: Contestant) -> None:
    try:
        wait_for(server, contestant.ready, seconds=_START_WITHIN_S)
    except AssertionError as failure:
        if server.process.poll() is not None:
            raise NotMeasured(f"it ended at its start: {reason_in(server.log)}") from failure
        try:
            answer = httpx.get(server.url + contestant.ready, timeout=_END_WITHIN_S).text
        except httpx.HTTPError as unreachable:
            answer = str(unreachable)
        raise NotMeasured(f"not ready within {_START_WITHIN_S} s: {answer[:200]}") from failure


@contextmanager
def _ended_wholly(process_id: int) -> Iterator[None]:
    """Ends a process and all that descend from it; some leave theirs behind when killed."""
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(process_id)
            family = [process, *process.children(recursive=True)]
            process.terminate()
            _, left = psutil.wait_procs(family, timeout=_END_WITHIN_S)
            for one in left:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
