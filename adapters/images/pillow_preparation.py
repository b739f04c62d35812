"""The image preparation of the service: decoding, then normalising."""

from adapters.images.picture import decode_picture
from adapters.images.preprocessing import normalise
from application.ports import ImagePreparationPort, Pixels
from domain.limits import MAX_DECODED_PIXELS


class PillowImagePreparation(ImagePreparationPort):
    """Decodes where it is called; thread-safe and without state."""

    def __init__(self, *, max_pixels: int = MAX_DECODED_PIXELS) -> None:
        self._max_pixels = max_pixels

    def prepare(self, data: bytes) -> Pixels:
        """See `ImagePreparationPort.prepare`."""
        return normalise(decode_picture(data, max_pixels=self._max_pixels))
