"""Half an encoder: the text tower, for encoders whose image tower runs on something else."""

from collections.abc import Sequence
from typing import Protocol

from application.ports import RawEmbeddings


class TextTower(Protocol):
    """The text tower of one checkpoint, tokenizer included. Every whole encoder is one too."""

    def encode_texts(self, texts: Sequence[str], /) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
