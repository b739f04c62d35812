"""From levels or CLIP's normalisation to the checkpoint's own, on PyTorch and its device."""

import torch

from adapters.images.preprocessing import LEVELS_TO_PIXELS
from adapters.models.preprocessing import Preprocessing


class Normalisation(torch.nn.Module):
    """``[n, 3, h, w]``, uint8 or float32 normalised as CLIP does it → as the checkpoint wants it.

    The image tower takes what it is given by `application.ports.Pixels`.
    """

    factor: torch.Tensor
    summand: torch.Tensor
    of_level: torch.Tensor
    subtrahend: torch.Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        of_level, subtrahend = map(torch.from_numpy, LEVELS_TO_PIXELS)
        self.register_buffer("of_level", of_level)
        self.register_buffer("subtrahend", subtrahend)
        self._converts = preprocessing.conversion is not None
        if preprocessing.conversion is not None:
            factor, summand = preprocessing.conversion
            self.register_buffer("factor", torch.from_numpy(factor))
            self.register_buffer("summand", torch.from_numpy(summand))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32, on the same device; the same pixels where the checkpoint is as CLIP is."""
        if pixels.dtype == torch.uint8:
            pixels = pixels * self.of_level - self.subtrahend
        return pixels * self.factor + self.summand if self._converts else pixels
