"""Two calls at once on CUDA, each in a stream of its own, and frequent batch sizes as CUDA graphs.

Graphs are captured here and not by ``torch.compile`` in its mode ``reduce-overhead``. That mode
keeps its graphs by thread, but calls come from several threads. It captures each of a tower's 24
compiled blocks separately. And it needs a compiler. A graph of the whole tower takes one launch
instead of some hundred, which dominate the time of a small batch.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch

from adapters.encoders.cuda import (
    CALLS_AT_ONCE,
    CALLS_BEFORE_GRAPH,
    MOST_GRAPHS,
    OutOfDeviceMemory,
)
from adapters.encoders.torch.compiling import LEAST_COSINE, smallest_row_cosine
from adapters.encoders.torch.device import device_failures, pinned, to_device, to_host
from application.ports import EncoderLost, PixelBatch, RawEmbeddings

logger = logging.getLogger(__name__)

Forward: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Pixels on the device, ``[n, 3, h, w]`` → embeddings ``[n, dimension]``."""

_Kind: TypeAlias = tuple[int, str]
"""The key of a graph: the number of images, and whether they are levels or normalised."""


class TorchCuda:
    """PyTorch's streams and graphs; tests replace it."""

    def stream(self, device: torch.device) -> Any:
        """A new stream that waits for work that was started before."""
        torch.cuda.synchronize(device)
        return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def using(self, stream: Any) -> AbstractContextManager[Any]:
        """Within the block, this thread's work goes into the stream."""
        return torch.cuda.stream(stream)

    def pool(self) -> Any:
        """A new pool of memory for graphs that never run at the same time."""
        return torch.cuda.graph_pool_handle()

    def capture(
        self, stream: Any, pool: Any, work: Callable[[], torch.Tensor]
    ) -> tuple[Any, torch.Tensor]:
        """A graph of the work, with a ``replay`` method, and the tensor with its result."""
        graph = torch.cuda.CUDAGraph()
        # Other threads, with the text tower or another encoder, may allocate meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            result = work()
        return graph, result

    def give_back(self) -> None:
        """Return the memory that PyTorch keeps for reuse."""
        torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph, and the tensors for its images and their embeddings."""

    graph: Any
    pixels: torch.Tensor
    features: torch.Tensor

    def run(self, batch: PixelBatch) -> RawEmbeddings:
        self.pixels.copy_(pinned(batch, self.pixels.device), non_blocking=True)
        self.graph.replay()
        return to_host(self.features)


@dataclass(slots=True)
class _Lane:
    stream: Any
    pool: Any
    graphs: dict[_Kind, _Captured] = field(default_factory=dict)


class ImageTowerLanes:
    """Runs an image tower on CUDA, from `CALLS_AT_ONCE` threads at a time."""

    def __init__(
        self, forward: Forward, device: torch.device, *, cuda: TorchCuda | None = None
    ) -> None:
        """Make the streams.

        Args:
            forward: the image tower.
            device: where it is.
            cuda: streams and graphs.

        Raises:
            EncoderLost: the device failed.
        """
        self._forward = forward
        self._device = device
        self._cuda = cuda or TorchCuda()
        self._captures = False
        self._calls: dict[_Kind, int] = {}
        self._capturing = threading.Lock()
        self._free: queue.LifoQueue[_Lane] = queue.LifoQueue()
        with device_failures():
            for _ in range(CALLS_AT_ONCE):
                self._free.put(_Lane(self._cuda.stream(device), self._cuda.pool()))

    def capture_graphs(self) -> None:
        """From now on, run frequent batch sizes as CUDA graphs, as long as that works.

        Call this only once the tower is final: a graph repeats the captured work.
        """
        self._captures = True

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A lane's stream, for other work of this encoder."""
        with self._lane():
            yield

    @torch.inference_mode()
    def run(self, batch: PixelBatch) -> RawEmbeddings:
        """float32 ``[n, dimension]``, not normalised, of n images.

        Raises:
            OutOfDeviceMemory: not enough for this many images now; fewer may fit.
            EncoderLost: the device failed.
            RuntimeError: PyTorch refused this call.
        """
        with self._lane() as lane:
            captured = lane.graphs.get(_kind_of(batch))
            try:
                with device_failures():
                    rows = self._eager(batch) if captured is None else captured.run(batch)
            except OutOfDeviceMemory:
                self._drop_graphs(lane)  # to make room for a smaller batch
                raise
        if captured is None and self._comes_often(_kind_of(batch)):
            self._capture(batch)
        return rows

    @contextmanager
    def _lane(self) -> Iterator[_Lane]:
        # The last used lane comes first: with one call at a time, the other one takes no memory.
        lane = self._free.get()
        try:
            with self._cuda.using(lane.stream):
                yield lane
        finally:
            self._free.put(lane)

    def _eager(self, batch: PixelBatch) -> RawEmbeddings:
        return to_host(self._forward(to_device(batch, self._device)))

    def _comes_often(self, kind: _Kind) -> bool:
        if not self._captures:
            return False
        self._calls[kind] = self._calls.get(kind, 0) + 1
        frequent = sum(calls > CALLS_BEFORE_GRAPH for calls in self._calls.values())
        return self._calls[kind] > CALLS_BEFORE_GRAPH and frequent <= MOST_GRAPHS

    def _capture(self, batch: PixelBatch) -> None:
        """Capture batches like this one in every lane, and keep the graphs if their results match.

        No call runs meanwhile: CUDA forbids some operations during a capture.
        """
        if not self._capturing.acquire(blocking=False):
            return  # another size is being captured; this one will come again
        # No other thread waits for a second lane, so there is no deadlock.
        lanes = [self._free.get() for _ in range(CALLS_AT_ONCE)]
        try:
            for lane in lanes:
                lane.graphs[_kind_of(batch)] = self._captured(lane, batch)
        except EncoderLost:
            raise
        except Exception as failure:  # a tower or PyTorch that does not support capture
            self._captures = False
            for lane in lanes:
                self._drop_graphs(lane)
            reason = str(failure).partition("\n")[0]
            logger.warning("PyTorch goes on without CUDA graphs: %s", reason)
        finally:
            for lane in reversed(lanes):
                self._free.put(lane)
            self._capturing.release()

    def _captured(self, lane: _Lane, batch: PixelBatch) -> _Captured:
        # Use different pictures than in the capture, or a graph that ignores its input would pass.
        others = np.bitwise_not(batch) if batch.dtype == np.uint8 else 1 - batch
        with self._cuda.using(lane.stream), device_failures():
            # Libraries allocate memory at a thread's first call in a stream, which a capture
            # forbids.
            expected = self._eager(others)
            pixels = to_device(batch, self._device).clone()
            graph, features = self._cuda.capture(
                lane.stream, lane.pool, lambda: self._forward(pixels)
            )
            captured = _Captured(graph, pixels, features)
            made = captured.run(others)
        cosine = smallest_row_cosine(made, expected)
        if cosine <= LEAST_COSINE:
            raise RuntimeError(f"a graph's embeddings differ (cosine {cosine:.4f})")
        return captured

    def _drop_graphs(self, lane: _Lane) -> None:
        if lane.graphs:
            lane.graphs.clear()
            lane.pool = self._cuda.pool()
            self._cuda.give_back()


def _kind_of(batch: PixelBatch) -> _Kind:
    return len(batch), batch.dtype.str
