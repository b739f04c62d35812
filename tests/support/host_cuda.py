"""CUDA and TensorRT on host memory: what a GPU does and how it fails, and a count of what is held.

Work waits in its stream until somebody synchronises, and so do its failures. What CUDA documents as
final fails every later call. A captured graph repeats the addresses that it was captured with. What
a GPU really computes is left to `make gpu-check`.
"""

import ctypes
import enum
import itertools
import threading
import weakref
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from adapters.encoders.cuda import FINAL_ERRORS, Cuda
from adapters.encoders.tensorrt.library import TensorRt
from adapters.encoders.tensorrt.runner import TensorRtRunner
from adapters.images.preprocessing import normalised


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorAssert = 710
    cudaErrorLaunchFailure = 719
    cudaErrorNotPermitted = 800
    cudaErrorStreamCaptureInvalidated = 901
    cudaErrorUnknown = 999


OK = Status.cudaSuccess
DIMENSION = 5
SIDE = 224

Work = Callable[[], None]


class HostCuda:  # its names are those of the bindings
    """CUDA's runtime. ``room`` is the device's memory in bytes.

    ``fault`` is what the next work to be run ends with; it shows when somebody synchronises.
    """

    cudaError_t = Status
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaEventBlockingSync = 1
    cudaEventDisableTiming = 2
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice="to device", cudaMemcpyDeviceToHost="to host"
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, room: int = 10**9) -> None:
        self.room = room
        self.allocated: dict[int, Any] = {}
        self.pinned: set[int] = set()
        self.streams: dict[int, list[Work]] = {}
        self.events: dict[int, int] = {}
        self.capturing: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.fault: Status | None = None
        self.final: Status | None = None
        self.devices = 1
        self.errors_cleared = 0
        self.launches = 0
        self.instantiated = 0
        self.slept = 0
        self.most_streams_busy = 0
        self._handles = itertools.count(77)
        self._lock = threading.RLock()

    def held(self) -> dict[str, int]:
        """How much is held of everything that has to be given back."""
        return {
            "device": len(self.allocated) - len(self.pinned),
            "pinned": len(self.pinned),
            "streams": len(self.streams),
            "events": len(self.events),
            "graphs": len(self.graphs) + len(self.executables),
        }

    def used(self) -> int:
        """Bytes on the device."""
        return sum(
            len(memory) for address, memory in self.allocated.items() if address not in self.pinned
        )

    # --- What the bindings have -----------------------------------------------------------------

    def cudaGetDeviceCount(self) -> tuple[Status, int]:
        return (OK, self.devices) if self.devices else (Status.cudaErrorNoDevice, 0)

    def cudaRuntimeGetVersion(self) -> tuple[Status, int]:
        return OK, 13000

    def cudaGetDeviceProperties(self, device: int) -> tuple[Status, Any]:
        return OK, SimpleNamespace(
            name=b"NVIDIA Test\0\0", major=8, minor=9, multiProcessorCount=58
        )

    def cudaDeviceGetPCIBusId(self, length: int, device: int) -> tuple[Status, bytes]:
        return OK, b"0000:41:00.0\0\0\0"

    def cudaSetDevice(self, device: int) -> tuple[Status]:
        return (self.final or OK,)

    def cudaGetLastError(self) -> tuple[Status]:
        self.errors_cleared += 1
        return (OK,)

    def cudaMemGetInfo(self) -> tuple[Status, int, int]:
        return self.final or OK, self.room - self.used(), self.room

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Status, int | None]:
        return self._made(self.streams, [])

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:
        return self._ended(self.streams, stream)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Status, int | None]:
        assert flags == 3, "a thread that waits has to sleep"
        return self._made(self.events, 0)

    def cudaEventDestroy(self, event: int) -> tuple[Status]:
        return self._ended(self.events, event)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Status]:
        assert stream not in self.capturing
        self.events[event] = stream
        return (self.final or OK,)

    def cudaEventSynchronize(self, event: int) -> tuple[Status]:
        self.slept += 1
        return (self._run(self.events[event]),)

    def cudaMalloc(self, size: int) -> tuple[Status, int | None]:
        if self.final:
            return self.final, None
        with self._lock:
            if self.used() + size > self.room:
                return Status.cudaErrorMemoryAllocation, None
            return OK, self._allocate(size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Status, int | None]:
        if self.final:
            return self.final, None
        with self._lock:
            address = self._allocate(size)
            self.pinned.add(address)
        return OK, address

    def cudaFree(self, address: int) -> tuple[Status]:
        assert address not in self.pinned
        for stream in tuple(self.streams):  # as the real one, it waits for the device
            self._run(stream)
        return self._ended(self.allocated, address)

    def cudaFreeHost(self, address: int) -> tuple[Status]:
        self.pinned.remove(address)
        return self._ended(self.allocated, address)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: str, stream: int
    ) -> tuple[Status]:
        if self.final:
            return (self.final,)
        host, device = (source, target) if kind == "to device" else (target, source)
        assert host in self.pinned
        assert device not in self.pinned
        assert size <= min(len(self.allocated[target]), len(self.allocated[source]))

        def copy() -> None:
            assert {target, source} <= self.allocated.keys(), "memory was freed too early"
            ctypes.memmove(target, source, size)

        self.enqueue(stream, copy)
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Status]:
        assert not self.streams[stream], "work before a capture would be lost"
        self.capturing[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, int | None]:
        work = self.capturing.pop(stream)
        if not work:
            return Status.cudaErrorStreamCaptureInvalidated, None
        return self._made(self.graphs, work)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Status, int | None]:
        self.instantiated += 1
        return self._made(self.executables, self.graphs[graph])

    def cudaGraphDestroy(self, graph: int) -> tuple[Status]:
        return self._ended(self.graphs, graph)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Status]:
        return self._ended(self.executables, graph)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Status]:
        self.launches += 1
        for work in self.executables[graph]:
            self.enqueue(stream, work)
        return (self.final or OK,)

    # --- How it works -----------------------------------------------------------------------------

    def enqueue(self, stream: int, work: Work) -> None:
        with self._lock:
            self.capturing.get(stream, self.streams[stream]).append(work)
            busy = sum(bool(waiting) for waiting in self.streams.values())
            self.most_streams_busy = max(self.most_streams_busy, busy)

    def _run(self, stream: int) -> Status:
        with self._lock:
            if self.final:
                return self.final
            work = self.streams[stream][:]
            self.streams[stream].clear()
            if work and self.fault is not None:
                fault, self.fault = self.fault, None
                if int(fault) in FINAL_ERRORS:
                    self.final = fault
                return fault
            for step in work:
                step()
            return OK

    def _allocate(self, size: int) -> int:
        memory = ctypes.create_string_buffer(size)
        self.allocated[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def _made(self, kind: dict[int, Any], value: Any) -> tuple[Status, int | None]:
        if self.final:
            return self.final, None
        with self._lock:
            handle = next(self._handles)
            kind[handle] = value
        return OK, handle

    def _ended(self, kind: dict[int, Any], handle: int) -> tuple[Status]:
        """Give back; a device that is lost takes nothing back, and the process has to end."""
        if self.final:
            return (self.final,)
        with self._lock:
            del kind[handle]
        return (OK,)


class Context:
    """An execution context that averages each image and needs 1000 bytes for each."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.memory = (0, 0)
        self.profile = 0
        engine.contexts.add(self)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream in self.engine.cuda.streams
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "pixel_values"
        smallest, _, largest = self.engine.profiles[self.profile]
        if not smallest[0] <= shape[0] <= largest[0]:
            return False
        self.shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return 1000 * self.shape[0]

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = (address, size)

    def execute_async_v3(self, stream: int) -> bool:
        engine, cuda = self.engine, self.engine.cuda
        if engine.refusal is not None:
            engine.say(engine.refusal)
            return False
        if stream in cuda.capturing and engine.uncapturable:
            cuda.capturing[stream].clear()
            engine.say("operation not permitted when stream is capturing")
            return False
        (address, size), shape, addresses = self.memory, self.shape, dict(self.addresses)
        assert size >= 1000 * shape[0]
        assert len(cuda.allocated[address]) >= size
        engine.calls.append(shape[0])
        engine.profiles_used.append(self.profile)
        wrong = engine.wrong_at == shape[0]

        def work() -> None:
            assert address in cuda.allocated, "memory was freed too early"
            levels = engine.input_dtype == "uint8"
            kind = ctypes.c_uint8 if levels else ctypes.c_float
            source = (kind * int(np.prod(shape))).from_address(addresses["pixel_values"])
            images = np.ctypeslib.as_array(source).reshape(shape)
            images = normalised(images) if levels else images
            rows = (ctypes.c_float * (shape[0] * DIMENSION)).from_address(addresses["image_embeds"])
            made = images.mean(axis=(1, 2, 3))[:, None] + np.arange(DIMENSION)
            # As TensorRT does now and then: right for one image, wrong for several.
            made[1:] = -made[1:] if wrong else made[1:]
            np.ctypeslib.as_array(rows).reshape(shape[0], DIMENSION)[...] = made

        cuda.enqueue(stream, work)
        return True


class Engine:
    """An engine with a profile of 1 to 4 and one of 5 to 8; attributes may be changed.

    ``refusal`` is what it says when it refuses to run, ``wrong_at`` a batch size at which it
    computes nonsense, ``uncapturable`` whether it cannot be part of a CUDA graph.
    """

    def __init__(self, cuda: HostCuda) -> None:
        self.cuda = cuda
        self.contexts: weakref.WeakSet[Context] = weakref.WeakSet()
        self.room_for_contexts = True
        self.names = ["pixel_values", "image_embeds"]
        self.dtype = "float32"
        self.input_dtype = "float32"
        image = (3, SIDE, SIDE)
        self.profiles: list[list[tuple[int, ...]]] = [
            [(1, *image), (1, *image), (4, *image)],
            [(5, *image), (8, *image), (8, *image)],
        ]
        self.calls: list[int] = []
        self.profiles_used: list[int] = []
        self.refusal: str | None = None
        self.wrong_at: int | None = None
        self.uncapturable = False
        self.runtime_caches: list[RuntimeCache] = []
        self.say: Callable[[str], None] = lambda message: None

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> str:
        return self.input_dtype if name == "pixel_values" else self.dtype

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert name == "pixel_values"
        return self.profiles[profile]

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        assert name == "image_embeds"
        return (-1, DIMENSION)

    def create_runtime_config(self) -> "RuntimeConfig":
        return RuntimeConfig(self)

    def create_execution_context(self, how: "str | RuntimeConfig") -> Context | None:
        if isinstance(how, RuntimeConfig):
            assert how.strategy == "user managed"
            assert how.cuda_graph_strategy == "whole graph"
            assert how.cache is not None
            how.cache.kernels.add("compiled")
        else:
            assert how == "user managed"
        return Context(self) if self.room_for_contexts else None


class RuntimeCache:
    """Kernels that TensorRT for RTX has compiled; takes back only what it has written."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"kernels:"):
            return False
        self.kernels = set(blob.decode().split(":")[1:])
        return True

    def serialize(self) -> bytes:
        return ":".join(["kernels", *sorted(self.kernels)]).encode()


class RuntimeConfig:
    """How an execution context of TensorRT for RTX is made."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.strategy = ""
        self.cuda_graph_strategy = ""
        self.cache: RuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        self.engine.runtime_caches.append(RuntimeCache())
        return self.engine.runtime_caches[-1]

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class _Logger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

    def log(self, severity: int, msg: str) -> None:
        raise NotImplementedError


class Tensorrt(ModuleType):
    """The module: a runtime that deserialises to one engine, or says why it doesn't."""

    float32 = "float32"
    uint8 = "uint8"
    ILogger = _Logger
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")

    def __init__(self, engine: Engine) -> None:
        super().__init__("tensorrt")
        self.engine = engine
        self.runtimes: weakref.WeakSet[_Runtime] = weakref.WeakSet()
        self.refusal: str | None = None

    def Runtime(self, logger: _Logger) -> "_Runtime":
        return _Runtime(self, logger)


class _Runtime:
    def __init__(self, trt: Tensorrt, logger: _Logger) -> None:
        self.trt = trt
        self.logger = logger
        trt.runtimes.add(self)

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        if data != b"engine" or self.trt.refusal is not None:
            self.logger.log(1, self.trt.refusal or "magic tag does not match")
            return None
        logger = self.logger  # and not the runtime, which is counted
        self.trt.engine.say = lambda message: logger.log(1, message)
        return self.trt.engine


def held(trt: Tensorrt) -> dict[str, int]:
    """Everything that is held, TensorRT's own objects too."""
    return {
        **trt.engine.cuda.held(),
        "contexts": len(trt.engine.contexts),
        "runtimes": len(trt.runtimes),
    }


def opened(
    trt: Tensorrt, data: bytes = b"engine", *, name: str = "tensorrt", **changes: Any
) -> TensorRtRunner:
    """A runner on such a device."""
    return TensorRtRunner(TensorRt(name, "11.4", trt), data, cuda=Cuda(trt.engine.cuda), **changes)
