"""Runs an engine: the seam between what needs a GPU and all else, and what needs one."""

import logging
from abc import ABC, abstractmethod
from typing import Any, Final

import numpy as np

from adapters.encoders.cuda import Cuda, OutOfDeviceMemory, as_array
from adapters.encoders.tensorrt.engine_file import EngineUnusable
from adapters.encoders.tensorrt.library import TensorRt
from adapters.export.towers import IMAGE_INPUT, IMAGE_OUTPUT
from application.ports import EncoderLost, PixelBatch, RawEmbeddings

logger = logging.getLogger(__name__)

_FLOAT: Final = 4
"""Bytes of a float32."""


class EngineRunner(ABC):
    """An engine that is loaded and can be run, from one thread at a time."""

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
            EncoderLost: the device failed.
        """


class TensorRtRunner(EngineRunner):
    """An engine on a GPU, in a CUDA stream of its own.

    Memory is sized by the largest batch seen so far and reused: pinned input and output on the
    host, input, output and the engine's activations on the device.
    """

    def __init__(self, tensorrt: TensorRt, data: bytes, *, cuda: Cuda) -> None:
        """Load an engine.

        Args:
            tensorrt: the very version that built it.
            data: the serialised engine.
            cuda: the device.

        Raises:
            EngineUnusable: it is not an engine for this device, or not of an image tower.
            OutOfDeviceMemory: its weights do not fit.
            EncoderLost: the device failed.
        """
        self._cuda = cuda
        self._stream = cuda.stream()
        trt = tensorrt.module
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise EngineUnusable(f"{tensorrt.identity} refuses the engine; its log says why.")
        self._largest_batch, self._side, self._dimension = _check(trt, engine)
        # The engine has to outlive its context, and the runtime its engine.
        self._engine = engine
        self._context = engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if self._context is None:
            raise OutOfDeviceMemory("no memory for an execution context")
        self._capacity = 0
        self._pinned: list[int] = []
        self._device: list[int] = []
        self._activations = (0, 0)

    @property
    def largest_batch(self) -> int:
        """See `EngineRunner.largest_batch`."""
        return self._largest_batch

    def run(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EngineRunner.run`."""
        count = len(batch)
        self._reserve(count)
        host_in, host_out = self._pinned
        device_in, device_out = self._device
        # A new shape may come with new partitions of the activations' memory.
        if not self._context.set_input_shape(IMAGE_INPUT, tuple(batch.shape)):
            raise EncoderLost(f"the engine refuses {count} images.")
        self._reserve_activations()
        as_array(host_in, batch.shape)[...] = batch
        stream = self._stream
        self._cuda.to_device(device_in, host_in, batch.size * _FLOAT, stream)
        if not self._context.execute_async_v3(int(stream)):
            self._cuda.wait_for(stream)  # raises what went wrong, if CUDA knows it
            raise EncoderLost("the engine could not be run; TensorRT's log says why.")
        shape = (count, self._dimension)
        self._cuda.to_host(host_out, device_out, count * self._dimension * _FLOAT, stream)
        self._cuda.wait_for(stream)
        return np.array(as_array(host_out, shape))

    def _reserve(self, count: int) -> None:
        """Make the buffers large enough for ``count`` images."""
        if count <= self._capacity:
            return
        self._release()
        sizes = [count * 3 * self._side**2 * _FLOAT, count * self._dimension * _FLOAT]
        for size in sizes:
            self._pinned.append(self._cuda.pinned_memory(size))
        for size, name in zip(sizes, (IMAGE_INPUT, IMAGE_OUTPUT), strict=True):
            address = self._cuda.device_memory(size)
            self._device.append(address)
            self._context.set_tensor_address(name, address)
        self._capacity = count

    def _reserve_activations(self) -> None:
        """Give the context what it needs for the shape that was set."""
        needed = int(self._context.update_device_memory_size_for_shapes())
        address, size = self._activations
        if needed > size:
            if address:
                self._activations = (0, 0)
                self._cuda.free_device_memory(address)
            address, size = self._cuda.device_memory(needed), needed
            self._activations = (address, size)
        self._context.set_device_memory(address, size)

    def _release(self) -> None:
        """Give the buffers back; they were too small."""
        self._capacity = 0
        while self._device:
            self._cuda.free_device_memory(self._device.pop())
        while self._pinned:
            self._cuda.free_pinned_memory(self._pinned.pop())


def _check(trt: Any, engine: Any) -> tuple[int, int, int]:
    """Largest batch, image side and dimension of an engine that is one of an image tower.

    Raises:
        EngineUnusable: it is another's.
    """
    names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    if names != {IMAGE_INPUT, IMAGE_OUTPUT}:
        raise EngineUnusable(f"the engine has {', '.join(sorted(names))} and is no image tower.")
    if any(engine.get_tensor_dtype(name) != trt.float32 for name in names):
        raise EngineUnusable("the engine's input and output are not float32.")
    smallest, _, largest = (tuple(s) for s in engine.get_tensor_profile_shape(IMAGE_INPUT, 0))
    side = smallest[-1]
    image = (3, side, side)
    if smallest != (1, *image) or largest[1:] != image:
        raise EngineUnusable(f"the engine takes {smallest} to {largest}, not single images.")
    return int(largest[0]), int(side), int(tuple(engine.get_tensor_shape(IMAGE_OUTPUT))[1])
