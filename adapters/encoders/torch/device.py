"""The device that PyTorch computes on, and what its failures mean."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from adapters.encoders.cuda import NoGpu, why_no_gpu
from application.ports import EncoderLost


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
    """Tell a device that failed for good from a bad input or a lack of memory.

    Raises:
        EncoderLost: CUDA failed, and cannot be used by this process any more.
    """
    try:
        yield
    except torch.AcceleratorError as failure:
        raise EncoderLost(f"the GPU failed: {str(failure).splitlines()[0]}.") from failure
