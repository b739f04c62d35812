"""What PyTorch's failures mean."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from application.ports import EncoderLost


@contextmanager
def lost_devices_told() -> Iterator[None]:
    """Tell a device that failed for good from what is wrong with one input, or short of memory.

    Raises:
        EncoderLost: CUDA failed; it stays so for this process.
    """
    try:
        yield
    except torch.AcceleratorError as failure:
        raise EncoderLost(f"the GPU failed: {str(failure).splitlines()[0]}.") from failure
