"""Field types that several bodies share."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from domain.limits import EMBEDDING_DIMENSION, IMAGE_FORMATS, MAX_DECODED_PIXELS


def documented(description: str, **schema: Any) -> Meta:
    """A field's description and further OpenAPI keywords. The domain enforces the limits."""
    return Meta(extra_json_schema={"description": description, "extra": schema})


def json_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a struct, with the structs that its fields hold written out in it."""
    schema = msgspec.json.schema(kind)
    structs = schema["$defs"]
    plain: dict[str, Any] = _hoisted(_written_out(structs[kind.__name__], structs))
    return plain


def _written_out(schema: Any, structs: dict[str, Any]) -> Any:
    """With what each reference stands for in its place."""
    if isinstance(schema, list):
        return [_written_out(item, structs) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(place := schema.get("$ref"), str):
        return _written_out(structs[place.rpartition("/")[2]], structs)
    return {name: _written_out(value, structs) for name, value in schema.items()}


def _hoisted(schema: Any) -> Any:
    """The schema with `documented`'s further keywords moved to where JSON Schema expects them."""
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
    f"white space is ignored, and so is a data URI's prefix (`data:image/jpeg;base64,`). "
    f"{', '.join(IMAGE_FORMATS)}; at most 10 MiB decoded and {MAX_DECODED_PIXELS:,} "
    "pixels to decode by default. Large JPEGs are decoded at a half to an eighth of their size."
)
"""The rules for every image that is sent as base64."""

Image = Annotated[
    bytes, documented(f"An image file as base64; {IMAGE_RULES}", content_encoding="base64")
]
Vector = Annotated[
    list[float], documented(f"Unit vector; {EMBEDDING_DIMENSION} numbers by default.")
]
SentVector = Annotated[
    list[float],
    documented(
        f"{EMBEDDING_DIMENSION} finite numbers by default, not all zero; normalised by the server."
    ),
]
InferenceTime = Annotated[
    float,
    documented("Milliseconds from the decoded request to its result, including time in queues."),
]
