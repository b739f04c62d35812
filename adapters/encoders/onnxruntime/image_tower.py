"""An exported image tower on ONNX Runtime and the CPU."""

from pathlib import Path

import numpy as np

from adapters.encoders.onnxruntime.session import open_session
from adapters.export.towers import IMAGE_INPUT, IMAGE_OUTPUT
from application.ports import PixelBatch, RawEmbeddings


class OnnxImageTower:
    """Runs an exported graph, to compare it with PyTorch."""

    def __init__(self, path: Path) -> None:
        """Load the graph and its weights."""
        self._session = open_session(path)

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`; at least one image."""
        (rows,) = self._session.run([IMAGE_OUTPUT], {IMAGE_INPUT: batch})
        return np.asarray(rows, dtype=np.float32)
