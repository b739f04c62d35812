"""PyTorch's streams and graphs on the processor, with what CUDA allows and forbids."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from adapters.encoders.torch.lanes import TorchCuda


class HostGraph:
    """Does its work again, with what is in the captured tensors now, at each ``replay``."""

    def __init__(self, cuda: "HostTorchCuda", work: Callable[[], torch.Tensor]) -> None:
        self._cuda = cuda
        self._work = work
        # A capture computes nothing: until the first replay there is only rubbish.
        self._captured = work()
        self.result = torch.full_like(self._captured, float("nan"))

    def replay(self) -> None:
        assert self._cuda.current() is not None, "outside of a lane's stream"
        self._cuda.replays += 1
        rows = self._captured if self._cuda.ignores_input else self._work()
        self.result.copy_(-rows if self._cuda.replays_wrongly else rows)


class HostTorchCuda(TorchCuda):
    """Counts what is done. ``capture_fails`` is what a capture ends with."""

    def __init__(self) -> None:
        self.replays = 0
        self.captures = 0
        self.given_back = 0
        self.replays_wrongly = False
        self.ignores_input = False
        self.capture_fails: Exception | None = None
        self.most_at_once = 0
        self.streams_used: set[int] = set()
        self._streams = 0
        self._busy: set[int] = set()
        self._warm: set[tuple[int, int]] = set()
        self._here = threading.local()
        self._lock = threading.Lock()

    def current(self) -> int | None:
        """The stream of this thread; None outside of any."""
        return getattr(self._here, "stream", None)

    def stream(self, device: torch.device) -> int:
        self._streams += 1
        return self._streams

    @contextmanager
    def using(self, stream: int) -> Iterator[None]:
        with self._lock:
            assert stream not in self._busy, "two calls in one stream"
            self._busy.add(stream)
            self.streams_used.add(stream)
            self.most_at_once = max(self.most_at_once, len(self._busy))
        self._here.stream = stream
        try:
            yield
        finally:
            self._here.stream = None
            self._busy.remove(stream)

    def computed(self) -> None:
        """Told by the tower: what libraries need for this thread and stream is there now."""
        if (stream := self.current()) is not None:
            self._warm.add((threading.get_ident(), stream))

    def pool(self) -> object:
        return object()

    def capture(
        self, stream: int, pool: Any, work: Callable[[], torch.Tensor]
    ) -> tuple[HostGraph, torch.Tensor]:
        assert self._busy == {stream}, "another call runs beside a capture"
        assert (threading.get_ident(), stream) in self._warm, "nothing was run here before"
        if self.capture_fails is not None:
            raise self.capture_fails
        self.captures += 1
        graph = HostGraph(self, work)
        return graph, graph.result

    def give_back(self) -> None:
        self.given_back += 1
