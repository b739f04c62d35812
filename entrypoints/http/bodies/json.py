"""A JSON body, whose images are decoded from base64 straight to bytes."""

import difflib
import functools
import re
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from domain.errors import InvalidInput
from domain.limits import MAX_JSON_BRACKETS, MAX_JSON_COMMAS, MAX_JSON_LARGE_EXPONENTS
from entrypoints.http.bodies.base64_images import NotBase64, plainly
from entrypoints.http.errors.table import NotJson, WrongShape

_Body = TypeVar("_Body")

_INVALID_BASE64: Final = "Invalid base64"
_UNKNOWN_FIELD: Final = "Object contains unknown field `"
_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a body that is not JSON, or is nested far too deeply."""

_PLACE: Final = re.compile(r"`\$\.([^`]+)`")
"""The place of the error, at the end of msgspec's messages."""

_FEW: Final = 32
"""Up to this many signs are found one by one; beyond that they are counted."""

_LARGE_EXPONENT: Final = re.compile(rb"[\[,:]\s*+-?[0-9.]++[eE][+-]?[0-9]{3}")
"""A number whose exponent has three or more digits, outside of base64, and in linear time."""

_FIELD: Final = re.compile(r"required field `(\w+)`")

_MAX_NAME: Final = 60
"""Characters of an unknown field's name that are reported."""


@dataclass(frozen=True, slots=True)
class Decoded(Generic[_Body]):
    """A request's body.

    Attributes:
        data: the struct.
        unknown_field: the first unknown field and the known one with the most similar name, in
            printable ASCII; None if there is none.
    """

    data: _Body
    unknown_field: str | None = None


def decode_json(body: bytes, kind: type[_Body]) -> Decoded[_Body]:
    """Decode a JSON body.

    Args:
        body: the bytes as they were sent.
        kind: a msgspec struct; its ``bytes`` fields are sent as base64.

    Raises:
        NotJson: it is not well-formed JSON, or empty.
        NotBase64: a field that must be base64 is not.
        WrongShape: a field is missing or of another type, or there are too many values.
    """
    if not body:
        raise NotJson("the body is empty; send a JSON object.")
    _check_values(body)
    # Fast path: only known fields, and base64 that is bare and without line breaks.
    try:
        return Decoded(msgspec.json.decode(body, type=_strict(kind)))
    except msgspec.ValidationError as invalid:
        reason = str(invalid)
    except _MALFORMED as malformed:
        raise _not_json(malformed) from None
    try:
        unknown = _unknown_field(body, kind)
        if reason.startswith(_UNKNOWN_FIELD):
            try:
                return Decoded(msgspec.json.decode(body, type=kind), unknown)
            except msgspec.ValidationError as invalid:
                reason = str(invalid)
        if reason.startswith(_INVALID_BASE64):
            # With line breaks, as the `base64` command writes it, or as a data URI.
            try:
                plain = _with_plain_base64(body, kind)
                return Decoded(msgspec.json.decode(plain, type=kind), unknown)
            except msgspec.ValidationError as invalid:
                reason = str(invalid)
        # There may be a syntax error after the wrong type; then the syntax error counts.
        body.decode()  # the next line assumes valid UTF-8
        msgspec.json.decode(body, type=msgspec.Raw)  # builds no objects, even for a million values
    except _MALFORMED as malformed:
        raise _not_json(malformed) from None
    raise wrong_shape(reason, unknown)


def nearest_field(unknown: str, kind: type[Any]) -> str:
    """An unknown field's name and the known one that may be meant, in printable ASCII."""
    shown = ascii(unknown[:_MAX_NAME])[1:-1]
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    near = difflib.get_close_matches(unknown[:_MAX_NAME], names, n=1)
    return f"{shown}; did you mean {near[0]}?" if near else shown


def wrong_shape(message: str, unknown_field: str | None = None) -> InvalidInput:
    """The error for a msgspec message: it says what was expected and where, never a value."""
    place = _PLACE.search(message)
    if message.startswith("Object missing required field"):
        named = _FIELD.search(message)
        hint = "" if unknown_field is None else f"; it has the unknown field {unknown_field}"
        return WrongShape(
            f"{message}{hint}" if hint.endswith("?") else f"{message}{hint}.",
            code="missing_field",
            field=named[1] if named else None,
        )
    if message.startswith(_INVALID_BASE64):
        return NotBase64.called(place[1] if place else "image")
    return WrongShape(
        f"{message.replace('`bytes`', 'base64 text')}.",
        field=re.split(r"[.\[]", place[1])[0] if place else None,
    )


def _strict(kind: type[_Body]) -> type[_Body]:
    """The same struct, which refuses fields that it does not know."""
    strict: type[_Body] = _strict_once(kind)  # type: ignore[arg-type] # is hashable
    return strict


@functools.cache
def _strict_once(kind: type[Any]) -> Any:
    return msgspec.defstruct(kind.__name__, [], bases=(kind,), forbid_unknown_fields=True)


def _unknown_field(body: bytes, kind: type[Any]) -> str | None:
    """The first unknown field of a body, in the words of `nearest_field`."""
    try:
        msgspec.json.decode(
            body,
            type=_strict(_undecoded(kind)),  # type: ignore[arg-type] # is hashable
        )
    except msgspec.ValidationError as invalid:
        message = str(invalid)
        if message.startswith(_UNKNOWN_FIELD):
            return nearest_field(message[len(_UNKNOWN_FIELD) :].rpartition("`")[0], kind)
    return None


def _check_values(body: bytes) -> None:
    commas = _count(body, b",")
    for what, count, limit in (
        ("commas", commas, MAX_JSON_COMMAS),
        ("opening brackets", _count(body, b"["), MAX_JSON_BRACKETS),
    ):
        if count > limit:
            raise WrongShape(
                f"the body has {count} {what}; at most {limit} are allowed.",
                code="too_many_values",
            )
    # Few commas mean few numbers; then there is no need to search a large image.
    if commas > MAX_JSON_LARGE_EXPONENTS:
        count = sum(1 for _ in _LARGE_EXPONENT.finditer(body))
        if count > MAX_JSON_LARGE_EXPONENTS:
            raise WrongShape(
                f"the body has {count} numbers with an exponent of three or more digits; at most "
                f"{MAX_JSON_LARGE_EXPONENTS} are allowed.",
                code="too_many_values",
            )


def _count(body: bytes, sign: bytes) -> int:
    """How often a sign occurs. Finding a few in an image is ten times faster than counting."""
    place = -1
    for found in range(_FEW):
        place = body.find(sign, place + 1)
        if place < 0:
            return found
    return body.count(sign)


def _not_json(malformed: Exception) -> NotJson:
    reason = "it is nested too deeply" if isinstance(malformed, RecursionError) else str(malformed)
    return NotJson(f"the body is not JSON: {reason.rstrip('.')}.")


def _with_plain_base64(body: bytes, kind: type[Any]) -> bytes:
    """The same body, with white space and data URI prefixes removed from its base64 fields."""
    sent = msgspec.json.decode(body, type=_undecoded(kind))  # type: ignore[arg-type] # is hashable
    fields: dict[str, msgspec.Raw] = {}
    for field in msgspec.structs.fields(kind):
        raw: msgspec.Raw = getattr(sent, field.encode_name)
        if len(raw) and _holds_base64(msgspec.inspect.type_info(field.type)):
            raw = msgspec.Raw(msgspec.json.encode(plainly(msgspec.json.decode(raw))))
        if len(raw):
            fields[field.encode_name] = raw
    return msgspec.json.encode(fields)


@functools.cache
def _undecoded(kind: type[Any]) -> type[msgspec.Struct]:
    """A struct of the same fields, each undecoded, and empty if it was not sent.

    Unlike a dict, it builds nothing for unknown fields; there may be a million of them.
    """
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    return msgspec.defstruct("Undecoded", [(name, msgspec.Raw, msgspec.Raw()) for name in names])


def _holds_base64(kind: msgspec.inspect.Type) -> bool:
    match kind:
        case msgspec.inspect.BytesType():
            return True
        case msgspec.inspect.Metadata(type=inner) | msgspec.inspect.ListType(item_type=inner):
            return _holds_base64(inner)
        case msgspec.inspect.UnionType(types=alternatives):
            return any(map(_holds_base64, alternatives))
        case _:
            return False
