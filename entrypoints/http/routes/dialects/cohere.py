"""Cohere's ``/v2/embed``."""

from collections.abc import Callable
from typing import Final

from domain.counts import check_input_count
from domain.errors import InvalidInputs
from entrypoints.http.dialects import Dialect
from entrypoints.http.errors.table import WrongShape
from entrypoints.http.middleware.envelope import note_tokens_cut, request_id
from entrypoints.http.routes.dialects.one_input import of_parts, sent_image
from entrypoints.http.routes.dialects.quantisation import QUANTISED
from entrypoints.http.routes.endpoint import Call, Endpoint
from entrypoints.http.schemas.dialects import (
    CohereBilledUnits,
    CohereEmbedRequest,
    CohereEmbedResponse,
    CohereMeta,
)

_TRUNCATE: Final = ("NONE", "START", "END")


async def cohere_embed(call: Call[CohereEmbedRequest]) -> CohereEmbedResponse:
    """Texts or images as vectors of several types."""
    sent = call.data
    types = _types(sent.embedding_types)
    truncate = (sent.truncate or "END").upper()
    if truncate not in _TRUNCATE:
        raise InvalidInputs(
            f"truncate is {truncate[:100]!r}; it must be one of {', '.join(_TRUNCATE)}.",
            code="unknown_truncate",
        )
    field, inputs = _inputs(sent)
    embedded = await call.use.embed_inputs(
        inputs,
        model=sent.model,
        dimensions=sent.output_dimension,
        name_of=(f"{field}[{{}}]").format,
        whole_texts=truncate != "END",
    )
    warnings = []
    if cut := embedded.tokens.cut:
        note_tokens_cut(call.scope, cut)
        warnings.append(f"{cut} tokens were cut off the ends of texts")
    return CohereEmbedResponse(
        id=request_id(call.scope),
        embeddings={
            name: [QUANTISED[name](embedding) for embedding in embedded.embeddings]
            for name in types
        },
        texts=sent.texts or [],
        meta=CohereMeta(
            billed_units=CohereBilledUnits(embedded.tokens.read, embedded.images),
            warnings=warnings,
        ),
    )


ENDPOINTS: Final = (
    Endpoint(
        "/v2/embed",
        CohereEmbedRequest,
        cohere_embed,
        CohereEmbedResponse,
        dialect=Dialect.COHERE,
    ),
)


def _types(asked: list[str] | None) -> list[str]:
    for name in asked or []:
        if name not in QUANTISED:
            raise InvalidInputs(
                f"embedding_types holds {name[:100]!r}; known are {', '.join(QUANTISED)}.",
                code="unknown_embedding_type",
            )
    return list(dict.fromkeys(asked or ["float"]))


def _inputs(sent: CohereEmbedRequest) -> tuple[str, list[bytes | str]]:
    """The field that was sent, and its value."""
    given = [name for name in ("texts", "images", "inputs") if getattr(sent, name) is not None]
    if len(given) != 1:
        raise WrongShape(
            f"the body holds {len(given)} of `texts`, `images` and `inputs`; send exactly one.",
            code="several_inputs" if given else "missing_field",
        )
    (field,) = given
    name: Callable[[int], str] = (f"{field}[{{}}]").format
    check_input_count(len(getattr(sent, field)), field=field)
    if sent.images is not None:
        return field, [sent_image(uri, name=name(place)) for place, uri in enumerate(sent.images)]
    if sent.inputs is not None:
        return field, [
            of_parts(item.content, name=name(place)) for place, item in enumerate(sent.inputs)
        ]
    return field, [*(sent.texts or [])]
