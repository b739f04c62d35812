"""Both towers on ONNX Runtime and the CPU, without PyTorch and without compiling."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from adapters.export.towers import IMAGE_INPUT, IMAGE_OUTPUT, TEXT_INPUT, TEXT_OUTPUT
from adapters.images.preprocessing import as_pixels
from adapters.models.bundle import Bundle
from adapters.models.tokens import batches_by_length
from adapters.system.hardware import usable_cores
from application.ports import PixelBatch, RawEmbeddings, TextTower, TokenCount


class OnnxImageTower:
    """An exported image tower, for comparison with others."""

    def __init__(self, path: Path) -> None:
        """Load the graph and its weights."""
        self._session = open_session(path)

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`; at least one image."""
        (rows,) = self._session.run([IMAGE_OUTPUT], {IMAGE_INPUT: as_pixels(batch)})
        return np.asarray(rows, dtype=np.float32)


class OnnxTextTower(TextTower):
    """A bundle's text tower in float32."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the graph and the tokenizer of a bundle."""
        self._session = open_session(bundle.text_tower)
        self._tokenizer = bundle.tokenizer()
        self._padding = bundle.tokenization.padding
        self._embedding_dimension = bundle.embedding_dimension

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
        tokens = self._tokenizer(texts)
        embeddings = np.empty((len(tokens), self._embedding_dimension), dtype=np.float32)
        for places, padded in batches_by_length(tokens, self._padding):
            (embeddings[places],) = self._session.run([TEXT_OUTPUT], {TEXT_INPUT: padded})
        return embeddings

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """See `EncoderPort.count_tokens`."""
        return self._tokenizer.count(texts)


def open_session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """A session on all usable cores; a graph given as bytes holds its weights itself."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    # Idle threads would spin while they wait, and take cores from busy threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
