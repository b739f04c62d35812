"""What this process may really use of the machine."""

import math
import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MEMORY_INFO: Final = Path("/proc/meminfo")
_NVIDIA_CARDS: Final = Path("/proc/driver/nvidia/gpus")
_CGROUP_MEMORY: Final = Path("/sys/fs/cgroup/memory.max")
_CGROUP_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
_PROCESSOR: Final = Path("/proc/cpuinfo")
_THREADS: Final = Path("/proc/self/task")
INT8_FEATURES: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""Instructions that multiply int8, by Linux's names."""

_ISA_WITHOUT_INT8: Final = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
"""Values of oneDNN's variable that allow none of them."""

_BFLOAT16_FEATURES: Final = frozenset(("avx512_bf16", "amx_bf16", "bf16"))
"""Intel's and AMD's name, that of Intel's matrix unit, and ARM's."""
NVIDIA_DRIVER_FILES: Final = (
    Path("/dev/nvidiactl"),
    Path("/proc/driver/nvidia"),
    Path("/dev/dxg"),
)
"""One of these is there where an NVIDIA driver is loaded; the last one under WSL2."""
_DRIVER_VERSION: Final = Path("/proc/driver/nvidia/version")


def usable_cores(quota: Path = _CGROUP_QUOTA) -> int:
    """Processor cores for this process: affinity and container limit, at least 1.

    Args:
        quota: cgroup v2's ``cpu.max``: ``MAX PERIOD`` in microseconds, or ``max PERIOD``.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        limit, period = quota.read_text(encoding="ascii").split()
        if limit != "max":
            cores = min(cores, math.ceil(int(limit) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no cgroup v2 here: no limit
    return max(cores, 1)


@dataclass(frozen=True, slots=True)
class CoreTime:
    """Seconds of all threads of this process together.

    Attributes:
        computed: on a core.
        waited: ready to compute, while something else had the core.
    """

    computed: float
    waited: float

    def waited_since(self, before: "CoreTime") -> float:
        """The share of the time since then that was waited; 0 where nothing is known."""
        waited = max(self.waited - before.waited, 0.0)
        computed = max(self.computed - before.computed, 0.0)
        return waited / (waited + computed) if waited else 0.0


def core_time(threads: Path = _THREADS) -> CoreTime:
    """What the threads that there are have computed and waited so far.

    Args:
        threads: Linux's ``/proc/self/task``. Elsewhere nothing is known.
    """
    computed = waited = 0
    for file in threads.glob("*/schedstat"):
        with suppress(OSError, ValueError):  # a thread that has just ended
            on_core, waiting, _ = map(int, file.read_text(encoding="ascii").split())
            computed += on_core
            waited += waiting
    return CoreTime(computed / 1e9, waited / 1e9)


def multiplies_bfloat16(cpu_info: Path = _PROCESSOR) -> bool:
    """Whether the processor has instructions for bfloat16 products; without them it gains nothing.

    Args:
        cpu_info: Linux's ``/proc/cpuinfo``. Elsewhere the result is False.
    """
    return not _BFLOAT16_FEATURES.isdisjoint(processor(cpu_info).instructions)


def multiplies_int8(cpu_info: Path = _PROCESSOR, variables: Mapping[str, str] = os.environ) -> bool:
    """Whether the processor has instructions for int8 products; without them it gains nothing.

    Args:
        cpu_info: Linux's ``/proc/cpuinfo``. Elsewhere the result is True.
        variables: in which ``ONEDNN_MAX_CPU_ISA`` may forbid the instructions that there are.
    """
    found = processor(cpu_info).instructions
    forbidden = variables.get("ONEDNN_MAX_CPU_ISA", "").upper() in _ISA_WITHOUT_INT8
    return not found or not (forbidden or INT8_FEATURES.isdisjoint(found))


def nvidia_driver_present() -> bool:
    """Whether an NVIDIA driver is loaded; without one, asking PyTorch about CUDA is futile."""
    return any(path.exists() for path in NVIDIA_DRIVER_FILES)


def nvidia_driver_version(file: Path = _DRIVER_VERSION) -> str | None:
    """The NVIDIA driver's version, such as ``580.65.06``; None where its kernel module tells none.

    Args:
        file: the driver's own. Under WSL2 there is none.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)*\b", text.partition("\n")[0])
    return found and found[0]


@dataclass(frozen=True, slots=True)
class Processor:
    """The processor.

    Attributes:
        name: as its vendor writes it.
        instructions: sets that matter for encoding, slowest first, by Linux's names.
    """

    name: str
    instructions: tuple[str, ...]


_INSTRUCTIONS: Final = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "sve", "i8mm", "bf16"),
)


def processor(cpu_info: Path = _PROCESSOR) -> Processor:
    """Name and instruction sets, as far as the system reports them.

    Args:
        cpu_info: Linux's ``/proc/cpuinfo``.
    """
    fields: dict[str, str] = {}
    try:
        for line in cpu_info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip().lower(), value.strip())
    except OSError:
        pass  # not Linux
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    return Processor(
        name=fields.get("model name") or platform.processor() or platform.machine(),
        instructions=tuple(name for name in _INSTRUCTIONS if name in flags),
    )


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory in bytes: what this process may use at most, and what is free now."""

    total: int
    available: int


def memory(info: Path = _MEMORY_INFO, limit: Path = _CGROUP_MEMORY) -> Memory | None:
    """Main memory, or None where the system does not report it.

    Args:
        info: Linux's ``/proc/meminfo``.
        limit: cgroup v2's ``memory.max``: bytes, or ``max``. What is used of it is read beside it.
    """
    try:
        lines = dict(line.split(":", 1) for line in info.read_text(encoding="ascii").splitlines())
        total, available = (
            int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable")
        )
    except (OSError, KeyError, ValueError):
        return None
    with suppress(OSError, ValueError):  # no cgroup v2 here, or "max": no limit
        total = min(total, int(limit.read_text(encoding="ascii")))
        available = min(available, total - _anonymous(limit.with_name("memory.stat")))
    return Memory(total=total, available=max(min(available, total), 0))


def _anonymous(statistics: Path) -> int:
    """Bytes of a container that are no copies of files, which give way where memory is short."""
    with suppress(OSError, ValueError, KeyError):
        lines = statistics.read_text(encoding="ascii").splitlines()
        return int(dict(line.split(" ", 1) for line in lines)["anon"])
    return 0


def nvidia_cards(cards: Path = _NVIDIA_CARDS) -> tuple[str, ...]:
    """Names of the cards that the NVIDIA driver knows.

    Args:
        cards: the driver's folder, with one folder for each card.
    """
    return tuple(
        line.removeprefix("Model:").strip()
        for card in sorted(cards.glob("*/information"))
        for line in card.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith("Model:")
    )
