"""The lines that need a GPU, run against a CUDA and a TensorRT made of host memory.

What they cannot show is that a GPU does the same; `make gpu-check` does, on a machine with one.
"""

import ctypes
import enum
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adapters.encoders.cuda import Cuda, Gpu, NoGpu, OutOfDeviceMemory
from adapters.encoders.tensorrt.engine_file import EngineUnusable
from adapters.encoders.tensorrt.library import TensorRt, find_tensorrt
from adapters.encoders.tensorrt.runner import TensorRtRunner
from application.ports import EncoderLost, PixelBatch

Status = enum.Enum(
    "Status",
    ["cudaSuccess", "cudaErrorMemoryAllocation", "cudaErrorIllegalAddress", "cudaErrorNoDevice"],
)
OK = Status.cudaSuccess
DIMENSION = 5


class HostCuda:  # its names are those of the bindings
    """CUDA's runtime on host memory. Work waits in the stream until it is synchronised."""

    cudaError_t = Status
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice="to device", cudaMemcpyDeviceToHost="to host"
    )

    def __init__(self, room: int = 10**9) -> None:
        self.room = room
        self.allocated: dict[int, Any] = {}
        self.pinned: set[int] = set()
        self.stream: list[Callable[[], object]] = []
        self.failure: Status | None = None
        self.devices = 1
        self.errors_cleared = 0

    def used(self) -> int:
        return sum(
            len(memory) for address, memory in self.allocated.items() if address not in self.pinned
        )

    def cudaGetDeviceCount(self) -> tuple[Status, int]:
        return (OK, self.devices) if self.devices else (Status.cudaErrorNoDevice, 0)

    def cudaRuntimeGetVersion(self) -> tuple[Status, int]:
        return OK, 13000

    def cudaGetDeviceProperties(self, device: int) -> tuple[Status, Any]:
        return OK, SimpleNamespace(name=b"NVIDIA Test\0\0", major=8, minor=9)

    def cudaDeviceGetPCIBusId(self, length: int, device: int) -> tuple[Status, bytes]:
        return OK, b"0000:41:00.0\0\0\0"

    def cudaSetDevice(self, device: int) -> tuple[Status]:
        return (OK,)

    def cudaGetLastError(self) -> tuple[Status]:
        self.errors_cleared += 1
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Status, int]:
        return OK, 77

    def cudaMalloc(self, size: int) -> tuple[Status, int | None]:
        if self.used() + size > self.room:
            return Status.cudaErrorMemoryAllocation, None
        memory = ctypes.create_string_buffer(size)
        self.allocated[ctypes.addressof(memory)] = memory
        return OK, ctypes.addressof(memory)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Status, int]:
        memory = ctypes.create_string_buffer(size)
        self.allocated[ctypes.addressof(memory)] = memory
        self.pinned.add(ctypes.addressof(memory))
        return OK, ctypes.addressof(memory)

    def cudaFree(self, address: int) -> tuple[Status]:
        assert address not in self.pinned
        del self.allocated[address]
        return (OK,)

    def cudaFreeHost(self, address: int) -> tuple[Status]:
        self.pinned.remove(address)
        del self.allocated[address]
        return (OK,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: str, stream: int
    ) -> tuple[Status]:
        assert stream == 77
        host = source if kind == "to device" else target
        device = target if kind == "to device" else source
        assert host in self.pinned
        assert device not in self.pinned
        assert size <= min(len(self.allocated[target]), len(self.allocated[source]))
        self.stream.append(lambda: ctypes.memmove(target, source, size))
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:
        work, self.stream = self.stream, []
        for step in work:
            step()
        return (self.failure or OK,)


class Context:
    """An execution context that sums up each image and needs 1000 bytes for each."""

    def __init__(self, cuda: HostCuda) -> None:
        self.cuda = cuda
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.memory = (0, 0)
        self.refuses = False
        self.calls: list[int] = []

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "pixel_values"
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
        if self.refuses:
            return False
        assert stream == 77
        address, size = self.memory
        assert size >= 1000 * self.shape[0]
        assert len(self.cuda.allocated[address]) >= size
        shape = self.shape
        self.calls.append(shape[0])

        def work() -> None:
            size = int(np.prod(shape))
            source = (ctypes.c_float * size).from_address(self.addresses["pixel_values"])
            images = np.ctypeslib.as_array(source).reshape(shape)
            rows = (ctypes.c_float * (shape[0] * DIMENSION)).from_address(
                self.addresses["image_embeds"]
            )
            np.ctypeslib.as_array(rows).reshape(shape[0], DIMENSION)[...] = images.mean(
                axis=(1, 2, 3)
            )[:, None] + np.arange(DIMENSION)

        self.cuda.stream.append(work)
        return True


class Engine:
    """An engine with a profile of 1 to 8; attributes may be changed to make it another's."""

    def __init__(self, cuda: HostCuda) -> None:
        self.context: Context | None = Context(cuda)
        self.names = ["pixel_values", "image_embeds"]
        self.dtype = "float32"
        self.profile: list[tuple[int, ...]] = [(1, 3, 224, 224), (4, 3, 224, 224), (8, 3, 224, 224)]

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> str:
        return self.dtype

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("pixel_values", 0)
        return self.profile

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        assert name == "image_embeds"
        return (-1, DIMENSION)

    def create_execution_context(self, strategy: str) -> Context | None:
        assert strategy == "user managed"
        return self.context


class Tensorrt(ModuleType):
    """The module: a runtime that deserialises to one engine."""

    float32 = "float32"
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")

    def __init__(self, engine: Engine | None) -> None:
        super().__init__("tensorrt")
        self.Runtime = lambda logger: SimpleNamespace(
            deserialize_cuda_engine=lambda data: engine if data == b"engine" else None
        )
        self.Logger = type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None})


@pytest.fixture
def cuda() -> HostCuda:
    return HostCuda()


@pytest.fixture
def engine(cuda: HostCuda) -> Engine:
    return Engine(cuda)


def opened(cuda: HostCuda, engine: Engine, data: bytes = b"engine") -> TensorRtRunner:
    return TensorRtRunner(TensorRt("tensorrt", "11.4", Tensorrt(engine)), data, cuda=Cuda(cuda))


def images(count: int, first: int = 0) -> PixelBatch:
    numbers = np.arange(first, first + count, dtype=np.float32)
    return np.broadcast_to(numbers[:, None, None, None], (count, 3, 224, 224)).copy()


def check(rows: np.ndarray, count: int, first: int = 0) -> None:
    expected = np.arange(first, first + count)[:, None] + np.arange(DIMENSION)
    np.testing.assert_allclose(rows, expected, rtol=1e-4)
    assert rows.dtype == np.float32


def test_every_batch_size_in_any_order(cuda: HostCuda, engine: Engine) -> None:
    runner = opened(cuda, engine)
    assert runner.largest_batch == 8
    for count in (3, 1, 8, 2, 8, 5):
        check(runner.run(images(count, first=count)), count, first=count)


def test_answers_outlive_the_next_call(cuda: HostCuda, engine: Engine) -> None:
    runner = opened(cuda, engine)
    first = runner.run(images(2))
    runner.run(images(2, first=7))
    check(first, 2)


def test_memory_is_reused_and_grows_only_with_the_batch(cuda: HostCuda, engine: Engine) -> None:
    runner = opened(cuda, engine)
    runner.run(images(4))
    known, used = set(cuda.allocated), cuda.used()
    for count in (1, 4, 2, 3):
        runner.run(images(count))
    assert set(cuda.allocated) == known
    runner.run(images(8))
    assert cuda.used() == pytest.approx(2 * used, rel=0.01)
    assert len(cuda.allocated) == 5


def test_lack_of_memory_is_told_and_a_smaller_batch_still_runs(
    cuda: HostCuda, engine: Engine
) -> None:
    runner = opened(cuda, engine)
    cuda.room = 3 * (3 * 224 * 224 * 4 + DIMENSION * 4 + 1000)
    for _ in range(2):
        with pytest.raises(OutOfDeviceMemory):
            runner.run(images(4))
        check(runner.run(images(3)), 3)
    assert cuda.errors_cleared == 2
    cuda.room = 10**9
    check(runner.run(images(8)), 8)
    assert len(cuda.allocated) == 5


def test_a_device_that_fails_is_lost(cuda: HostCuda, engine: Engine) -> None:
    runner = opened(cuda, engine)
    runner.run(images(1))
    cuda.failure = Status.cudaErrorIllegalAddress
    with pytest.raises(EncoderLost, match="cudaErrorIllegalAddress in cudaStreamSynchronize"):
        runner.run(images(1))


def test_an_engine_that_refuses_to_run_is_lost(cuda: HostCuda, engine: Engine) -> None:
    runner = opened(cuda, engine)
    assert engine.context is not None
    engine.context.refuses = True
    with pytest.raises(EncoderLost, match="could not be run"):
        runner.run(images(1))


def test_what_is_no_image_tower_is_refused(cuda: HostCuda, engine: Engine) -> None:
    with pytest.raises(EngineUnusable, match=r"tensorrt 11\.4 refuses the engine"):
        opened(cuda, engine, data=b"junk")
    engine.dtype = "float16"
    with pytest.raises(EngineUnusable, match="not float32"):
        opened(cuda, engine)
    engine.dtype = "float32"
    engine.profile[0] = (2, 3, 224, 224)
    with pytest.raises(EngineUnusable, match="not single images"):
        opened(cuda, engine)
    engine.names = ["input_ids", "text_embeds"]
    with pytest.raises(EngineUnusable, match="no image tower"):
        opened(cuda, engine)


def test_without_memory_for_a_context(cuda: HostCuda, engine: Engine) -> None:
    engine.context = None
    with pytest.raises(OutOfDeviceMemory):
        opened(cuda, engine)


def test_the_gpu_is_described(cuda: HostCuda) -> None:
    assert Cuda(cuda).gpu() == Gpu("NVIDIA Test", "8.9", "0000:41:00.0")
    cuda.devices = 0
    with pytest.raises(NoGpu, match="cudaErrorNoDevice"):
        Cuda(cuda).gpu()


def test_the_real_bindings_have_every_call_that_is_made() -> None:
    from cuda.bindings import runtime

    for name in vars(HostCuda):
        if name.startswith("cuda"):
            assert hasattr(runtime, name), name
    for status in Status:
        assert hasattr(runtime.cudaError_t, status.name)
    trt: Any = find_tensorrt().module
    for name in vars(Context):
        if not name.startswith("_"):
            assert hasattr(trt.IExecutionContext, name), name
    for name in vars(Engine):
        if not name.startswith("_"):
            assert hasattr(trt.ICudaEngine, name), name
    assert hasattr(trt.ExecutionContextAllocationStrategy, "USER_MANAGED")
    assert hasattr(trt.Runtime, "deserialize_cuda_engine")
    assert trt.float32
