"""Image preparation in threads of this process, for systems without decoding workers."""

import asyncio

from adapters.images.picture import decode_picture
from adapters.images.preprocessing import channels_first
from application.ports import CLIPS_INPUT, ImageInput, ImagePreparationPort, Pixels
from domain.limits import MAX_DECODED_PIXELS


class PillowImagePreparation(ImagePreparationPort):
    """Decodes in the event loop's threads; without state."""

    def __init__(self, *, max_pixels: int = MAX_DECODED_PIXELS) -> None:
        self._max_pixels = max_pixels

    async def prepare(self, data: bytes, image_input: ImageInput = CLIPS_INPUT) -> Pixels:
        """See `ImagePreparationPort.prepare`."""
        return await asyncio.to_thread(
            prepare_picture, data, image_input=image_input, max_pixels=self._max_pixels
        )


def prepare_picture(
    data: bytes, *, image_input: ImageInput = CLIPS_INPUT, max_pixels: int = MAX_DECODED_PIXELS
) -> Pixels:
    """Levels of one image file for the image tower, decoded in the calling thread.

    Raises:
        ImageTooLarge, InvalidImage, MemoryError: as `decode_picture` says.
    """
    return channels_first(decode_picture(data, image_input=image_input, max_pixels=max_pixels))
