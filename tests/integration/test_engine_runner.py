"""The lines that need a GPU, run against a CUDA and a TensorRT made of host memory.

What they cannot show is that a GPU does the same; `make gpu-check` does, on a machine with one.
"""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.encoders.cuda import FINAL_ERRORS, Allocations, Cuda, Gpu, NoGpu, OutOfDeviceMemory
from adapters.encoders.tensorrt.engine_file import EngineUnusable
from adapters.encoders.tensorrt.library import TensorRt, find_tensorrt, messages_of
from adapters.encoders.tensorrt.runner import TensorRtRunner
from adapters.images.preprocessing import normalised, write_nearest_levels
from application.ports import EncoderLost, PixelBatch
from domain.errors import EncoderFault
from tests.support.host_cuda import (
    DIMENSION,
    Context,
    Engine,
    HostCuda,
    RuntimeCache,
    RuntimeConfig,
    Status,
    Tensorrt,
)
from tests.support.host_cuda import held as everything_held
from tests.support.host_cuda import opened as open_runner

IMAGE_BYTES = 3 * 224 * 224 * 4


@pytest.fixture
def trt() -> Iterator[Tensorrt]:
    """TensorRT and CUDA; the test fails if anything is held in the end."""
    made = Tensorrt(Engine(HostCuda()))
    yield made
    gc.collect()
    if made.engine.cuda.final is None:  # of a lost device nothing can be given back
        assert not any(everything_held(made).values()), everything_held(made)


@pytest.fixture
def cuda(trt: Tensorrt) -> HostCuda:
    return trt.engine.cuda


@pytest.fixture
def engine(trt: Tensorrt) -> Engine:
    return trt.engine


def images(count: int, first: int = 0) -> PixelBatch:
    numbers = np.arange(first, first + count, dtype=np.float32)
    return np.broadcast_to(numbers[:, None, None, None], (count, 3, 224, 224)).copy()


def check(rows: np.ndarray, count: int, first: int = 0) -> None:
    expected = np.arange(first, first + count)[:, None] + np.arange(DIMENSION)
    np.testing.assert_allclose(rows, expected, rtol=1e-4)
    assert rows.dtype == np.float32


def test_every_batch_size_in_any_order(trt: Tensorrt) -> None:
    runner = open_runner(trt)
    assert runner.largest_batch == 8
    for count in (3, 1, 8, 2, 8, 5):
        check(runner.run(images(count, first=count)), count, first=count)
    assert trt.engine.profiles_used == [0, 0, 1, 0, 1, 1]


def test_levels_travel_as_bytes_and_are_the_same_picture(
    trt: Tensorrt, cuda: HostCuda, engine: Engine
) -> None:
    engine.input_dtype = "uint8"
    levels = np.random.default_rng(7).integers(0, 256, (3, 3, 224, 224), dtype=np.uint8)
    pixels = normalised(levels)
    runner = open_runner(trt)
    expected = pixels.mean(axis=(1, 2, 3))[:, None] + np.arange(DIMENSION)
    np.testing.assert_allclose(runner.run(pixels), expected, rtol=1e-5)
    assert max(len(cuda.allocated[address]) for address in cuda.pinned) == levels.nbytes
    np.testing.assert_allclose(runner.run(levels), expected, rtol=1e-5)


def test_every_level_comes_back_from_its_pixel() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 3, 1, 1)
    back = np.empty_like(levels)
    write_nearest_levels(normalised(levels), back)
    np.testing.assert_array_equal(back, levels)
    outside = np.array([-1e9, 0.0, 1e9], dtype=np.float32).reshape(1, 3, 1, 1)
    place = np.empty(outside.shape, dtype=np.uint8)
    write_nearest_levels(outside, place)
    assert place[0, 0, 0, 0] == 0
    assert place[0, 2, 0, 0] == 255


def test_responses_outlive_the_next_call(trt: Tensorrt) -> None:
    runner = open_runner(trt)
    first = runner.run(images(2))
    runner.run(images(2, first=7))
    check(first, 2)


def test_memory_is_reused_and_grows_only_with_the_batch(trt: Tensorrt, cuda: HostCuda) -> None:
    runner = open_runner(trt)
    runner.run(images(4))
    known, used = set(cuda.allocated), cuda.used()
    for count in (1, 4, 2, 3):
        runner.run(images(count))
    assert set(cuda.allocated) == known
    runner.run(images(8))
    assert cuda.used() == pytest.approx(2 * used, rel=0.01)
    assert len(cuda.allocated) == 5


def test_whoever_waits_sleeps(trt: Tensorrt, cuda: HostCuda) -> None:
    runner = open_runner(trt)
    runner.run(images(1))
    assert cuda.slept == 1


# --- What goes wrong --------------------------------------------------------------------------


def test_lack_of_memory_is_told_and_a_smaller_batch_still_runs(
    trt: Tensorrt, cuda: HostCuda
) -> None:
    runner = open_runner(trt)
    cuda.room = 3 * (IMAGE_BYTES + DIMENSION * 4 + 1000)
    for _ in range(2):
        with pytest.raises(OutOfDeviceMemory):
            runner.run(images(4))
        assert cuda.used() == 0
        check(runner.run(images(3)), 3)
    assert cuda.errors_cleared == 2
    cuda.room = 10**9
    check(runner.run(images(8)), 8)
    assert len(cuda.allocated) == 5


@pytest.mark.parametrize(
    "status",
    [Status.cudaErrorIllegalAddress, Status.cudaErrorAssert, Status.cudaErrorLaunchFailure],
)
def test_a_device_that_fails_for_good_is_lost(
    trt: Tensorrt, cuda: HostCuda, status: Status
) -> None:
    runner = open_runner(trt)
    runner.run(images(1))
    cuda.fault = status
    for _ in range(2):  # every later call fails too
        with pytest.raises(EncoderLost, match=f"{status.name} in cuda"):
            runner.run(images(1))
    runner.close()  # of a lost device nothing can be given back; that is no reason to raise


@pytest.mark.parametrize("status", [Status.cudaErrorUnknown, Status.cudaErrorInvalidValue])
def test_any_other_failure_is_the_calls_own(trt: Tensorrt, cuda: HostCuda, status: Status) -> None:
    runner = open_runner(trt)
    cuda.fault = status
    with pytest.raises(EncoderFault, match=status.name):
        runner.run(images(2))
    check(runner.run(images(2)), 2)


def test_a_failed_enqueue_and_a_refused_shape_are_faults_of_that_call(
    trt: Tensorrt, engine: Engine
) -> None:
    runner = open_runner(trt)
    engine.refusal = "Cask convolution failed"
    with pytest.raises(EncoderFault, match="could not be run with 1 images: Cask convolution"):
        runner.run(images(1))
    engine.refusal = "[executionContext.cpp] Error Code 2: OutOfMemory (Requested size was 4 bytes)"
    with pytest.raises(OutOfDeviceMemory):
        runner.run(images(1))
    engine.refusal = None
    check(runner.run(images(1)), 1)
    smallest, optimal, largest = engine.profiles[0]
    engine.profiles[0] = [(2, *smallest[1:]), optimal, largest]
    with pytest.raises(EncoderFault, match="refuses 1 images"):
        runner.run(images(1))
    check(runner.run(images(3)), 3)


def test_what_is_no_image_tower_is_refused(trt: Tensorrt, engine: Engine) -> None:
    with pytest.raises(EngineUnusable, match=r"tensorrt 11\.4 refuses the engine: magic tag"):
        open_runner(trt, data=b"junk")
    engine.dtype = "float16"
    with pytest.raises(EngineUnusable, match="not uint8 or float32"):
        open_runner(trt)
    engine.dtype = "float32"
    engine.profiles[0][0] = (2, 3, 224, 224)
    with pytest.raises(EngineUnusable, match="not single images"):
        open_runner(trt)
    engine.names = ["input_ids", "text_embeds"]
    with pytest.raises(EngineUnusable, match="not an image tower"):
        open_runner(trt)


@pytest.mark.parametrize(
    "message",
    [
        "Error Code 1: Cuda Runtime (out of memory)",
        "Error Code 2: OutOfMemory (no further information)",
        "[defaultAllocator.cpp::allocate] Cuda Runtime (cudaErrorMemoryAllocation)",
    ],
)
def test_an_engine_for_which_there_is_no_memory_is_not_refused(trt: Tensorrt, message: str) -> None:
    trt.refusal = message
    with pytest.raises(OutOfDeviceMemory):
        open_runner(trt)


def test_an_engine_larger_than_what_is_free_is_not_refused(trt: Tensorrt, cuda: HostCuda) -> None:
    trt.refusal = "an error that says nothing"
    cuda.room = 3
    with pytest.raises(OutOfDeviceMemory):
        open_runner(trt)


def test_without_memory_for_a_context(trt: Tensorrt, engine: Engine) -> None:
    engine.room_for_contexts = False
    with pytest.raises(OutOfDeviceMemory):
        open_runner(trt)


# --- Nothing leaks ----------------------------------------------------------------------------


@pytest.mark.parametrize("end", [TensorRtRunner.close, lambda runner: None], ids=["close", "drop"])
def test_what_was_used_is_given_back(trt: Tensorrt, end: Callable[[TensorRtRunner], None]) -> None:
    runner = open_runner(trt)
    for count in (1, 8, 8, 8, 8, 8, 8):
        runner.run(images(count))
    counted = everything_held(trt)
    assert counted["streams"] == counted["events"] == 2
    assert counted["graphs"] == 1
    assert counted["device"] == 3
    assert counted["pinned"] == 2
    assert counted["contexts"] == 4
    assert counted["runtimes"] == 1
    end(runner)
    del runner
    gc.collect()
    assert not any(everything_held(trt).values())


def test_a_construction_that_fails_halfway_holds_nothing(trt: Tensorrt, engine: Engine) -> None:
    for spoil in ("cudaStreamCreateWithFlags", "cudaEventCreateWithFlags"):
        cuda = HostCuda()
        engine.cuda = cuda
        real, calls = getattr(cuda, spoil), [0]

        def second_fails(
            flags: int, real: Any = real, calls: list[int] = calls
        ) -> tuple[Status, int | None]:
            calls[0] += 1
            return real(flags) if calls[0] == 1 else (Status.cudaErrorMemoryAllocation, None)

        setattr(cuda, spoil, second_fails)
        with pytest.raises(OutOfDeviceMemory):
            open_runner(trt)
        gc.collect()
        assert not any(everything_held(trt).values()), spoil


def test_fifty_loads_and_calls_hold_no_more_than_one(trt: Tensorrt) -> None:
    for _ in range(50):
        runner = open_runner(trt)
        runner.run(images(2))
        runner.close()
    assert not any(everything_held(trt).values())


def test_allocations_are_given_back_in_the_opposite_order() -> None:
    given_back: list[str] = []

    class Recording(HostCuda):
        def cudaFree(self, address: int) -> tuple[Status]:
            given_back.append("device")
            return super().cudaFree(address)

        def cudaStreamDestroy(self, stream: int) -> tuple[Status]:
            given_back.append("stream")
            return super().cudaStreamDestroy(stream)

    cuda = Recording()
    allocations = Allocations(Cuda(cuda))
    allocations.stream()
    allocations.device_memory(100)
    allocations.close()
    allocations.close()
    assert given_back == ["device", "stream"]


# --- Two calls at once, and CUDA graphs -------------------------------------------------------


def test_two_calls_run_in_streams_of_their_own(trt: Tensorrt, cuda: HostCuda) -> None:
    """Both have handed over their work before either waits for it."""
    both = threading.Barrier(2, timeout=30)
    real = cuda.cudaEventSynchronize

    def wait_for_both(event: int) -> tuple[Status]:
        both.wait()
        return real(event)

    cuda.cudaEventSynchronize = wait_for_both  # type: ignore[method-assign]
    runner = open_runner(trt)
    with ThreadPoolExecutor(2) as threads:
        for turn in range(12):
            first = threads.submit(runner.run, images(3, first=turn))
            second = threads.submit(runner.run, images(7, first=100 + turn))
            check(first.result(), 3, first=turn)
            check(second.result(), 7, first=100 + turn)
    assert cuda.most_streams_busy == 2


def test_one_call_at_a_time_takes_the_memory_of_one(trt: Tensorrt, cuda: HostCuda) -> None:
    runner = open_runner(trt)
    for _ in range(4):
        runner.run(images(4))
    assert len(cuda.allocated) == 5


def test_a_batch_size_that_comes_again_is_captured_and_right(
    trt: Tensorrt, cuda: HostCuda, engine: Engine
) -> None:
    runner = open_runner(trt)
    for turn in range(10):
        check(runner.run(images(2, first=turn)), 2, first=turn)
    assert cuda.instantiated == 1
    assert cuda.launches == 6
    assert len(engine.calls) == 5  # three to be sure, one to warm the context, one captured
    for turn in range(10):
        check(runner.run(images(6, first=turn)), 6, first=turn)
        check(runner.run(images(2, first=turn)), 2, first=turn)
    # Its buffers moved with the first six images, and both sizes were captured.
    assert cuda.instantiated == 3
    runner.close()


def test_graphs_are_captured_again_when_buffers_move(trt: Tensorrt, cuda: HostCuda) -> None:
    runner = open_runner(trt)
    for _ in range(6):
        runner.run(images(1))
    assert cuda.held()["graphs"] == 1
    runner.run(images(8))
    assert cuda.held()["graphs"] == 0
    for turn in range(6):
        check(runner.run(images(1, first=turn)), 1, first=turn)
    assert cuda.held()["graphs"] == 1


def test_what_cannot_be_captured_is_run_as_before(
    trt: Tensorrt, cuda: HostCuda, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.uncapturable = True
    runner = open_runner(trt)
    for turn in range(8):
        check(runner.run(images(2, first=turn)), 2, first=turn)
    assert cuda.launches == 0
    assert caplog.text.count("going on without CUDA graphs") == 2  # capture, and its end
    assert cuda.held()["graphs"] == 0


def test_no_more_graphs_than_there_is_room_for(trt: Tensorrt, engine: Engine) -> None:
    image = (3, 224, 224)
    engine.profiles = [[(1, *image), (1, *image), (32, *image)]]
    runner = open_runner(trt)
    runner.run(images(32))
    for _ in range(5):
        for count in range(1, 13):
            check(runner.run(images(count)), count)
    assert engine.cuda.held()["graphs"] == 8
    check(runner.run(images(12)), 12)


def test_rtx_captures_graphs_itself_and_keeps_what_it_compiled(
    trt: Tensorrt, cuda: HostCuda, engine: Engine, tmp_path: Path
) -> None:
    place = tmp_path / "tower.engine.kernels"
    runner = open_runner(trt, name="tensorrt_rtx", runtime_cache=place)
    for turn in range(8):
        check(runner.run(images(6, first=turn)), 6, first=turn)
    assert cuda.instantiated == 0
    runner.keep()
    runner.close()
    assert place.read_bytes() == b"kernels:compiled"
    place.write_bytes(b"kernels:compiled:before")
    runner = open_runner(trt, name="tensorrt_rtx", runtime_cache=place)
    assert engine.runtime_caches[-1].kernels == {"compiled", "before"}
    runner.close()
    place.write_bytes(b"of another card")
    runner = open_runner(trt, name="tensorrt_rtx", runtime_cache=place)
    assert engine.runtime_caches[-1].kernels == {"compiled"}
    runner.close()
    engine.runtime_caches.clear()


def test_a_fault_while_a_graph_runs_is_told(trt: Tensorrt, cuda: HostCuda) -> None:
    runner = open_runner(trt)
    for _ in range(6):
        runner.run(images(1))
    cuda.fault = Status.cudaErrorIllegalAddress
    with pytest.raises(EncoderLost, match="cudaErrorIllegalAddress"):
        runner.run(images(1))


# --- The device, the log and the real bindings ------------------------------------------------


def test_the_gpu_is_described(cuda: HostCuda) -> None:
    assert Cuda(cuda).gpu() == Gpu("NVIDIA Test", "8.9", "0000:41:00.0", 58)
    cuda.devices = 0
    with pytest.raises(NoGpu, match="cudaErrorNoDevice"):
        Cuda(cuda).gpu()


def test_tensorrt_speaks_through_our_log(trt: Tensorrt, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    log = messages_of(trt).logger
    log.log(2, "a tactic was skipped")
    log.log(3, "nothing to worry about")
    log.log(1, "something to worry about")
    said = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert said == [
        ("WARNING", "TensorRT: a tactic was skipped"),
        ("ERROR", "TensorRT: something to worry about"),
    ]
    assert messages_of(trt) is messages_of(trt)


def test_the_real_logger_is_ours(caplog: pytest.LogCaptureFixture) -> None:
    """TensorRT for RTX, on a machine without a GPU, refuses junk and says why through our log."""
    installed = find_tensorrt().module
    messages = messages_of(installed)
    messages.forget()
    trt: Any = installed
    trt.Runtime(messages.logger).deserialize_cuda_engine(b"junk" * 100)
    assert messages.errors
    assert "TensorRT: " in caplog.text


def test_the_real_bindings_have_every_call_that_is_made() -> None:
    from cuda.bindings import runtime

    for name in vars(HostCuda):
        if name.startswith("cuda"):
            assert hasattr(runtime, name), name
    for status in Status:
        assert int(getattr(runtime.cudaError_t, status.name)) == status
    for mode in ("cudaStreamCaptureModeThreadLocal",):
        assert hasattr(runtime.cudaStreamCaptureMode, mode)
    assert runtime.cudaEventBlockingSync | runtime.cudaEventDisableTiming == 3
    trt: Any = find_tensorrt().module
    for name in vars(Context):
        if not name.startswith("_"):
            assert hasattr(trt.IExecutionContext, name), name
    for name in vars(Engine):
        if not name.startswith("_"):
            assert hasattr(trt.ICudaEngine, name), name
    assert hasattr(trt.ExecutionContextAllocationStrategy, "USER_MANAGED")
    for stand_in, real in ((RuntimeConfig, trt.IRuntimeConfig), (RuntimeCache, trt.IRuntimeCache)):
        for name in vars(stand_in):
            assert name.startswith("_") or hasattr(real, name), name
    assert hasattr(trt.IRuntimeConfig, "cuda_graph_strategy")
    assert hasattr(trt.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE")
    assert hasattr(trt.Runtime, "deserialize_cuda_engine")
    assert trt.float32


def test_what_is_final_is_what_cuda_documents_as_final() -> None:
    from cuda.bindings import runtime

    documented = {
        int(error): error.name
        for error in runtime.cudaError_t
        if "terminated and relaunched" in " ".join((error.__doc__ or "").split())
    }
    if not documented:
        pytest.skip("these bindings come without the documentation of their errors")
    assert documented == FINAL_ERRORS


def test_a_version_is_only_a_label(trt: Tensorrt) -> None:
    runner = TensorRtRunner(
        TensorRt("tensorrt", "10.13", trt), b"engine", cuda=Cuda(trt.engine.cuda)
    )
    check(runner.run(images(1)), 1)
