"""What this process may really use of the machine."""

import math
import os
from pathlib import Path
from typing import Final

_CGROUP_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
_PROCESSOR: Final = Path("/proc/cpuinfo")
_BFLOAT16_FEATURES: Final = ("avx512_bf16", "amx_bf16", "bf16")
"""Intel's and AMD's name, that of Intel's matrix unit, and ARM's."""
_NVIDIA_DRIVER: Final = (
    Path("/proc/driver/nvidia/version"),
    Path("/dev/nvidiactl"),
    Path("/dev/dxg"),
)


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


def multiplies_bfloat16(processor: Path = _PROCESSOR) -> bool:
    """Whether the processor has instructions for bfloat16 products; without, it is no gain.

    Args:
        processor: Linux's ``cpuinfo``. Elsewhere the answer is no.
    """
    try:
        described = processor.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    features = set(described.split())
    return not features.isdisjoint(_BFLOAT16_FEATURES)


def nvidia_driver_present() -> bool:
    """Whether an NVIDIA driver is loaded; without one, asking PyTorch about CUDA is futile."""
    return any(path.exists() for path in _NVIDIA_DRIVER)
