"""Image preparation in the calling thread, for systems without decoding workers."""

from adapters.images.picture import decode_picture
from adapters.images.preprocessing import channels_first
from application.ports import CLIPS_INPUT, ImageInput, ImagePreparationPort, Pixels
from domain.limits import MAX_DECODED_PIXELS


class PillowImagePreparation(ImagePreparationPort):
    """Decodes in the calling thread; thread-safe and without state."""

    def __init__(self, *, max_pixels: int = MAX_DECODED_PIXELS) -> None:
        self._max_pixels = max_pixels

    def prepare(self, data: bytes, image_input: ImageInput = CLIPS_INPUT) -> Pixels:
        """See `ImagePreparationPort.prepare`."""
        levels = decode_picture(data, image_input=image_input, max_pixels=self._max_pixels)
        return channels_first(levels)
