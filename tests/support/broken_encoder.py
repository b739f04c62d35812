"""An encoder that fails once it has been warmed up."""

from adapters.encoders.fake import FakeEncoder
from application.ports import PixelBatch, RawEmbeddings


class BrokenEncoder(FakeEncoder):
    """Raises once it has been warmed up."""

    calls = 0

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("CUDA error at 0x7f in /opt/secret/kernel.cu")
        return super().encode_images(batch)
