"""The text tower on ONNX Runtime and the CPU, where PyTorch is not installed."""

from collections.abc import Sequence

import numpy as np

from adapters.encoders.onnxruntime.session import open_session
from adapters.encoders.text_tower import TextTower
from adapters.export.towers import TEXT_INPUT, TEXT_OUTPUT
from adapters.models.bundle import Bundle
from adapters.models.tokenizer import batches_by_length
from application.ports import RawEmbeddings


class OnnxTextTower(TextTower):
    """A bundle's text tower in float32."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the graph and the tokenizer of a bundle."""
        self._session = open_session(bundle.text_tower)
        self._tokenizer = bundle.tokenizer()
        self._embedding_dimension = bundle.embedding_dimension

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
        tokens = self._tokenizer(texts)
        embeddings = np.empty((len(tokens), self._embedding_dimension), dtype=np.float32)
        for places, padded in batches_by_length(tokens):
            (embeddings[places],) = self._session.run([TEXT_OUTPUT], {TEXT_INPUT: padded})
        return embeddings
