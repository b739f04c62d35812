"""The GPU: the few calls of the CUDA runtime that inference needs, and the memory in use.

It uses NVIDIA's own bindings instead of PyTorch, so that a machine without PyTorch can serve. Both
share the device's primary context.
"""

import ctypes
import importlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from adapters.system.hardware import nvidia_driver_version
from application.ports import EncoderLost
from domain.errors import EncoderFault

_DEVICE: Final = 0
_FLOAT32: Final[np.dtype[Any]] = np.dtype(np.float32)

CALLS_AT_ONCE: Final = 2
"""While the card computes one batch, the next one is copied in and the last one out."""

CALLS_BEFORE_GRAPH: Final = 3
"""Calls with the same number of images before a CUDA graph is captured for it."""

CALLS_UNTIL_FINAL: Final = CALLS_BEFORE_GRAPH + 3
"""Calls of one batch size until it runs in its final form."""

MOST_GRAPHS: Final = 8
"""Most CUDA graphs for each stream: each takes a few megabytes."""

_OLD_S: Final = 1.0
"""Age at which a value from NVML is refreshed when it is read."""

_OLDEST_DRIVER: Final = {11: 450, 12: 525, 13: 580}
"""The oldest driver for each major version of CUDA.

From the CUDA Toolkit's release notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA
Minor Version Compatibility".
"""


FINAL_ERRORS: Final = {
    226: "cudaErrorContained",
    700: "cudaErrorIllegalAddress",
    702: "cudaErrorLaunchTimeout",
    710: "cudaErrorAssert",
    714: "cudaErrorHardwareStackError",
    715: "cudaErrorIllegalInstruction",
    716: "cudaErrorMisalignedAddress",
    717: "cudaErrorInvalidAddressSpace",
    718: "cudaErrorInvalidPc",
    719: "cudaErrorLaunchFailure",
    721: "cudaErrorTensorMemoryLeak",
    810: "cudaErrorMpsClientTerminated",
    911: "cudaErrorExternalDevice",
}
"""After these, by the documentation of ``cudaError_t``, "the process must be terminated and
relaunched". Any other error is the failure of one call.
"""

OUT_OF_MEMORY: Final = 2
"""``cudaErrorMemoryAllocation``."""


class OutOfDeviceMemory(Exception):
    """The GPU does not have enough free memory."""


class NoGpu(Exception):
    """There is no GPU that CUDA can use; the message says why."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that inference runs on.

    Attributes:
        name: NVIDIA's name for it.
        architecture: its compute capability, such as ``8.9``.
        bus: its address on the PCI bus; other libraries find the same GPU by it.
        multiprocessors: how many it has; cards with the same name may differ.
        driver: major version of the driver, such as ``580``; ``unknown`` if nothing reports it.
    """

    name: str
    architecture: str
    bus: str
    multiprocessors: int = 0
    driver: str = "unknown"


class Cuda:
    """CUDA's runtime for device 0.

    Every call raises `OutOfDeviceMemory` if memory runs out, `EncoderLost` for errors that CUDA
    documents as final, and `EncoderFault` for anything else. Since work is asynchronous, the error
    may be from an earlier call.
    """

    def __init__(self, runtime: Any = None) -> None:
        """Load the bindings.

        Args:
            runtime: replaces ``cuda.bindings.runtime``.
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
            multiprocessors=int(properties.multiProcessorCount),
            driver=(driver_version() or "unknown").partition(".")[0],
        )

    def stream(self) -> Any:
        """A new stream that does not wait for others."""
        self._call("cudaSetDevice", _DEVICE)
        return self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)

    def destroy_stream(self, stream: Any) -> None:
        """End it."""
        self._call("cudaStreamDestroy", stream)

    def event(self) -> Any:
        """A new event; a thread that waits for it sleeps and uses no core."""
        flags = self._runtime.cudaEventBlockingSync | self._runtime.cudaEventDisableTiming
        return self._call("cudaEventCreateWithFlags", flags)

    def destroy_event(self, event: Any) -> None:
        """End it."""
        self._call("cudaEventDestroy", event)

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

    def free_bytes(self) -> int:
        """Device memory that is free now."""
        error, free, _ = self._runtime.cudaMemGetInfo()
        if error != self._runtime.cudaError_t.cudaSuccess:
            self._raise(error, "cudaMemGetInfo")
        return int(free)

    def to_device(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy from pinned memory, in the stream's order."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def to_host(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy to pinned memory, in the stream's order."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def wait_for(self, stream: Any, event: Any) -> None:
        """Return once everything in the stream is done; the thread sleeps meanwhile."""
        self._call("cudaEventRecord", event, stream)
        self._call("cudaEventSynchronize", event)

    def begin_capture(self, stream: Any) -> None:
        """From now on, record this thread's work in the stream instead of running it."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        """The recorded work, ready to be launched any number of times."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: Any) -> None:
        """Run the recorded work, with the same addresses."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        """End it."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *results = getattr(self._runtime, name)(*arguments)
        if error != self._runtime.cudaError_t.cudaSuccess:
            self._raise(error, name)
        return results[0] if results else None

    def _raise(self, error: Any, name: str) -> NoReturn:
        called = f"{getattr(error, 'name', error)} in {name}"
        if int(error) in FINAL_ERRORS:
            raise EncoderLost(f"the GPU failed: {called}.")
        self._runtime.cudaGetLastError()  # or the next call would report it again
        if int(error) == OUT_OF_MEMORY:
            raise OutOfDeviceMemory(f"{name} ran out of memory")
        raise EncoderFault(f"the GPU refused a call: {called}")


class Allocations:
    """One owner's resources on the GPU; `close` releases them in reverse order.

    Used from one thread at a time.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._held: dict[tuple[str, int], Callable[[], None]] = {}

    def stream(self) -> Any:
        """As `Cuda.stream`."""
        stream = self._cuda.stream()
        return self._hold("stream", stream, lambda: self._cuda.destroy_stream(stream))

    def event(self) -> Any:
        """As `Cuda.event`."""
        event = self._cuda.event()
        return self._hold("event", event, lambda: self._cuda.destroy_event(event))

    def device_memory(self, size: int) -> int:
        """As `Cuda.device_memory`."""
        address = self._cuda.device_memory(size)
        self._hold("device", address, lambda: self._cuda.free_device_memory(address))
        return address

    def pinned_memory(self, size: int) -> int:
        """As `Cuda.pinned_memory`."""
        address = self._cuda.pinned_memory(size)
        self._hold("pinned", address, lambda: self._cuda.free_pinned_memory(address))
        return address

    def captured(self, stream: Any) -> Any:
        """As `Cuda.end_capture`."""
        graph = self._cuda.end_capture(stream)
        return self._hold("graph", graph, lambda: self._cuda.destroy_graph(graph))

    def free(self, *kinds: str) -> None:
        """Release all ``device`` and ``pinned`` memory, or all ``graph``s."""
        for key in reversed([key for key in self._held if key[0] in kinds]):
            self._held.pop(key)()

    def close(self) -> None:
        """Release everything. Never raises: on a lost device nothing can be released."""
        while self._held:
            _, free = self._held.popitem()
            with suppress(EncoderLost, EncoderFault, OutOfDeviceMemory):
                free()

    def _hold(self, kind: str, handle: Any, free: Callable[[], None]) -> Any:
        self._held[kind, int(handle)] = free
        return handle


def why_no_gpu(
    cuda: int | None,
    otherwise: str,
    *,
    find_version: Callable[[], str | None] | None = None,
    visible: str | None = None,
) -> str:
    """Why CUDA finds no GPU that it can use, as the end of a sentence.

    CUDA itself reports the same error for a driver that is too old, one whose library is not in the
    container, and one that is missing.

    Args:
        cuda: major version of the CUDA that was used; None: unknown.
        otherwise: CUDA's own message.
        find_version: of the driver; None asks the kernel module, then NVML.
        visible: replaces ``CUDA_VISIBLE_DEVICES``.
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
    """The NVIDIA driver's version; None if nothing reports it.

    Args:
        nvml: replaces ``pynvml``, which is used if the kernel module has no file, as under WSL2.
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
    except (ImportError, RuntimeError, NoGpu, EncoderLost, EncoderFault):
        return None


def as_array(address: int, shape: tuple[int, ...], dtype: np.dtype[Any] = _FLOAT32) -> NDArray[Any]:
    """Host memory at an address, as an array; valid until it is freed."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = memoryview((ctypes.c_ubyte * size).from_address(address))
    seen: NDArray[Any] = np.frombuffer(memory, dtype=dtype).reshape(shape)
    return seen


class ProcessMemory:
    """Device memory that this process uses, from NVIDIA's management library (NVML).

    Counts everything in this process, not one library's share. NVML takes milliseconds, and much
    longer while the driver is busy. So a separate thread calls it, never the reader.
    """

    def __init__(self, gpu: Gpu, nvml: Any = None) -> None:
        """Call NVML for the first time.

        Args:
            gpu: found by its PCI address, since NVML numbers devices in its own order.
            nvml: instead of ``pynvml``.
        """
        self._bus = gpu.bus
        self._nvml = nvml
        self._handle: Any = None
        self._asking = threading.Lock()
        self._used: int | None = None
        self._asked_s = 0.0
        self._asking.acquire()
        self._ask()

    def used(self) -> int | None:
        """Bytes, as of the last read. Starts a new NVML call, and returns at once.

        None if NVML is missing or does not report it (in some containers, on Windows).
        """
        old = time.monotonic() - self._asked_s > _OLD_S
        if old and self._asking.acquire(blocking=False):
            threading.Thread(target=self._ask, name="nvml", daemon=True).start()
        return self._used

    def wait(self) -> None:
        """Wait until no NVML call is running."""
        with self._asking:
            pass

    def _ask(self) -> None:
        try:
            self._used = self._measured()
        finally:
            self._asked_s = time.monotonic()
            self._asking.release()

    def _measured(self) -> int | None:
        try:
            if self._handle is None:
                self._nvml = self._nvml or importlib.import_module("pynvml")
                self._nvml.nvmlInit()
                self._handle = self._nvml.nvmlDeviceGetHandleByPciBusId(self._bus)
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except Exception:  # NVML's own errors, from a module that may be missing
            return None
        mine = [p.usedGpuMemory for p in processes if p.pid == os.getpid()]
        # A container's processes have different ids outside, and NVML uses those.
        if not mine and len(processes) == 1:
            mine = [processes[0].usedGpuMemory]
        # In some containers NVML reports 0 for a process that holds gigabytes.
        return int(mine[0]) if mine and mine[0] else None


def _text(name: bytes | str) -> str:
    plain = name.decode() if isinstance(name, bytes) else name
    return plain.split("\0", 1)[0]
