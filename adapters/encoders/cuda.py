"""The GPU: the few calls of the CUDA runtime that inference needs, and the memory in use.

Through NVIDIA's own bindings and not through PyTorch, so that a machine without PyTorch can serve.
Both share the device's primary context.
"""

import ctypes
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.system.hardware import nvidia_driver_version
from application.ports import EncoderLost

_DEVICE: Final = 0

_OLDEST_DRIVER: Final = {11: 450, 12: 525, 13: 580}
"""Of each major version of CUDA, the oldest driver that runs it.

From the CUDA Toolkit's release notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA
Minor Version Compatibility".
"""


class OutOfDeviceMemory(Exception):
    """The GPU does not have enough free memory."""


class NoGpu(Exception):
    """There is no GPU that CUDA can use; the message says why."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that inference runs on.

    Attributes:
        name: as NVIDIA calls it.
        architecture: its compute capability, such as ``8.9``.
        bus: its address on the PCI bus, by which other libraries find the same one.
    """

    name: str
    architecture: str
    bus: str


class Cuda:
    """CUDA's runtime for device 0. Every failure but a lack of memory means a lost device."""

    def __init__(self, runtime: Any = None) -> None:
        """Load the bindings.

        Args:
            runtime: instead of ``cuda.bindings.runtime``.
        """
        self._runtime = runtime or importlib.import_module("cuda.bindings.runtime")

    def gpu(self) -> Gpu:
        """The GPU.

        Raises:
            NoGpu: there is none, or its driver is too old.
        """
        error, count = self._runtime.cudaGetDeviceCount()
        if error != self._runtime.cudaError_t.cudaSuccess or count < 1:
            _, version = self._runtime.cudaRuntimeGetVersion()
            raise NoGpu(why_no_gpu(int(version) // 1000, str(getattr(error, "name", error))))
        properties = self._call("cudaGetDeviceProperties", _DEVICE)
        bus = self._call("cudaDeviceGetPCIBusId", 32, _DEVICE)
        return Gpu(
            name=_text(properties.name),
            architecture=f"{properties.major}.{properties.minor}",
            bus=_text(bus),
        )

    def stream(self) -> Any:
        """A new stream that does not wait for others."""
        self._call("cudaSetDevice", _DEVICE)
        return self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)

    def device_memory(self, size: int) -> int:
        """Address of ``size`` new bytes on the device."""
        return int(self._call("cudaMalloc", size))

    def pinned_memory(self, size: int) -> int:
        """Address of ``size`` new bytes on the host that the device copies from directly."""
        return int(self._call("cudaHostAlloc", size, self._runtime.cudaHostAllocDefault))

    def free_device_memory(self, address: int) -> None:
        """Free it."""
        self._call("cudaFree", address)

    def free_pinned_memory(self, address: int) -> None:
        """Free it."""
        self._call("cudaFreeHost", address)

    def to_device(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy from pinned memory, in the stream's order."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def to_host(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy to pinned memory, in the stream's order."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def wait_for(self, stream: Any) -> None:
        """Return once everything in the stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *results = getattr(self._runtime, name)(*arguments)
        if error == self._runtime.cudaError_t.cudaSuccess:
            return results[0] if results else None
        if error == self._runtime.cudaError_t.cudaErrorMemoryAllocation:
            self._runtime.cudaGetLastError()  # or the next call would report it again
            raise OutOfDeviceMemory(f"{name}{arguments} found no memory")
        raise EncoderLost(f"the GPU failed: {getattr(error, 'name', error)} in {name}.")


def why_no_gpu(
    cuda: int | None,
    otherwise: str,
    *,
    find_version: Callable[[], str | None] | None = None,
    visible: str | None = None,
) -> str:
    """Why CUDA finds no GPU that it can use, as the end of a sentence.

    CUDA itself reports a driver that is too old, one whose library is not in the container and one
    that is not there at all as the same error.

    Args:
        cuda: major version of the CUDA that looked; None: not known.
        otherwise: what CUDA says.
        find_version: of the driver; None asks the kernel module, then NVML.
        visible: instead of ``CUDA_VISIBLE_DEVICES``.
    """
    version = (find_version or driver_version)()
    oldest = None if cuda is None else _OLDEST_DRIVER.get(cuda)
    if version and oldest and int(version.partition(".")[0]) < oldest:
        return f"NVIDIA driver {version} is too old: CUDA {cuda} needs {oldest} or newer"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return f"CUDA_VISIBLE_DEVICES={visible} hides every GPU"
    return f"NVIDIA driver {version}, {otherwise}" if version else otherwise


def driver_version(nvml: Any = None) -> str | None:
    """The NVIDIA driver's version; None where nothing tells it.

    Args:
        nvml: instead of ``pynvml``, which is asked where the kernel module has no file, as under
            WSL2.
    """
    if (version := nvidia_driver_version()) is not None:
        return version
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
        try:
            return _text(nvml.nvmlSystemGetDriverVersion())
        finally:
            nvml.nvmlShutdown()
    except Exception:  # NVML's own errors, from a module that may be missing
        return None


def find_gpu() -> Gpu | None:
    """The GPU that inference would run on; None without one, its driver or the bindings."""
    try:
        return Cuda().gpu()
    except (ImportError, RuntimeError, NoGpu, EncoderLost):
        return None


def as_array(address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Float32 host memory at an address, seen as an array; valid until it is freed."""
    size = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * size).from_address(address)).reshape(shape)


class ProcessMemory:
    """Device memory that this process uses, from NVIDIA's management library (NVML).

    Counts everything of this process, not one library's share.
    """

    def __init__(self, gpu: Gpu, nvml: Any = None) -> None:
        """Take note of the GPU; NVML is loaded by the first call.

        Args:
            gpu: found by its address on the PCI bus, since NVML counts devices in its own order.
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
        except Exception:  # NVML's own errors, from a module that may be missing
            return None
        mine = [p.usedGpuMemory for p in processes if p.pid == os.getpid()]
        # A container's processes have other numbers outside, which is where NVML looks.
        if not mine and len(processes) == 1:
            mine = [processes[0].usedGpuMemory]
        return None if not mine or mine[0] is None else int(mine[0])


def _text(name: bytes | str) -> str:
    plain = name.decode() if isinstance(name, bytes) else name
    return plain.split("\0", 1)[0]
