"""Extracts one text or one image from an input that may hold both: CLIP embeds one at a time."""

from collections.abc import Sequence

from domain.errors import InvalidInputs
from entrypoints.http.bodies.base64_images import decode_image, refuse_address
from entrypoints.http.schemas.dialects import Part


def one_input(texts: Sequence[str], images: Sequence[str], *, name: str) -> bytes | str:
    """The one image, as its file's bytes, or the texts as one, a line each.

    Args:
        texts: blank ones count as not sent.
        images: as base64, bare or as data URIs.
        name: the client's name for the whole input.

    Raises:
        InvalidInputs: there are both, several images or nothing; or an address.
        NotBase64: the image is not base64.
    """
    told = [text for text in texts if text.strip()]
    if images and told:
        raise InvalidInputs(
            f"{name} holds a text and an image; CLIP embeds each by itself, in the same space. "
            "Send them as two inputs.",
            code="text_and_image",
        )
    if len(images) > 1:
        raise InvalidInputs(
            f"{name} holds {len(images)} images; each needs an input of its own.",
            code="several_images",
        )
    if images:
        return sent_image(images[0], name=name)
    if not told:
        raise InvalidInputs(
            f"{name} is blank; it must hold an image, or a text of at least one character.",
            code="blank_input",
        )
    return "\n".join(told)


def of_parts(parts: Sequence[Part], *, name: str) -> bytes | str:
    """The same for the parts of a message.

    Raises:
        InvalidInputs: a part is neither a text nor an image. Else as `one_input`.
    """
    texts: list[str] = []
    images: list[str] = []
    for place, part in enumerate(parts):
        if part.type == "text" and part.text is not None:
            texts.append(part.text)
        elif part.type == "image_url" and part.image_url is not None:
            sent = part.image_url
            images.append(sent if isinstance(sent, str) else sent.url)
        else:
            raise InvalidInputs(
                f"part {place} of {name} has the type {part.type[:100]!r} without the field for "
                "it; send 'text' with `text`, or 'image_url' with `image_url`.",
                code="unknown_part",
            )
    return one_input(texts, images, name=name)


def sent_image(text: str, *, name: str) -> bytes:
    """The bytes of an image's file, sent as base64, bare or as a data URI.

    Raises:
        InvalidInputs: it is a URL.
        NotBase64: it is not base64.
    """
    refuse_address(text, name=name)
    return decode_image(text, name=name)
