"""Rules for how many images, frames or inputs one request may hold."""

from domain.errors import InvalidFrames, InvalidImages, InvalidInputs
from domain.limits import MAX_FRAMES, MAX_IMAGES, MAX_INPUTS


def check_image_count(count: int) -> None:
    """1 to `MAX_IMAGES` images.

    Raises:
        InvalidImages: there are none or too many.
    """
    if count == 0:
        raise InvalidImages(
            f"there are no images; a request must hold 1 to {MAX_IMAGES}.", code="no_images"
        )
    if count > MAX_IMAGES:
        raise InvalidImages(
            f"there are {count} images; a request may hold at most {MAX_IMAGES}.",
            code="too_many_images",
        )


def check_frame_count(count: int) -> None:
    """1 to `MAX_FRAMES` frames.

    Raises:
        InvalidFrames: there are none or too many.
    """
    if count == 0:
        raise InvalidFrames(
            f"there are no frames; images and embeddings must hold 1 to {MAX_FRAMES} in all.",
            code="no_frames",
        )
    if count > MAX_FRAMES:
        raise InvalidFrames(
            f"images and embeddings hold {count} frames in all; at most {MAX_FRAMES} are allowed.",
            code="too_many_frames",
        )


def check_input_count(count: int, *, field: str = "input") -> None:
    """1 to `MAX_INPUTS` inputs in the request's ``field``.

    Raises:
        InvalidInputs: there are none or too many.
    """
    if count == 0:
        raise InvalidInputs(
            f"{field} is empty; it must hold 1 to {MAX_INPUTS} entries.", code="no_inputs"
        )
    if count > MAX_INPUTS:
        raise InvalidInputs(
            f"{field} holds {count} entries; at most {MAX_INPUTS} are allowed.",
            code="too_many_inputs",
        )
