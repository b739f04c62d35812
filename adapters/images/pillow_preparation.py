"""The image preparation of the service: decoding, then normalising."""

from adapters.images.picture import decode_picture
from adapters.images.preprocessing import normalise
from application.ports import ImagePreparationPort, Pixels


class PillowImagePreparation(ImagePreparationPort):
    """Decodes where it is called; thread-safe and without state."""

    def prepare(self, data: bytes) -> Pixels:
        """See `ImagePreparationPort.prepare`."""
        return normalise(decode_picture(data))
