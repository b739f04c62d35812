"""An exported image tower on ONNX Runtime and the CPU."""

from pathlib import Path

import numpy as np
import onnxruntime

from adapters.export.towers import IMAGE_INPUT, IMAGE_OUTPUT
from adapters.hardware import usable_cores
from application.ports import PixelBatch, RawEmbeddings


class OnnxImageTower:
    """Runs an exported graph, to compare it with PyTorch."""

    def __init__(self, path: Path) -> None:
        """Load the graph and its weights."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`; at least one image."""
        (rows,) = self._session.run([IMAGE_OUTPUT], {IMAGE_INPUT: batch})
        return np.asarray(rows, dtype=np.float32)
