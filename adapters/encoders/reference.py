"""The reference for other encoders: the image tower in float32."""

import tempfile
from pathlib import Path

import numpy as np

from adapters.encoders.gpu import GpuProbe
from adapters.encoders.image_tower_export import export_image_tower
from adapters.export.image_tower_file import check_exported_from
from adapters.images.photos import samples
from adapters.models.checkpoint import Checkpoint
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.precision import Precision
from adapters.system.installation import install_command, is_installed
from application.ports import PixelBatch
from domain.embedding import Embedding


def reference_embeddings(checkpoint: Checkpoint, batch: PixelBatch) -> list[Embedding]:
    """Embeddings from PyTorch in float32; from ONNX Runtime if PyTorch is not installed.

    Raises:
        InvalidCheckpoint: the checkpoint cannot be loaded, or neither of the two is installed.
    """
    if not is_installed("torch"):
        with tempfile.TemporaryDirectory(prefix="clip-reference-") as scratch:
            path = Path(scratch) / "image_tower.onnx"
            export_image_tower(checkpoint, path, precision=Precision.FP32)
            return _by_onnx_runtime(path, batch)
    # Imported here: PyTorch takes seconds to import, and is not needed everywhere.
    from adapters.encoders.torch.encoder import TorchEncoder

    encoder = TorchEncoder(checkpoint, GpuProbe()(), precision=Precision.FP32)
    # One image at a time: another encoder may use most of the memory.
    rows = [encoder.encode_images(pixels[np.newaxis])[0] for pixels in batch]
    return [Embedding.from_encoder(row) for row in rows]


def exported_and_reference(
    checkpoint: Checkpoint, exported: Path
) -> tuple[list[Embedding], list[Embedding]]:
    """Embeddings of photos and random pixels from an exported image tower, and from PyTorch.

    Args:
        checkpoint: the exported checkpoint.
        exported: the graph, which is run by ONNX Runtime.

    Raises:
        InvalidCheckpoint: the graph is damaged or another checkpoint's, or ONNX Runtime is not
            installed.
        EncoderFault: the graph makes vectors that are zero or not finite.
    """
    check_exported_from(checkpoint, exported)
    batch = samples(checkpoint.preprocessing.image_input)
    return _by_onnx_runtime(exported, batch), reference_embeddings(checkpoint, batch)


def _by_onnx_runtime(graph: Path, batch: PixelBatch) -> list[Embedding]:
    try:
        from adapters.encoders.onnxruntime.towers import OnnxImageTower
    except ImportError as missing:
        raise InvalidCheckpoint(
            f"comparing an exported image tower needs {missing.name}, which is not installed. "
            f"Run: {install_command('engine')}"
        ) from missing
    tower = OnnxImageTower(graph)
    rows = [tower.encode_images(pixels[np.newaxis])[0] for pixels in batch]
    return [Embedding.from_encoder(row) for row in rows]
