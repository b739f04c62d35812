"""From CLIP's normalisation to the checkpoint's own, on PyTorch."""

import torch

from adapters.models.preprocessing import Preprocessing


class Normalisation(torch.nn.Module):
    """float32 ``[n, 3, h, w]``, normalised as CLIP does it → as the checkpoint wants it."""

    factor: torch.Tensor
    summand: torch.Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._converts = preprocessing.conversion is not None
        if preprocessing.conversion is not None:
            factor, summand = preprocessing.conversion
            self.register_buffer("factor", torch.from_numpy(factor))
            self.register_buffer("summand", torch.from_numpy(summand))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The same pixels where the checkpoint is normalised as CLIP is."""
        return pixels * self.factor + self.summand if self._converts else pixels
