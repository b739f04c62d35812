"""The few calls of the CUDA runtime that inference needs, through NVIDIA's own bindings.

Not through PyTorch: one way for all, and a machine without PyTorch can serve. Both share the
device's primary context.
"""

import ctypes
import importlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from application.ports import EncoderLost

_DEVICE: Final = 0


class OutOfDeviceMemory(Exception):
    """The GPU has not as much memory left as was asked for."""


class NoGpu(Exception):
    """There is no GPU that CUDA can use; says what CUDA says."""


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
    """CUDA's runtime for device 0. Every failure but lack of memory is a lost device."""

    def __init__(self, runtime: Any = None) -> None:
        """Load the bindings.

        Args:
            runtime: instead of ``cuda.bindings.runtime``.
        """
        self._runtime = runtime or importlib.import_module("cuda.bindings.runtime")

    def gpu(self) -> Gpu:
        """The GPU.

        Raises:
            NoGpu: there is none, or no driver that is new enough for it.
        """
        error, count = self._runtime.cudaGetDeviceCount()
        if error != self._runtime.cudaError_t.cudaSuccess or count < 1:
            raise NoGpu(str(getattr(error, "name", error)))
        properties = self._call("cudaGetDeviceProperties", _DEVICE)
        bus = self._call("cudaDeviceGetPCIBusId", 32, _DEVICE)
        return Gpu(
            name=_text(properties.name),
            architecture=f"{properties.major}.{properties.minor}",
            bus=_text(bus),
        )

    def stream(self) -> Any:
        """A stream that waits for no other."""
        self._call("cudaSetDevice", _DEVICE)
        return self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)

    def device_memory(self, size: int) -> int:
        """Address of ``size`` new bytes on the device."""
        return int(self._call("cudaMalloc", size))

    def pinned_memory(self, size: int) -> int:
        """Address of ``size`` new bytes on the host that the device copies from directly."""
        return int(self._call("cudaHostAlloc", size, self._runtime.cudaHostAllocDefault))

    def free_device_memory(self, address: int) -> None:
        """Give it back."""
        self._call("cudaFree", address)

    def free_pinned_memory(self, address: int) -> None:
        """Give it back."""
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
        """Return once all that was put into the stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *results = getattr(self._runtime, name)(*arguments)
        if error == self._runtime.cudaError_t.cudaSuccess:
            return results[0] if results else None
        if error == self._runtime.cudaError_t.cudaErrorMemoryAllocation:
            self._runtime.cudaGetLastError()  # else the next call would report it once more
            raise OutOfDeviceMemory(f"{name}{arguments} found no memory")
        raise EncoderLost(f"the GPU failed: {getattr(error, 'name', error)} in {name}.")


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


def _text(name: bytes | str) -> str:
    plain = name.decode() if isinstance(name, bytes) else name
    return plain.split("\0", 1)[0]
