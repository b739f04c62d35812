"""A form (``multipart/form-data``), whose files are images."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import multipart

from domain.limits import MAX_IMAGES, MAX_LABELS
from entrypoints.http.bodies.json import Decoded, nearest_field, wrong_shape
from entrypoints.http.errors.table import MalformedForm, WrongShape

_Body = TypeVar("_Body")

_MAX_PARTS: Final = MAX_IMAGES + MAX_LABELS + 32
_ALIASES: Final = {"file": "image"}
"""Other names for a field."""

_REASONS: Final = (
    ("boundary", "its boundary is missing or not allowed"),
    ("segment count", f"it has more than {_MAX_PARTS} parts"),
    ("header", "a part's header is too long, missing or not well-formed"),
    ("Unexpected end", "it ends before its last boundary"),
)
"""Our message for the client, by a part of the parser's message."""


def decode_form(body: bytes, kind: type[_Body], boundary: str) -> Decoded[_Body]:
    """Decode a form.

    A list field is sent several times, or once as a JSON array. An embedding must be an array,
    since a form may not have that many parts.

    Args:
        body: the bytes as they were sent.
        kind: a msgspec struct; its ``bytes`` fields are files.
        boundary: of the form's parts, as the content type declares it.

    Raises:
        MalformedForm: it is not a form, or has too many parts.
        WrongShape: a field is missing, of another type, or sent more than once.
    """
    known = {*_fields(kind), *(name for name, field in _ALIASES.items() if field in _fields(kind))}
    try:
        parts, unknown = _parts(body, boundary, known)
    except multipart.MultipartError as malformed:
        reason = next((told for part, told in _REASONS if part in str(malformed)), "it is damaged")
        raise MalformedForm(
            f"the body is not a multipart/form-data of at most {_MAX_PARTS} parts: {reason}."
        ) from None
    files = {name: parts.pop(name, []) for name in image_fields(kind)}
    texts = {name: [_text(name, value) for value in values] for name, values in parts.items()}
    return from_fields(kind, texts, files, "form", unknown=unknown)


def image_fields(kind: type[Any]) -> list[str]:
    """The request's image fields, in order."""
    return [name for name, type_ in _fields(kind).items() if _is_image(type_)]


def from_fields(
    kind: type[_Body],
    texts: Mapping[str, Sequence[str]],
    files: Mapping[str, Sequence[bytes]],
    where: str,
    *,
    unknown: str | None = None,
) -> Decoded[_Body]:
    """Build a request's struct from texts and files.

    Args:
        kind: a msgspec struct.
        texts: every value of each field that is not an image.
        files: every value of each image field.
        where: ``form`` or ``query``.
        unknown: an unknown field in the request, if there is one.

    Raises:
        WrongShape: a field is missing, of another type, or sent more than once.
    """
    types = _fields(kind)
    values: dict[str, Any] = {}
    for name, sent in (*texts.items(), *files.items()):
        if name not in types:
            unknown = unknown or name
        elif _takes_several(types[name]):
            values[name] = _several(sent)
        elif len(sent) == 1:
            values[name] = sent[0]
        elif sent or types[name] is types.get("image"):
            names = [repr(name), *(repr(also) for also, of in _ALIASES.items() if of == name)]
            raise WrongShape(
                f"the {where} holds {len(sent)} fields named {' or '.join(names)}; "
                f"it must hold exactly one{', an image file' if name in files else ''}.",
                code=None if sent else "missing_field",
                field=name,
            )
    hint = None if unknown is None else nearest_field(unknown, kind)
    try:
        return Decoded(msgspec.convert(values, kind, strict=False), hint)
    except msgspec.ValidationError as invalid:
        raise wrong_shape(str(invalid), hint) from None


def _parts(
    body: bytes, boundary: str, known: "set[str]"
) -> tuple[dict[str, list[bytes]], str | None]:
    """The values of each known field, and the first unknown field, whose content is dropped."""
    values: dict[str, list[bytes]] = {}
    unknown: str | None = None
    content: bytearray | None = None
    name = ""
    # Latin-1 decodes any bytes: a file's name has no effect, whatever its encoding.
    with multipart.PushMultipartParser(
        boundary, max_segment_count=_MAX_PARTS, header_charset="latin-1"
    ) as parser:
        for event in parser.parse(body):
            if isinstance(event, multipart.MultipartSegment):
                name = event.name
                content = bytearray() if name in known else None
                if content is None:
                    unknown = unknown or name
            elif content is None:
                continue
            elif event is None:
                values.setdefault(_ALIASES.get(name, name), []).append(bytes(content))
            else:
                content += event
    return values, unknown


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise WrongShape(f"the form's field {name!r} is not text in UTF-8.", field=name) from None


def _several(sent: Sequence[Any]) -> Any:
    """The values of a list: each sent by itself, or all of them as one JSON array."""
    if len(sent) == 1 and isinstance(sent[0], str) and sent[0].lstrip().startswith("["):
        try:
            return msgspec.json.decode(sent[0])
        except (msgspec.DecodeError, RecursionError):
            return sent
    return sent


def _fields(kind: type[Any]) -> Mapping[str, msgspec.inspect.Type]:
    """Each field's type by its name."""
    return _fields_once(kind)  # type: ignore[arg-type] # is hashable


@functools.cache
def _fields_once(kind: type[Any]) -> dict[str, msgspec.inspect.Type]:
    return {field.encode_name: msgspec.inspect.type_info(field.type)
            for field in msgspec.structs.fields(kind)}  # fmt: skip


def _plain_types(kind: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    match kind:
        case msgspec.inspect.Metadata(type=inner):
            return _plain_types(inner)
        case msgspec.inspect.UnionType(types=alternatives):
            return [plain for each in alternatives for plain in _plain_types(each)]
        case _:
            return [kind]


def _takes_several(kind: msgspec.inspect.Type) -> bool:
    return any(isinstance(plain, msgspec.inspect.ListType) for plain in _plain_types(kind))


def _is_image(kind: msgspec.inspect.Type) -> bool:
    return any(
        isinstance(plain, msgspec.inspect.BytesType)
        or (isinstance(plain, msgspec.inspect.ListType) and _is_image(plain.item_type))
        for plain in _plain_types(kind)
    )
