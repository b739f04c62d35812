"""Which encoder the settings ask for, made on demand."""

import logging
from dataclasses import dataclass
from enum import StrEnum

from adapters.encoders.fake_encoder import FakeEncoder
from application.ports import Device, EncoderLoaderPort, EncoderPort, EncoderUnavailable

logger = logging.getLogger(__name__)


class EncoderChoice(StrEnum):
    """Encoders that can be asked for by name."""

    AUTO = "auto"
    TORCH = "torch"
    FAKE = "fake"


@dataclass(frozen=True, slots=True)
class EncoderSelection(EncoderLoaderPort):
    """Loads the chosen encoder.

    PyTorch is imported when it is first needed and not with this module, since that takes
    seconds and the server answers ``/health`` before.

    Attributes:
        choice: which encoder.
        checkpoint: what ``CLIP_MODEL_PATH`` names.
        embedding_dimension: floats per embedding that the service promises.
    """

    choice: EncoderChoice
    checkpoint: str
    embedding_dimension: int

    def probe_device(self) -> Device:
        """See `EncoderLoaderPort.probe_device`."""
        if self.choice is EncoderChoice.FAKE:
            return Device(name="cpu", cuda_available=False)
        from adapters.encoders import torch_encoder

        return torch_encoder.probe_device()

    def load(self) -> EncoderPort:
        """See `EncoderLoaderPort.load`."""
        if self.choice is EncoderChoice.FAKE:
            return FakeEncoder(embedding_dimension=self.embedding_dimension)
        return self._load_torch()

    def _load_torch(self) -> EncoderPort:
        import torch

        from adapters.checkpoints.checkpoint import InvalidCheckpoint
        from adapters.checkpoints.reading import read_checkpoint
        from adapters.encoders.torch_encoder import TorchEncoder

        device = self.probe_device()
        try:
            checkpoint = read_checkpoint(self.checkpoint)
            if checkpoint.embedding_dimension != self.embedding_dimension:
                raise InvalidCheckpoint(
                    f"{self.checkpoint} makes embeddings of {checkpoint.embedding_dimension} "
                    f"numbers, but this service promises {self.embedding_dimension} "
                    "(CLIP_EMBEDDING_DIMENSION)."
                )
            return TorchEncoder(
                checkpoint,
                device,
                dtype=torch.float16 if device.cuda_available else torch.float32,
            )
        except InvalidCheckpoint as invalid:
            raise EncoderUnavailable(str(invalid)) from invalid
