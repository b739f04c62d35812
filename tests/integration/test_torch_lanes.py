"""PyTorch's calls on CUDA: two at once, batch sizes that come again as graphs, on a stand-in."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from adapters.encoders.cuda import OutOfDeviceMemory
from adapters.encoders.torch.encoder import TorchEncoder
from adapters.encoders.torch.lanes import ImageTowerLanes
from adapters.images.photos import samples
from adapters.models.precision import Precision
from adapters.models.reading import DEMO, read_checkpoint
from application.ports import Device, EncoderLost, PixelBatch
from tests.support.host_torch import HostTorchCuda

CPU = Device("cpu", cuda_available=False)


@dataclass
class Tower:
    """Twelve means of an image; ``room`` is for how many images there is memory."""

    cuda: HostTorchCuda
    room: int = 100
    fails: Exception | None = None
    meets: threading.Barrier | None = None
    calls: list[int] = field(default_factory=list)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(pixels))
        if self.meets is not None:
            self.meets.wait(20)
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if self.fails is not None:
            raise self.fails
        self.cuda.computed()
        return pixels.float().reshape(len(pixels), 12, -1).mean(dim=2)


@pytest.fixture
def tower() -> Tower:
    return Tower(HostTorchCuda())


@pytest.fixture
def lanes(tower: Tower) -> ImageTowerLanes:
    made = ImageTowerLanes(tower, torch.device("cpu"), cuda=tower.cuda)
    made.capture_graphs()
    return made


def images(count: int, seed: int = 0) -> PixelBatch:
    shape = (count, 3, 8, 8)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def right(batch: PixelBatch) -> PixelBatch:
    means: PixelBatch = batch.reshape(len(batch), 12, -1).mean(axis=2)
    return means


def check(lanes: ImageTowerLanes, count: int, times: int = 6) -> None:
    for seed in range(times):
        batch = images(count, seed)
        np.testing.assert_allclose(lanes.run(batch), right(batch), atol=1e-5)


def test_a_size_that_comes_again_is_replayed(lanes: ImageTowerLanes, tower: Tower) -> None:
    check(lanes, 2, 3)
    assert tower.cuda.captures == 0
    check(lanes, 2, 1)
    assert tower.cuda.captures == 2, "once for each lane"
    before = tower.cuda.replays
    check(lanes, 2, 5)
    assert (tower.cuda.captures, tower.cuda.replays) == (2, before + 5)
    check(lanes, 3, 5)
    assert tower.cuda.captures == 4
    check(lanes, 2, 2)


def test_levels_and_normalised_pixels_have_graphs_of_their_own(
    lanes: ImageTowerLanes, tower: Tower
) -> None:
    check(lanes, 2)
    levels = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    for _ in range(6):
        np.testing.assert_allclose(lanes.run(levels), right(levels), atol=1e-3)
    assert tower.cuda.captures == 4
    check(lanes, 2, 2)


def test_rare_sizes_are_left_and_frequent_ones_limited(
    lanes: ImageTowerLanes, tower: Tower
) -> None:
    for count in range(1, 13):
        check(lanes, count, 3)
    assert tower.cuda.captures == 0
    for count in range(1, 13):
        check(lanes, count, 3)
    assert tower.cuda.captures == 2 * 8


def test_two_calls_run_at_once_and_each_has_its_own_result(
    lanes: ImageTowerLanes, tower: Tower
) -> None:
    tower.meets = threading.Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(lambda seed: lanes.run(images(1, seed)), range(2)))
    tower.meets = None
    assert tower.cuda.most_at_once == 2
    for seed in range(2):
        np.testing.assert_allclose(made[seed], right(images(1, seed)), atol=1e-5)


def test_captures_amid_many_calls_lose_none(lanes: ImageTowerLanes, tower: Tower) -> None:
    def one(number: int) -> None:
        check(lanes, 1 + number % 5, 1)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(one, range(400)))
    assert tower.cuda.captures == 10
    assert len(tower.cuda.streams_used) == 2


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore"),
        torch.OutOfMemoryError("CUDA out of memory."),
        ValueError("a tower that looks at its pixels"),
    ],
    ids=["refused", "no memory", "the tower's"],
)
def test_what_cannot_be_captured_goes_on_as_it_was(
    lanes: ImageTowerLanes, tower: Tower, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    tower.cuda.capture_fails = failure
    check(lanes, 2, 8)
    check(lanes, 3, 8)
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    reason = str(failure).partition("\n")[0]
    assert told == [f"PyTorch goes on without CUDA graphs: {reason}"]
    assert tower.cuda.replays == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [("replays_wrongly", "differ (cosine -1.0000)"), ("ignores_input", "differ")],
)
def test_a_graph_that_computes_something_else_is_dropped(
    lanes: ImageTowerLanes,
    tower: Tower,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    told: str,
) -> None:
    """One that never reads its images would give later requests the embeddings of the first."""
    setattr(tower.cuda, fault, True)
    check(lanes, 2, 8)
    assert tower.cuda.replays == 1
    assert f"without CUDA graphs: a graph's embeddings {told}" in caplog.text


def test_a_device_that_is_lost_is_not_taken_for_a_fault(
    lanes: ImageTowerLanes, tower: Tower
) -> None:
    lost = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    tower.cuda.capture_fails = lost
    check(lanes, 2, 3)
    with pytest.raises(EncoderLost, match="illegal memory access"):
        lanes.run(images(2))
    tower.fails = lost
    with pytest.raises(EncoderLost):
        lanes.run(images(1))  # and nobody waits for a lane


def test_full_memory_gives_graphs_back_and_they_come_again(
    lanes: ImageTowerLanes, tower: Tower
) -> None:
    check(lanes, 2)
    tower.room = 4
    with pytest.raises(OutOfDeviceMemory):
        lanes.run(images(5))
    assert tower.cuda.given_back == 1
    captures = tower.cuda.captures
    check(lanes, 2)
    assert tower.cuda.captures > captures
    check(lanes, 4)


def test_the_encoder_takes_two_calls_and_texts_beside_them() -> None:
    checkpoint, cuda = read_checkpoint(DEMO), HostTorchCuda()
    encoder = TorchEncoder(checkpoint, CPU, precision=Precision.FP32, cuda=cuda)
    alone = TorchEncoder(checkpoint, CPU, precision=Precision.FP32)
    assert encoder.description.concurrent_calls == 2
    assert alone.description.concurrent_calls == 1
    pixels, texts = samples()[:2], ["a dog", "a delivery truck"]
    np.testing.assert_allclose(
        encoder.encode_images(pixels), alone.encode_images(pixels), atol=1e-4
    )
    used = len(cuda.streams_used)
    np.testing.assert_allclose(encoder.encode_texts(texts), alone.encode_texts(texts), atol=1e-4)
    assert used == len(cuda.streams_used) == 1  # in the stream that was used last
