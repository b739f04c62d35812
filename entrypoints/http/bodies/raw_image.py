"""A body that is an image file, with the other fields in the query."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from domain.errors import InvalidImage
from entrypoints.http.bodies.form import from_fields, image_fields
from entrypoints.http.bodies.json import Decoded

_Body = TypeVar("_Body")

IMAGE_TYPES: Final = (
    "image/jpeg",
    "image/jpg",
    "image/pjpeg",
    "image/png",
    "image/gif",
    "image/bmp",
    "image/x-ms-bmp",
    "image/webp",
    "image/mpo",
    "application/octet-stream",
)
"""Content types of a body that is an image file; its first bytes decide which format it has."""


def decode_raw_image(
    body: bytes, kind: type[_Body], query: Mapping[str, Sequence[str]]
) -> Decoded[_Body]:
    """Decode a body that is an image file.

    Args:
        body: the file's bytes.
        kind: a msgspec struct; the body is its first image field.
        query: the values of each of the struct's other fields.

    Raises:
        InvalidImage: there is no body.
        WrongShape: a field is missing or of another type.
    """
    if not body:
        raise InvalidImage("image is empty; it must hold an image file.", code="not_an_image")
    return from_fields(kind, query, {image_fields(kind)[0]: [body]}, "query")
