"""Numbers in place of image files: the fake of the preparation port."""

from collections.abc import Mapping

from application.ports import CLIPS_INPUT, ImageInput, ImagePreparationPort, Pixels
from domain.errors import InvalidInput
from tests.support.encoders import pixels_of


class NumberedImages(ImagePreparationPort):
    """Turns a file that holds a number into pixels that `RecordingEncoder` knows.

    Keeps what it was given, and refuses what it is told to.
    """

    def __init__(self, refused: Mapping[bytes, InvalidInput] | None = None) -> None:
        self._refused = refused or {}
        self.prepared: list[bytes] = []

    async def prepare(self, data: bytes, image_input: ImageInput = CLIPS_INPUT) -> Pixels:
        self.prepared.append(data)
        if data in self._refused:
            raise self._refused[data]
        return pixels_of(float(data))
