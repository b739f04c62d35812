"""Half an encoder: the text tower, for encoders whose image tower runs on something else."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from application.ports import RawEmbeddings


class TextTower(ABC):
    """The text tower of one checkpoint, tokenizer included."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
