"""Runs an engine: the interface to the code that needs a GPU, and that code."""

import logging
import queue
import weakref
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters.encoders.cuda import (
    CALLS_AT_ONCE,
    CALLS_BEFORE_GRAPH,
    MOST_GRAPHS,
    Allocations,
    Cuda,
    OutOfDeviceMemory,
    as_array,
)
from adapters.encoders.tensorrt.engine_file import EngineUnusable
from adapters.encoders.tensorrt.library import Messages, TensorRt, messages_of
from adapters.export.towers import IMAGE_INPUT, IMAGE_OUTPUT
from adapters.images.preprocessing import as_pixels, write_nearest_levels
from application.ports import EncoderLost, PixelBatch, RawEmbeddings
from domain.errors import EncoderFault

logger = logging.getLogger(__name__)

_FLOAT: Final = 4
"""Bytes of a float32."""


class EngineRunner(ABC):
    """An engine that is loaded and can be run, from `CALLS_AT_ONCE` threads at a time."""

    @property
    @abstractmethod
    def largest_batch(self) -> int:
        """Images that one call takes at most."""

    @abstractmethod
    def run(self, batch: PixelBatch) -> RawEmbeddings:
        """Run the image tower.

        Args:
            batch: 1 to `largest_batch` images.

        Returns:
            float32 ``[n, dimension]``, not normalised.

        Raises:
            OutOfDeviceMemory: not enough for this many images now; fewer may fit.
            EncoderFault: the engine refused this call.
            EncoderLost: the device failed.
        """

    def keep(self) -> None:  # noqa: B027 - most compile nothing at run time
        """Keep kernels compiled at run time for the next start."""

    def close(self) -> None:  # noqa: B027 - not all hold something
        """Release its device resources now, not when it is garbage-collected."""


class TensorRtRunner(EngineRunner):
    """An engine on a GPU. Each of the calls at once has a CUDA stream and buffers of its own.

    Buffers are sized by the largest batch seen so far and reused: pinned input and output on the
    host, input, output and the engine's activations on the device. Everything is released by
    `close`, or when the runner is garbage-collected.
    """

    def __init__(
        self,
        tensorrt: TensorRt,
        data: bytes,
        *,
        cuda: Cuda,
        captures_graphs: bool = True,
        runtime_cache: Path | None = None,
    ) -> None:
        """Load an engine.

        Args:
            tensorrt: the same version that built it.
            data: the serialised engine.
            cuda: the device.
            captures_graphs: whether batch sizes that come again are run as CUDA graphs.
            runtime_cache: where TensorRT for RTX keeps the kernels that it compiles at run time.

        Raises:
            EngineUnusable: it is not an engine for this device, or not an image tower.
            OutOfDeviceMemory: its weights do not fit.
            EncoderLost: the device failed.
        """
        loaded = _Loaded(tensorrt, data, cuda, captures_graphs, runtime_cache)
        self._loaded = loaded
        self._end = weakref.finalize(self, loaded.close)
        self._end.atexit = False  # the driver releases an ending process's resources
        try:
            loaded.open()
        except BaseException:
            self.close()
            raise

    @property
    def largest_batch(self) -> int:
        """See `EngineRunner.largest_batch`."""
        return self._loaded.shape.largest_batch

    def run(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EngineRunner.run`."""
        return self._loaded.run(batch)

    def keep(self) -> None:
        """See `EngineRunner.keep`."""
        self._loaded.keep()

    def close(self) -> None:
        """See `EngineRunner.close`; while no call is running."""
        self._end()


@dataclass(frozen=True, slots=True)
class _Shape:
    """The inputs and outputs of an image tower's engine.

    ``takes_levels`` says whether it takes uint8 and normalises itself. ``largest_of`` has, for each
    optimisation profile, the most images it is for.
    """

    side: int
    dimension: int
    takes_levels: bool
    largest_of: tuple[int, ...]

    @property
    def largest_batch(self) -> int:
        return max(self.largest_of)

    def profile_for(self, count: int) -> int:
        """The profile with the smallest range that fits this many images."""
        fitting = [n for n, largest in enumerate(self.largest_of) if largest >= count]
        return min(fitting, key=lambda n: self.largest_of[n])


class _Loaded:
    """A runner's resources; kept separately, so that a finaliser can release them."""

    def __init__(
        self,
        tensorrt: TensorRt,
        data: bytes,
        cuda: Cuda,
        captures_graphs: bool,
        runtime_cache: Path | None,
    ) -> None:
        self._runtime_cache = runtime_cache
        self._rtx: _RtxConfiguration | None = None
        self._tensorrt = tensorrt
        self._data: bytes | None = data
        self._cuda = cuda
        self._captures_graphs = captures_graphs
        self._runtime: Any = None
        self._engine: Any = None
        self._lanes: list[_Lane] = []
        self._free: queue.LifoQueue[_Lane] = queue.LifoQueue()
        self.shape = _Shape(0, 0, False, (0,))

    def open(self) -> None:
        """Load the engine onto the device."""
        trt, data = self._tensorrt.module, self._data
        self._data = None  # otherwise a gigabyte would stay in main memory
        assert data is not None
        messages = messages_of(trt)
        messages.forget()
        self._runtime = trt.Runtime(messages.logger)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            # TensorRT returns None if memory runs out, and also for an engine that it refuses.
            if messages.tell_of_memory or self._cuda.free_bytes() < len(data):
                raise OutOfDeviceMemory(f"the engine has {len(data) // 2**20} MiB")
            why = messages.errors or "its log says why"
            raise EngineUnusable(f"{self._tensorrt.identity} refuses the engine: {why}.")
        self.shape = _check(trt, self._engine)
        if self._tensorrt.for_rtx:
            self._rtx = _RtxConfiguration(trt, self._engine, self._runtime_cache)
        for _ in range(CALLS_AT_ONCE):
            lane = _Lane(self._tensorrt, self._engine, self._cuda, self.shape, messages, self._rtx)
            self._lanes.append(lane)
            lane.open(captures_graphs=self._captures_graphs)
        for lane in reversed(self._lanes):
            self._free.put(lane)

    def run(self, batch: PixelBatch) -> RawEmbeddings:
        # The last used lane comes first: with one call at a time, the other one takes no memory.
        lane = self._free.get()
        try:
            return lane.run(batch)
        finally:
            self._free.put(lane)

    def keep(self) -> None:
        if self._rtx is not None:
            self._rtx.keep()

    def close(self) -> None:
        """In this order: TensorRT's objects use CUDA's, and contexts their engine."""
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._free = queue.LifoQueue()
        self._rtx = None
        self._engine = None
        self._runtime = None


@dataclass(slots=True)
class _Repeated:
    """A frequent batch size: its context, and its graph once it is captured."""

    context: Any
    graph: Any = None


@dataclass(slots=True)
class _Lane:
    """One call at a time: a stream, execution contexts and buffers."""

    tensorrt: TensorRt
    engine: Any
    cuda: Cuda
    shape: _Shape
    messages: Messages
    rtx: "_RtxConfiguration | None" = None
    capacity: int = 0
    pinned: tuple[int, int] = (0, 0)
    device: tuple[int, int] = (0, 0)
    activations: tuple[int, int] = (0, 0)
    """Address and size."""
    stream: Any = None
    event: Any = None
    captures_graphs: bool = False
    contexts: dict[int, Any] = field(default_factory=dict)
    """Of each profile that was used."""
    repeated: dict[int, _Repeated] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)
    """By the number of images."""
    buffers: Allocations = field(init=False)
    owned: Allocations = field(init=False)

    def __post_init__(self) -> None:
        self.owned = Allocations(self.cuda)
        self.buffers = Allocations(self.cuda)

    def open(self, *, captures_graphs: bool) -> None:
        """Create the resources that every call needs."""
        self.stream = self.owned.stream()
        self.event = self.owned.event()
        # TensorRT for RTX captures its graphs itself; see `_context`.
        self.captures_graphs = captures_graphs and not self.tensorrt.for_rtx
        self.contexts[0] = self._context(0)

    def run(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EngineRunner.run`."""
        try:
            return self._run(batch)
        except OutOfDeviceMemory:
            self._give_back()  # to make room for a smaller batch, or for others
            raise

    def close(self) -> None:
        """Give back everything."""
        with suppress(EncoderLost, EncoderFault):  # on a lost device nothing can be released
            self._drop_graphs()
        self.contexts.clear()
        self.buffers.close()
        self.owned.close()
        self.engine = None
        self.rtx = None

    def _run(self, batch: PixelBatch) -> RawEmbeddings:
        count = len(batch)
        self._reserve(count)
        repeated = self._repeated(count)
        if repeated is None or repeated.graph is None:
            context = self._prepared(count, None if repeated is None else repeated.context)
            if count not in self.repeated:  # the buffers have moved
                repeated = None
        host_in, host_out = self.pinned
        if self.shape.takes_levels:
            write_nearest_levels(batch, as_array(host_in, batch.shape, np.dtype(np.uint8)))
        else:
            as_array(host_in, batch.shape)[...] = as_pixels(batch)
        if repeated is not None and repeated.graph is not None:
            self.cuda.launch(repeated.graph, self.stream)
        else:
            self._enqueue(context, count)
        self.cuda.wait_for(self.stream, self.event)
        rows = np.array(as_array(host_out, (count, self.shape.dimension)))
        if repeated is not None and repeated.graph is None:
            self._capture(repeated, count)
        return rows

    def _enqueue(self, context: Any, count: int, *, capturing: bool = False) -> None:
        """Copy in, compute and copy out, in the stream's order; or only record these steps."""
        (host_in, host_out), (device_in, device_out) = self.pinned, self.device
        size_in, size_out = self._sizes(count)
        self.cuda.to_device(device_in, host_in, size_in, self.stream)
        self.messages.forget()
        if not context.execute_async_v3(int(self.stream)):
            why = self.messages.errors or "its log says why"
            if self.messages.tell_of_memory:
                raise OutOfDeviceMemory(f"the engine ran out of memory for {count} images: {why}")
            if not capturing:
                self.cuda.wait_for(self.stream, self.event)  # raises CUDA's own error
            raise EncoderFault(f"the engine could not be run with {count} images: {why}")
        self.cuda.to_host(host_out, device_out, size_out, self.stream)

    def _prepared(self, count: int, context: Any) -> Any:
        """A context that is ready for this many images."""
        if context is None:
            profile = self.shape.profile_for(count)
            if profile not in self.contexts:
                self.contexts[profile] = self._context(profile)
            context = self.contexts[profile]
        side = self.shape.side
        if not context.set_input_shape(IMAGE_INPUT, (count, 3, side, side)):
            raise EncoderFault(f"the engine refuses {count} images")
        # A new shape may change how the activations' memory is divided.
        self._reserve_activations(int(context.update_device_memory_size_for_shapes()))
        context.set_device_memory(*self.activations)
        for name, address in zip((IMAGE_INPUT, IMAGE_OUTPUT), self.device, strict=True):
            if not context.set_tensor_address(name, address):
                raise EncoderFault(f"the engine refuses the address of {name}")
        return context

    def _context(self, profile: int) -> Any:
        trt = self.tensorrt.module
        how = (
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
            if self.rtx is None
            else self.rtx.configuration
        )
        context = self.engine.create_execution_context(how)
        if context is None:
            raise OutOfDeviceMemory("no memory for an execution context")
        if profile and not context.set_optimization_profile_async(profile, int(self.stream)):
            raise EncoderFault(f"the engine refuses its profile {profile}")
        return context

    # --- CUDA graphs --------------------------------------------------------------------------

    def _repeated(self, count: int) -> _Repeated | None:
        """The batch size, if it has come often enough for a graph."""
        if not self.captures_graphs:
            return None
        if count in self.repeated:
            return self.repeated[count]
        self.calls[count] = self.calls.get(count, 0) + 1
        if self.calls[count] <= CALLS_BEFORE_GRAPH or len(self.repeated) >= MOST_GRAPHS:
            return None
        self.repeated[count] = _Repeated(self._context(self.shape.profile_for(count)))
        return self.repeated[count]

    def _capture(self, repeated: _Repeated, count: int) -> None:
        """Capture the last call; TensorRT must have run it once with this context."""
        self.cuda.begin_capture(self.stream)
        try:
            self._enqueue(repeated.context, count, capturing=True)
        except (EncoderFault, OutOfDeviceMemory) as refused:
            self.captures_graphs = False
            logger.warning("going on without CUDA graphs: %s", str(refused))  # and no traceback
        try:
            repeated.graph = self.owned.captured(self.stream)
        except (EncoderFault, OutOfDeviceMemory) as refused:
            self.captures_graphs = False
            logger.warning("going on without CUDA graphs: %s", str(refused))  # and no traceback
        if not self.captures_graphs:
            self._drop_graphs()

    def _drop_graphs(self) -> None:
        """Drop the graphs, whose addresses are out of date; they are captured again."""
        self.repeated.clear()
        self.owned.free("graph")

    # --- Memory -------------------------------------------------------------------------------

    def _sizes(self, count: int) -> tuple[int, int]:
        """Bytes of this many images, and of their embeddings."""
        pixel = 1 if self.shape.takes_levels else _FLOAT
        return count * 3 * self.shape.side**2 * pixel, count * self.shape.dimension * _FLOAT

    def _reserve(self, count: int) -> None:
        """Make the buffers large enough for ``count`` images."""
        if count <= self.capacity:
            return
        self._give_back()
        size_in, size_out = self._sizes(count)
        self.pinned = self.buffers.pinned_memory(size_in), self.buffers.pinned_memory(size_out)
        self.device = self.buffers.device_memory(size_in), self.buffers.device_memory(size_out)
        self.capacity = count

    def _reserve_activations(self, needed: int) -> None:
        """Make room for the activations of the shape that was set."""
        if needed <= self.activations[1]:
            return
        # The captured graphs point to the old place.
        self._drop_graphs()
        self.activations = (0, 0)
        self.owned.free("device")
        self.activations = self.owned.device_memory(needed), needed

    def _give_back(self) -> None:
        """All memory; the next call reserves what it needs."""
        self._drop_graphs()
        self.capacity = 0
        self.activations = (0, 0)
        self.buffers.free("device", "pinned")
        self.owned.free("device")


class _RtxConfiguration:
    """Settings for contexts of TensorRT for RTX: its own CUDA graphs, and a cache that is kept.

    It compiles kernels at run time, which takes seconds at each start without the cache.
    """

    def __init__(self, trt: Any, engine: Any, place: Path | None) -> None:
        self._place = place
        self.configuration = engine.create_runtime_config()
        self.configuration.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        self.configuration.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._cache = self.configuration.create_runtime_cache()
        if place is not None and place.is_file():
            # TensorRT itself checks that it is for this card, driver and version.
            with suppress(OSError):
                if not self._cache.deserialize(place.read_bytes()):
                    logger.info("%s is for another card, driver or version; not used", place)
        self.configuration.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write the cache; if that fails, the next start compiles again."""
        if self._place is None:
            return
        try:
            scratch = self._place.with_name(self._place.name + ".new")
            scratch.write_bytes(bytes(self._cache.serialize()))
            scratch.replace(self._place)
        except OSError as failure:
            logger.info("%s cannot be written: %s", self._place, failure.strerror)


def _check(trt: Any, engine: Any) -> _Shape:
    """The inputs and outputs of an engine, if it is an image tower.

    Raises:
        EngineUnusable: it is not an image tower.
    """
    names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    if names != {IMAGE_INPUT, IMAGE_OUTPUT}:
        raise EngineUnusable(
            f"the engine has {', '.join(sorted(names))}: it is not an image tower."
        )
    taken = engine.get_tensor_dtype(IMAGE_INPUT)
    if (
        taken not in (trt.float32, trt.uint8)
        or engine.get_tensor_dtype(IMAGE_OUTPUT) != trt.float32
    ):
        raise EngineUnusable("the engine's input and output are not uint8 or float32.")
    ranges = [
        [tuple(shape) for shape in engine.get_tensor_profile_shape(IMAGE_INPUT, profile)]
        for profile in range(engine.num_optimization_profiles)
    ]
    smallest = min(first for first, _, _ in ranges)
    largest = max(last for _, _, last in ranges)
    side = smallest[-1]
    image = (3, side, side)
    if smallest != (1, *image) or largest[1:] != image:
        raise EngineUnusable(f"the engine takes {smallest} to {largest}, not single images.")
    return _Shape(
        side=int(side),
        dimension=int(tuple(engine.get_tensor_shape(IMAGE_OUTPUT))[1]),
        takes_levels=taken == trt.uint8,
        largest_of=tuple(int(last[0]) for _, _, last in ranges),
    )
