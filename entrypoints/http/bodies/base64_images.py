"""Image files sent as base64, bare or as a data URI."""

import re
from typing import Any, Final

import msgspec
import numpy as np

from domain.errors import InvalidInput, InvalidInputs

_DROP_WHITE_SPACE: Final = str.maketrans("", "", " \t\r\n\v\f")
_DATA_URI: Final = re.compile(r"\s*+data:([^,]{0,256}+),", re.IGNORECASE)
"""RFC 2397's ``data:[<media type>][;<parameter>]*[;base64],`` up to its comma.

Possessive, so that it never backtracks: that would take seconds on megabytes of white space.
"""

_HEX_DIGITS: Final = np.full(256, 255, dtype=np.uint8)
_HEX_DIGITS[np.frombuffer(b"0123456789", np.uint8)] = np.arange(10)
_HEX_DIGITS[np.frombuffer(b"abcdef", np.uint8)] = np.arange(10, 16)
_HEX_DIGITS[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)
"""uint8 ``[256]``: a hexadecimal digit's value by its ASCII code; 255 for other characters."""


_ADDRESS: Final = re.compile(r"\s*https?://\S+\s*", re.IGNORECASE)
"""A text that is only a URL."""


class NotBase64(InvalidInput):
    """A field that must hold an image as base64 does not."""

    code = "invalid_base64"

    @classmethod
    def called(cls, name: str) -> "NotBase64":
        """The error for the field that the client calls ``name``."""
        return cls(
            f"{name} is not base64; send the file's bytes in standard base64 with padding, bare or "
            "as a data URI that says `;base64` (white space is ignored)."
        )


def is_data_uri(text: str) -> bool:
    """Whether a text is meant as an image: a data URI with an image type or with base64."""
    head = _DATA_URI.match(text)
    if head is None:
        return False
    media_type, _, parameters = head[1].lower().rstrip().partition(";")
    return media_type.startswith("image/") or parameters.endswith("base64")


def refuse_address(text: str, *, name: str, hint: str = "") -> None:
    """Refuse a text that is only a URL, since this server fetches nothing.

    Args:
        text: from the request.
        name: the client's name for it.
        hint: what to send instead.

    Raises:
        InvalidInputs: it is a URL.
    """
    if _ADDRESS.fullmatch(text):
        raise InvalidInputs(
            f"{name} is an address, and this server fetches nothing; send the image itself as a "
            f"data URI (data:image/jpeg;base64,...).{hint}",
            code="address_input",
        )


def decode_image(text: str, *, name: str) -> bytes:
    """The bytes of an image file.

    Args:
        text: base64, bare or as a data URI.
        name: the client's name for it, for the error.

    Raises:
        NotBase64: the text is not base64.
    """
    # msgspec's decoder is faster than the standard library's strict one.
    try:
        return msgspec.convert(text, bytes)
    except msgspec.ValidationError:
        pass  # the slower way is only for texts that are not plain base64
    try:
        return msgspec.convert(plain_base64(text), bytes)
    except msgspec.ValidationError:
        raise NotBase64.called(name) from None


def plain_base64(text: str) -> str:
    """Base64 without white space and without a data URI's prefix; other texts unchanged."""
    if not text.isascii():
        return text
    if head := _DATA_URI.match(text):
        if not head[1].lower().rstrip().endswith(";base64"):
            return text
        text = text[head.end() :]
        if "%" in text:  # a data URI may be percent-encoded, as any URI
            text = _unescaped(text)
    return text.translate(_DROP_WHITE_SPACE)


def _unescaped(text: str) -> str:
    """The text with percent-encoded characters (RFC 3986) decoded.

    Returned unchanged if an escape is invalid: the text is then refused as not base64. The standard
    library takes six seconds and 2 GiB for a body full of escapes.
    """
    characters = np.frombuffer(text.encode(), dtype=np.uint8)
    (escapes,) = np.nonzero(characters == ord("%"))
    if escapes[-1] + 2 >= len(characters):
        return text
    upper, lower = _HEX_DIGITS[characters[escapes + 1]], _HEX_DIGITS[characters[escapes + 2]]
    if upper.max() > 7 or lower.max() > 15:
        return text
    meant = characters.copy()
    meant[escapes] = upper * 16 + lower
    kept = np.ones(len(characters), dtype=np.bool_)
    kept[escapes + 1] = kept[escapes + 2] = False
    return meant[kept].tobytes().decode("ascii")


def plainly(value: Any) -> Any:
    """A JSON value with `plain_base64` applied to a text, or to each text of a list."""
    if isinstance(value, str):
        return plain_base64(value)
    if isinstance(value, list):
        return [plainly(item) for item in value]
    return value
