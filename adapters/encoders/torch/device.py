"""The device that PyTorch computes on, and what its failures mean."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from application.ports import Device, EncoderLost


def probe_device() -> Device:
    """``cuda:0`` where PyTorch can use it, else ``cpu``."""
    cuda = torch.cuda.is_available()
    return Device(name="cuda:0" if cuda else "cpu", cuda_available=cuda)


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
