"""What other encoders are judged by: the image tower in float32."""

import importlib.util
import tempfile
from pathlib import Path

import numpy as np

from adapters.encoders.precision import Precision
from adapters.models.checkpoint import Checkpoint
from application.ports import PixelBatch
from domain.embedding import Embedding


def reference_embeddings(checkpoint: Checkpoint, batch: PixelBatch) -> list[Embedding]:
    """Embeddings by PyTorch in float32; by ONNX Runtime where PyTorch is not installed.

    Raises:
        InvalidCheckpoint: the checkpoint cannot be loaded.
    """
    # One image at a time: this may run beside an encoder that has most of the memory.
    if importlib.util.find_spec("torch") is not None:
        from adapters.encoders.torch.encoder import TorchEncoder, probe_device

        encoder = TorchEncoder(checkpoint, probe_device(), precision=Precision.FP32)
        rows = [encoder.encode_images(pixels[np.newaxis])[0] for pixels in batch]
    else:
        from adapters.encoders.onnxruntime.image_tower import OnnxImageTower
        from adapters.export.image_tower_file import export_image_tower

        with tempfile.TemporaryDirectory(prefix="clip-reference-") as scratch:
            path = Path(scratch) / "image_tower.onnx"
            export_image_tower(checkpoint, path, precision=Precision.FP32)
            tower = OnnxImageTower(path)
            rows = [tower.encode_images(pixels[np.newaxis])[0] for pixels in batch]
    return [Embedding.from_encoder(row) for row in rows]
