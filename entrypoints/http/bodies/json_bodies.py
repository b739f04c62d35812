"""From the bytes of a JSON body to a request struct, images straight from base64 to bytes."""

import functools
import re
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import InternalServerException

from domain.errors import InvalidInput
from domain.limits import MAX_JSON_BRACKETS, MAX_JSON_COMMAS
from entrypoints.http.bodies.base64_images import NotBase64, plainly
from entrypoints.http.middleware.disconnects import ClientGone

_Body = TypeVar("_Body")

_INVALID_BASE64: Final = "Invalid base64"
_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises at a body that is not JSON, or is nested deeper than anyone means it."""

_PLACE: Final = re.compile(r"`\$\.(.+?)`")
"""Where msgspec found something wrong, at the end of its messages."""


class MalformedBody(InvalidInput):
    """The body is not what it is declared to be."""

    code = "malformed_body"


class NotJson(MalformedBody):
    """The body is not well-formed JSON."""

    code = "invalid_json"


class WrongContentType(InvalidInput):
    """The body is declared to be something that is not taken here."""

    code = "unsupported_media_type"


class WrongShape(InvalidInput):
    """Well-formed JSON in which a field is missing or of another type."""

    code = "invalid_field"

    @property
    def field(self) -> str | None:
        """The outermost field that is wrong, where the message names one."""
        named = _PLACE.search(self.detail) or re.search(r"field `(\w+)`", self.detail)
        return re.split(r"[.\[]", named[1])[0] if named else None


class JsonRequest(Request[Any, Any, Any]):
    """A request whose body is decoded in one pass into the struct that its handler takes."""

    @property
    def media_type(self) -> str:
        """What the body is declared to be, in lower case; JSON where nothing is declared."""
        declared = self.headers.get("content-type", "application/json")
        return declared.partition(";")[0].strip().lower()

    @property
    def declares_json(self) -> bool:
        """Whether the body is declared as JSON."""
        return self.media_type == "application/json" or self.media_type.endswith("+json")

    async def body(self) -> bytes:
        """The raw body, never empty.

        Raises:
            WrongContentType: it is not declared as JSON; nothing of it is read then.
            NotJson: there is none.
            ClientGone: the client hung up before it had sent all.
        """
        if not self.declares_json:
            raise WrongContentType(
                f"the body is declared as {self.media_type[:100]!r}; send 'application/json'."
            )
        if not (body := await self.received()):
            raise NotJson("the body is empty; send a JSON object.")
        return body

    async def received(self) -> bytes:
        """The raw body, whatever it is declared to be and even if there is none.

        Raises:
            ClientGone: the client hung up before it had sent all.
        """
        try:
            return await super().body()
        except InternalServerException as interrupted:
            # Litestar takes a client that leaves for a fault of the server.
            raise ClientGone("the client hung up while it was sending") from interrupted

    async def json(self) -> Any:
        """The body as the handler's ``data`` type.

        Raises:
            NotJson, NotBase64, WrongShape: as `decode_body` says.
        """
        field = self.route_handler.parsed_data_field
        assert field is not None, "only handlers that take a body read one"
        return decode_body(await self.body(), field.annotation)


def decode_body(body: bytes, kind: type[_Body]) -> _Body:
    """Decode a JSON body.

    Args:
        body: the bytes as they were sent.
        kind: a msgspec struct; its ``bytes`` fields are sent as base64.

    Raises:
        NotJson: it is not well-formed JSON.
        NotBase64: a field that must be base64 is not.
        WrongShape: a field is missing or of another type, or there are too many values.
    """
    _check_values(body)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as invalid:
        reason = str(invalid)
    except _MALFORMED as malformed:
        raise _not_json(malformed) from None
    if reason.startswith(_INVALID_BASE64):
        # With line breaks, as the `base64` command writes it, or as a data URI. Those who send it
        # bare and unbroken don't pay.
        try:
            return msgspec.json.decode(_with_plain_base64(body, kind), type=kind)
        except msgspec.ValidationError as invalid:
            reason = str(invalid)
        except _MALFORMED as malformed:
            raise _not_json(malformed) from None
    _check_well_formed(body)
    raise _wrong_shape(reason)


def _check_values(body: bytes) -> None:
    for what, sign, limit in (
        ("commas", b",", MAX_JSON_COMMAS),
        ("opening brackets", b"[", MAX_JSON_BRACKETS),
    ):
        if (count := body.count(sign)) > limit:
            raise WrongShape(
                f"the body has {count} {what}; at most {limit} are allowed.",
                code="too_many_values",
            )


def _check_well_formed(body: bytes) -> None:
    """A wrong type may have been met before a syntax error further on; then the latter counts."""
    try:
        body.decode()  # which the next line takes for granted
        msgspec.json.decode(body, type=msgspec.Raw)  # makes nothing of it, be it a million values
    except _MALFORMED as malformed:
        raise _not_json(malformed) from None


def _not_json(malformed: Exception) -> NotJson:
    reason = "it is nested too deeply" if isinstance(malformed, RecursionError) else str(malformed)
    return NotJson(f"the body is not JSON: {reason.rstrip('.')}.")


def _with_plain_base64(body: bytes, kind: type[Any]) -> bytes:
    """The same body with white space and data URIs' heads taken out of its base64 fields."""
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
    """A struct of the same fields, each as it was sent and empty where it was not.

    Unlike a dict it makes nothing of fields that nobody knows, of which there may be a million.
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


def _wrong_shape(message: str) -> InvalidInput:
    """Msgspec's message says what was expected and where, and never repeats a value."""
    if message.startswith("Object missing required field"):
        return WrongShape(f"{message}.", code="missing_field")
    if message.startswith(_INVALID_BASE64):
        place = _PLACE.search(message)
        return NotBase64.called(place[1] if place else "image")
    return WrongShape(f"{message.replace('`bytes`', 'base64 text')}.")
