"""Exports image towers of any architecture to ONNX, by tracing OpenCLIP's own module."""

import warnings
from pathlib import Path

import onnxscript  # noqa: F401  # or the exporter fails, and only after a minute
import torch

from adapters.encoders.torch.encoder import DTYPES, build, take_image_tower
from adapters.encoders.torch.normalisation import Normalisation
from adapters.export.graph import OPSET
from adapters.export.towers import IMAGE_INPUT, IMAGE_OUTPUT
from adapters.models.checkpoint import Checkpoint
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.precision import Precision


def trace_image_tower(checkpoint: Checkpoint, path: Path, precision: Precision) -> None:
    """Write the graph, with its weights in a file beside it.

    Raises:
        InvalidCheckpoint: weights and architecture do not belong together, or float16 cannot hold
            the weights.
    """
    tower = _image_tower(checkpoint, DTYPES[precision])
    side = checkpoint.preprocessing.image_input.size
    if not all(torch.isfinite(weights).all() for weights in tower.parameters()):
        raise InvalidCheckpoint(
            f"{checkpoint.model} has weights that float16 cannot hold. Use fp32."
        )
    example = torch.zeros((2, 3, side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        torch.onnx.export(
            tower,
            (example,),
            str(path),
            input_names=[IMAGE_INPUT],
            output_names=[IMAGE_OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            opset_version=OPSET,
            external_data=True,
            dynamo=True,
            verbose=False,
        )


def _image_tower(checkpoint: Checkpoint, dtype: torch.dtype) -> torch.nn.Module:
    tower = take_image_tower(build(checkpoint, dtype))
    for module in tower.modules():
        # PyTorch multiplies float16 by float32 here; ONNX has no such operation.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.to(dtype)
    return _FloatInAndOut(tower, Normalisation(checkpoint.preprocessing), dtype).eval()


class _FloatInAndOut(torch.nn.Module):
    """A tower of another floating-point type, with float32 input and output."""

    def __init__(
        self, tower: torch.nn.Module, normalisation: Normalisation, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self._tower = tower
        self._normalisation = normalisation
        self._dtype = dtype

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        embeds: torch.Tensor = self._tower(self._normalisation(pixels).to(self._dtype))
        return embeds.float()
