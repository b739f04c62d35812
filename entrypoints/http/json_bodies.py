"""From the bytes of a JSON body to a request struct, images straight from base64 to bytes."""

from typing import Any, Final, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import InternalServerException

from domain.errors import InvalidInput
from entrypoints.http.disconnects import ClientGone

_Body = TypeVar("_Body")

_INVALID_BASE64: Final = "Invalid base64"
_DROP_WHITE_SPACE: Final = str.maketrans("", "", " \t\r\n\v\f")


class NotJson(InvalidInput):
    """The body is not well-formed JSON."""

    code = "invalid_json"


class WrongContentType(InvalidInput):
    """The body is declared to be something other than JSON."""

    code = "unsupported_media_type"


class WrongShape(InvalidInput):
    """Well-formed JSON in which a field is missing or of another type."""

    code = "invalid_field"


class JsonRequest(Request[Any, Any, Any]):
    """A request whose body is decoded in one pass into the struct that its handler takes."""

    async def body(self) -> bytes:
        """The raw body, never empty.

        Raises:
            WrongContentType: it is not declared as JSON; nothing of it is read then.
            NotJson: there is none.
            ClientGone: the client hung up before it had sent all.
        """
        declared = self.headers.get("content-type", "application/json")
        media_type = declared.partition(";")[0].strip().lower()
        if media_type != "application/json" and not media_type.endswith("+json"):
            raise WrongContentType(
                f"the body is declared as {media_type[:100]!r}; send 'application/json'."
            )
        try:
            body = await super().body()
        except InternalServerException as interrupted:
            # Litestar takes a client that leaves for a fault of the server.
            raise ClientGone("the client hung up while it was sending") from interrupted
        if not body:
            raise NotJson("the body is empty; send a JSON object.")
        return body

    async def json(self) -> Any:
        """The body as the handler's ``data`` type.

        Raises:
            NotJson, WrongShape: as `decode_body` says.
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
        WrongShape: a field is missing, of another type, or not base64.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as invalid:
        reason = str(invalid)
    except (msgspec.DecodeError, UnicodeDecodeError) as malformed:
        raise _not_json(malformed) from None
    if reason.startswith(_INVALID_BASE64):
        # As the `base64` command writes it, with line breaks. Those who send none don't pay.
        try:
            return msgspec.json.decode(_without_white_space(body, kind), type=kind)
        except msgspec.ValidationError as invalid:
            reason = str(invalid)
        except (msgspec.DecodeError, UnicodeDecodeError) as malformed:
            raise _not_json(malformed) from None
    _check_well_formed(body)
    raise _wrong_shape(reason)


def _check_well_formed(body: bytes) -> None:
    """A wrong type may have been met before a syntax error further on; then the latter counts."""
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:  # a number too large for a float is well-formed
        return
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as malformed:
        raise _not_json(malformed) from None


def _not_json(malformed: Exception) -> NotJson:
    return NotJson(f"the body is not JSON: {malformed}.")


def _without_white_space(body: bytes, kind: type[Any]) -> bytes:
    """The same body with all white space taken out of its base64 fields."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for field in msgspec.structs.fields(kind):
        if _is_base64(field.type) and field.encode_name in fields:
            text = msgspec.json.decode(fields[field.encode_name], type=str)
            compact = msgspec.json.encode(text.translate(_DROP_WHITE_SPACE))
            fields[field.encode_name] = msgspec.Raw(compact)
    return msgspec.json.encode(fields)


def _is_base64(annotation: Any) -> bool:
    kind = msgspec.inspect.type_info(annotation)
    if isinstance(kind, msgspec.inspect.Metadata):
        kind = kind.type
    return isinstance(kind, msgspec.inspect.BytesType)


def _wrong_shape(message: str) -> WrongShape:
    """Msgspec's message says what was expected and where, and never repeats a value."""
    if message.startswith("Object missing required field"):
        return WrongShape(f"{message}.", code="missing_field")
    if message.startswith(_INVALID_BASE64):
        return WrongShape(
            "image is not base64; send the file's bytes in standard base64 with padding "
            "(white space is ignored).",
            code="invalid_base64",
        )
    return WrongShape(f"{message.replace('`bytes`', 'base64 text')}.")
