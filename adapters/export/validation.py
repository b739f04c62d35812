"""Whether an exported image tower still makes PyTorch's embeddings."""

from pathlib import Path

import numpy as np

from adapters.encoders.onnxruntime.image_tower import OnnxImageTower
from adapters.encoders.reference import reference_embeddings
from adapters.export.image_tower_file import check_exported_from
from adapters.images.photos import samples
from adapters.models.checkpoint import Checkpoint
from domain.embedding import Embedding, smallest_cosine


def agreement_with_pytorch(checkpoint: Checkpoint, exported: Path) -> float:
    """The smallest cosine over photos and random pixels, by ONNX Runtime against PyTorch.

    Args:
        checkpoint: what was exported.
        exported: the graph.

    Raises:
        InvalidCheckpoint: the graph is damaged, or another checkpoint's.
        EncoderFault: it makes vectors that are zero or not finite.
    """
    check_exported_from(checkpoint, exported)
    batch = samples()
    tower = OnnxImageTower(exported)
    rows = [tower.encode_images(pixels[np.newaxis])[0] for pixels in batch]
    return smallest_cosine(
        [Embedding.from_encoder(row) for row in rows], reference_embeddings(checkpoint, batch)
    )
