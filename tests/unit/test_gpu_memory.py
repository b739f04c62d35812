"""Which of NVML's numbers is this process's."""

import os
import threading
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from adapters.encoders.cuda import Gpu, ProcessMemory

GPU = Gpu("NVIDIA Test", "8.9", "00000000:41:00.0")
MINE = os.getpid()
GIB = 1024**3


@dataclass
class Nvml:
    """NVML with one GPU and the given processes on it."""

    processes: list[tuple[int, int | None]]
    failure: Exception | None = None

    def nvmlInit(self) -> None:
        if self.failure is not None:
            raise self.failure

    def nvmlDeviceGetHandleByPciBusId(self, bus: str) -> str:
        assert bus == GPU.bus
        return "handle"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        assert handle == "handle"
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]


@pytest.mark.parametrize(
    ("processes", "used"),
    [
        ([(MINE, GIB)], GIB),
        ([(1, 5 * GIB), (MINE, GIB), (2, 7 * GIB)], GIB),
        ([(MINE, None)], None),
        ([(MINE, 0)], None),
        ([(MINE + 1, 0)], None),
        ([(MINE + 1, GIB)], GIB),
        ([(1, GIB), (2, GIB)], None),
        ([], None),
    ],
    ids=[
        "alone",
        "in company",
        "not told",
        "zero",
        "zero, container",
        "container",
        "container in company",
        "none",
    ],
)
def test_the_memory_of_this_process(processes: list[tuple[int, int | None]], used: int) -> None:
    assert ProcessMemory(GPU, Nvml(processes)).used() == used


def test_whoever_reads_never_waits_for_nvml() -> None:
    """NVML blocks for as long as the driver is busy; /health and its probes must not."""
    gate = threading.Event()
    threads: list[str] = []

    class Slow(Nvml):
        def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
            threads.append(threading.current_thread().name)
            if len(threads) > 1:
                assert gate.wait(30)
            return super().nvmlDeviceGetComputeRunningProcesses(handle)

    nvml = Slow([(MINE, GIB)])
    memory = ProcessMemory(GPU, nvml)
    nvml.processes = [(MINE, 3 * GIB)]
    memory._asked_s -= 10
    for _ in range(5):
        assert memory.used() == GIB  # what was known before; asked once, not five times
    gate.set()
    memory.wait()
    assert memory.used() == 3 * GIB
    assert threads[1:] == ["nvml"]


def test_a_failing_nvml_is_no_failure_of_health() -> None:
    assert ProcessMemory(GPU, Nvml([], RuntimeError("NVML: Driver Not Loaded"))).used() is None


def test_the_real_nvml_without_a_driver_says_nothing() -> None:
    from adapters.encoders.cuda import find_gpu

    if find_gpu() is not None:
        pytest.skip("this machine has a GPU")
    assert ProcessMemory(GPU).used() is None
