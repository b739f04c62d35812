"""Device memory that this process uses, from NVIDIA's management library."""

import importlib
import os
from typing import Any

from adapters.encoders.cuda import Gpu


class ProcessMemory:
    """Asks NVML about one GPU. Counts everything of this process, not one library's share."""

    def __init__(self, gpu: Gpu, nvml: Any = None) -> None:
        """Find the GPU.

        Args:
            gpu: by its address on the PCI bus, since NVML counts devices in an order of its own.
            nvml: instead of ``pynvml``.
        """
        self._bus = gpu.bus
        self._nvml = nvml
        self._handle: Any = None

    def used(self) -> int | None:
        """Bytes; None where NVML is missing or does not say (in some containers, on Windows)."""
        try:
            if self._handle is None:
                self._nvml = self._nvml or importlib.import_module("pynvml")
                self._nvml.nvmlInit()
                self._handle = self._nvml.nvmlDeviceGetHandleByPciBusId(self._bus)
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except Exception:  # NVML's own errors, of a module that may be missing
            return None
        mine = [p.usedGpuMemory for p in processes if p.pid == os.getpid()]
        # A container's processes have other numbers outside, which is where NVML looks.
        if not mine and len(processes) == 1:
            mine = [processes[0].usedGpuMemory]
        return None if not mine or mine[0] is None else int(mine[0])
