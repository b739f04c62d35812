"""The device that PyTorch computes on, and what its failures mean."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from numpy.typing import NDArray

from adapters.encoders.cuda import (
    FINAL_ERRORS,
    OUT_OF_MEMORY,
    NoGpu,
    OutOfDeviceMemory,
    why_no_gpu,
)
from application.ports import EncoderLost, EncoderUnavailable, RawEmbeddings

_FINAL_TEXTS: Final = (
    *("illegal memory access", "launch timed out", "device-side assert", "hardware stack error"),
    *("illegal instruction", "misaligned address", "unspecified launch failure"),
    *("operation not supported on global/shared address space", "invalid program counter"),
)
"""CUDA's texts for errors that need a restart of the process, if there is no code."""

_MEMORY_TEXTS: Final = ("out of memory", "alloc_failed", "allocation failed")
"""CUDA's, cuBLAS's and cuDNN's words for a lack of memory, in lower case."""


def check_cuda() -> None:
    """Check that PyTorch can use CUDA.

    Raises:
        NoGpu: it cannot; says why.
    """
    version = torch.version.cuda
    if version is None:
        raise NoGpu("the installed PyTorch was built without CUDA")
    # PyTorch only warns about a driver that it cannot use.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    said = str(told[0].message).partition("(Triggered")[0].strip(" .") if told else ""
    raise NoGpu(why_no_gpu(int(version.partition(".")[0]), said or "PyTorch finds no GPU"))


def to_device(batch: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A batch as a tensor on the device; on CUDA through pinned memory, so that no thread waits."""
    return pinned(batch, device).to(device, non_blocking=True)


def pinned(batch: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A batch as a tensor in main memory, ready to be copied to the device."""
    # PyTorch warns about read-only arrays, such as those from a socket.
    tensor = torch.from_numpy(batch if batch.flags.writeable else batch.copy())
    return tensor.pin_memory() if _is_cuda(device) else tensor


def to_host(features: torch.Tensor) -> RawEmbeddings:
    """Embeddings as float32 in main memory. The thread that waits for CUDA sleeps meanwhile."""
    rows = features.float()
    if not _is_cuda(rows.device):
        return rows.cpu().numpy()
    host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    host.copy_(rows, non_blocking=True)
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record()
    done.synchronize()
    return host.numpy().copy()  # pinned memory is scarce, and the caller may keep this


def _is_cuda(device: torch.device) -> bool:
    return device.type == "cuda"


@contextmanager
def device_failures() -> Iterator[None]:
    """Distinguish a lost device and a lack of memory from a fault of one call.

    Raises:
        OutOfDeviceMemory: memory ran out; memory that PyTorch kept for reuse is released.
        EncoderLost: CUDA failed, and this process cannot use it any more.
        RuntimeError: as PyTorch raises it, for anything else.
    """
    try:
        yield
    except torch.OutOfMemoryError as shortage:
        told = str(shortage).partition("\n")[0]
    except RuntimeError as failure:
        told = str(failure).partition("\n")[0]
        code = getattr(failure, "error_code", None)
        if code is None:
            text = told.lower()
            lost = isinstance(failure, torch.AcceleratorError) and any(
                sign in text for sign in _FINAL_TEXTS
            )
            shortage_told = any(sign in text for sign in _MEMORY_TEXTS)
        else:
            lost, shortage_told = code in FINAL_ERRORS, code == OUT_OF_MEMORY
        if lost:
            raise EncoderLost(f"the GPU failed: {told}.") from failure
        if not shortage_told:
            raise
    else:
        return
    # Outside the handler, whose traceback holds the intermediate results.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    raise OutOfDeviceMemory(told)


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Move weights to the device.

    Raises:
        EncoderUnavailable: there is not enough memory for them.
        EncoderLost: the device failed.
    """
    try:
        with device_failures():
            yield
    except OutOfDeviceMemory as shortage:
        raise EncoderUnavailable(
            f"{model} does not fit into the GPU's free memory: {shortage}."
        ) from None
