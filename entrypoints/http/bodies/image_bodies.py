"""An image as the whole body or as a file in a form, where otherwise it comes inside JSON."""

from dataclasses import dataclass
from typing import Any, Final

import multipart
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType

from domain.errors import InvalidImage
from entrypoints.http.bodies.json_bodies import (
    JsonRequest,
    MalformedBody,
    WrongContentType,
    WrongShape,
)
from entrypoints.http.schemas.contract import EmbedRequest

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
"""Declarations of a body that is an image file; its format is told by its own first bytes."""

_FORM: Final = "multipart/form-data"
_FIELDS: Final = ("image", "file")
_MAX_PARTS: Final = 16


class MalformedForm(MalformedBody):
    """The body is declared as a form and is not one."""

    code = "invalid_form"


class ImageRequest(JsonRequest):
    """A request whose one image may come in three ways: inside JSON, bare, or in a form."""

    async def body(self) -> bytes:
        """The raw body.

        Raises:
            WrongContentType: it is declared as something else; nothing of it is read then.
            NotJson: it is declared as JSON and empty.
            InvalidImage: it is not, and is empty.
            ClientGone: the client hung up before it had sent all.
        """
        if self.declares_json:
            return await super().body()
        if self.media_type != _FORM and self.media_type not in IMAGE_TYPES:
            raise WrongContentType(
                f"the body is declared as {self.media_type[:100]!r}; send 'application/json', "
                f"'{_FORM}', or the image itself as one of {', '.join(IMAGE_TYPES)}."
            )
        if not (body := await self.received()):
            raise InvalidImage("image is empty; it must hold an image file.", code="not_an_image")
        return body

    async def json(self) -> Any:
        """The image, in the struct that the handler takes.

        Raises:
            MalformedBody: it is not what it is declared to be.
            WrongShape, NotBase64: it holds no image.
        """
        if self.declares_json:
            return await super().json()
        body = await self.body()
        if self.media_type == _FORM:
            _, parameters = multipart.parse_options_header(self.headers["content-type"])
            return EmbedRequest(image=file_of_form(body, parameters.get("boundary", "")))
        return EmbedRequest(image=body)


def file_of_form(body: bytes, boundary: str) -> bytes:
    """The file in a form's field ``image`` or ``file``.

    Raises:
        MalformedForm: it is no form.
        WrongShape: there is no such field, or more than one.
    """
    try:
        files = _named_parts(body, boundary)
    except (multipart.MultipartError, UnicodeDecodeError, LookupError) as malformed:
        raise MalformedForm(
            f"the body is not a {_FORM} of at most {_MAX_PARTS} parts: {malformed}."
        ) from None
    if len(files) != 1:
        raise WrongShape(
            f"the form holds {len(files)} fields named {' or '.join(map(repr, _FIELDS))}; "
            "it must hold exactly one, an image file.",
            code="missing_field" if not files else None,
        )
    return files[0]


def _named_parts(body: bytes, boundary: str) -> list[bytes]:
    files: list[bytes] = []
    content = bytearray()
    wanted = False
    with multipart.PushMultipartParser(boundary, max_segment_count=_MAX_PARTS) as parser:
        for event in parser.parse(body):
            if isinstance(event, multipart.MultipartSegment):
                wanted = event.name in _FIELDS
                content = bytearray()
            elif event is None:
                if wanted:
                    files.append(bytes(content))
            elif wanted:
                content += event
    return files


@dataclass
class ImageOperation(Operation):
    """Documents the ways besides JSON."""

    def __post_init__(self) -> None:
        """Add them to the body that was derived from the handler."""
        if not isinstance(self.request_body, RequestBody):
            return
        binary = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
        form = Schema(type=OpenAPIType.OBJECT, properties={"image": binary}, required=["image"])
        self.request_body.content[_FORM] = OpenAPIMediaType(schema=form)
        for media_type in ("image/jpeg", "image/png", "application/octet-stream"):
            self.request_body.content[media_type] = OpenAPIMediaType(schema=binary)
