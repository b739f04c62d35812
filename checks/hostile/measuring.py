"""Measures what a piece of work costs, in a process of its own under the limits of a decoder."""

import gc
import json
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapters.system.memory import SystemMemory
from checks.endurance.vitals import memory_mib
from domain.errors import ClipError


@dataclass(frozen=True, slots=True)
class Cost:
    """What one piece of work cost.

    Attributes:
        seconds: of processor time, of all threads.
        mebibytes: of resident memory at the worst moment, beyond what was resident before.
        outcome: ``done``, the code of a refusal, ``time`` or ``memory`` where a limit ended it, or
            what else happened.
    """

    seconds: float
    mebibytes: float
    outcome: str


def measured(work: Callable[[], object], *, cpu_s: float, memory_bytes: int | None) -> Cost:
    """Do it in a child process and measure it there.

    Args:
        work: what to do.
        cpu_s: processor time after which the child is ended.
        memory_bytes: of address space that it may take beyond what it has; None: any.
    """
    SystemMemory().release()  # so that no freed block is there to be used again unnoticed
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            os.write(writing, _measured_here(work, cpu_s, memory_bytes))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        text = told.read()
    _, status, usage = os.wait4(pid, 0)
    if text:
        return Cost(*json.loads(text))
    ending = os.waitstatus_to_exitcode(status)
    peak_mib = max(0.0, usage.ru_maxrss / 1024 - memory_mib(os.getpid()))
    outcome = "time" if ending == -signal.SIGPROF else f"ended with {ending}"
    return Cost(usage.ru_utime + usage.ru_stime, peak_mib, outcome)


def _measured_here(work: Callable[[], object], cpu_s: float, memory_bytes: int | None) -> bytes:
    gc.disable()
    if memory_bytes is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    pid = os.getpid()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before_mib = memory_mib(pid)
    before_s = _spent_s()
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        work()
        outcome = "done"
    except ClipError as refusal:
        outcome = refusal.code
    except MemoryError:
        outcome = "memory"
    signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = _spent_s() - before_s
    return json.dumps([seconds, max(0.0, memory_mib(pid, "VmHWM") - before_mib), outcome]).encode()


def _spent_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
