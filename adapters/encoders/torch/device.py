"""The device that PyTorch computes on, and what its failures mean."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from adapters.encoders.cuda import (
    FINAL_ERRORS,
    OUT_OF_MEMORY,
    NoGpu,
    OutOfDeviceMemory,
    why_no_gpu,
)
from application.ports import EncoderLost, EncoderUnavailable

_FINAL_TEXTS: Final = (
    *("illegal memory access", "launch timed out", "device-side assert", "hardware stack error"),
    *("illegal instruction", "misaligned address", "unspecified launch failure"),
    *("operation not supported on global/shared address space", "invalid program counter"),
)
"""What CUDA calls errors after which the process must be restarted, where there is no code."""

_MEMORY_TEXTS: Final = ("out of memory", "alloc_failed", "allocation failed")
"""How CUDA, cuBLAS and cuDNN call a lack of memory, in small letters."""


def check_cuda() -> None:
    """Return where PyTorch can use CUDA.

    Raises:
        NoGpu: it cannot; says why.
    """
    version = torch.version.cuda
    if version is None:
        raise NoGpu("the installed PyTorch was built without CUDA")
    # Of a driver that it cannot use, PyTorch only warns.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    said = str(told[0].message).partition("(Triggered")[0].strip(" .") if told else ""
    raise NoGpu(why_no_gpu(int(version.partition(".")[0]), said or "PyTorch finds no GPU"))


@contextmanager
def device_failures() -> Iterator[None]:
    """Tell a device that failed for good and a lack of memory from a fault of one call.

    Raises:
        OutOfDeviceMemory: there was no memory; what PyTorch kept for reuse is given back.
        EncoderLost: CUDA failed, and cannot be used by this process any more.
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
    # Outside of the handler, whose traceback holds what was being computed.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    raise OutOfDeviceMemory(told)


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Put weights on the device.

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
