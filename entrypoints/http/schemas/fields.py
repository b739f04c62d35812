"""Field types that several bodies share."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from domain.limits import EMBEDDING_DIMENSION, IMAGE_FORMATS, MAX_DECODED_PIXELS


def documented(description: str, **schema: Any) -> Meta:
    """A field's description and further OpenAPI keywords; limits are enforced by the domain."""
    return Meta(extra_json_schema={"description": description, "extra": schema})


def json_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a struct whose fields hold no other structs."""
    schema = msgspec.json.schema(kind)
    plain: dict[str, Any] = _hoisted(schema["$defs"][kind.__name__])
    return plain


def _hoisted(schema: Any) -> Any:
    """With `documented`'s further keywords where JSON Schema has them, and as it spells them."""
    if isinstance(schema, list):
        return [_hoisted(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _hoisted(value) for name, value in schema.items() if name != "extra"}
    for name, value in schema.get("extra", {}).items():
        first, *others = name.split("_")
        plain[first + "".join(other.title() for other in others)] = value
    return plain


IMAGE_RULES = (
    f"white space is ignored, and so is a data URI's head (`data:image/jpeg;base64,`). "
    f"{', '.join(IMAGE_FORMATS)}; at most 10 MiB decoded and {MAX_DECODED_PIXELS:,} "
    "pixels to decode, unless configured; JPEGs are decoded at a half to an eighth of their size."
)
"""What every image that travels as base64 must be."""

Image = Annotated[
    bytes, documented(f"An image file as base64; {IMAGE_RULES}", content_encoding="base64")
]
Vector = Annotated[
    list[float], documented(f"Unit vector; {EMBEDDING_DIMENSION} numbers unless configured.")
]
SentVector = Annotated[
    list[float],
    documented(
        f"{EMBEDDING_DIMENSION} finite numbers unless configured, not all zero; normalised here."
    ),
]
InferenceTime = Annotated[
    float,
    documented("Milliseconds from the parsed request to its result, waiting in queue included."),
]
