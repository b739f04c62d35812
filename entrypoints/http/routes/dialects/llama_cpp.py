"""llama.cpp's server, as far as Frigate's semantic search (provider ``llamacpp``) uses it.

``content`` is taken by ``/embeddings`` and ``/v1/embeddings``. Frigate finds the model in
``/v1/models`` (`entrypoints.http.routes.openai`), and the marker for images in ``/props``.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler

from application.use_cases.embed import ANY_MODEL, is_called
from domain.counts import check_input_count
from domain.errors import InvalidInputs, UnknownModel
from domain.limits import CONTEXT_LENGTH
from entrypoints.http.errors.table import Shape
from entrypoints.http.routes.dialects.one_input import one_input
from entrypoints.http.routes.endpoint import (
    TAGS,
    UseCases,
    error_responses,
    query_fields,
)
from entrypoints.http.schemas.dialects import (
    GenerationSettings,
    Modalities,
    PromptItem,
    PropsResponse,
)

MEDIA_MARKER: Final = "<__media__>"
"""The image's placeholder in ``prompt_string``. It is the same after every start."""

_ANY_MARKER: Final = re.compile(r"\s*(?:<[^<>\s]{1,200}>|\[[^\[\]\s]{1,200}\])?\s*")
"""A text that is one marker, of any server or start: a stale marker must not lose an image."""


def inputs_of(content: str | Sequence[str | PromptItem]) -> list[bytes | str]:
    """Each item as an image file's bytes or as a text.

    Raises:
        InvalidInputs: too many items; or one holds a text and an image, several images, an address,
            or a marker without an image.
        NotBase64: an image is not base64.
    """
    items = [content] if isinstance(content, str) else content
    check_input_count(len(items), field="content")
    return [_input_of(item, f"content[{place}]") for place, item in enumerate(items)]


def _input_of(item: str | PromptItem, name: str) -> bytes | str:
    if isinstance(item, str):
        return item
    images = item.multimodal_data
    if images:
        marker = _ANY_MARKER.fullmatch(item.prompt_string)
        return one_input([] if marker else [item.prompt_string], images, name=name)
    if item.prompt_string.strip() == MEDIA_MARKER:
        raise InvalidInputs(
            f"{name} holds the marker of an image and no image; send it in `multimodal_data`.",
            code="missing_image",
        )
    return item.prompt_string


def server_routes(use: UseCases) -> Sequence[HTTPRouteHandler]:
    """``GET /props``."""
    errors = error_responses(Shape.LLAMA_CPP)

    @get(
        "/props",
        sync_to_thread=False,
        tags=[TAGS[Shape.LLAMA_CPP]],
        responses={status: errors[status] for status in (400, 401, 404)},
    )
    def props(request: Request[Any, Any, Any]) -> PropsResponse:
        """What the model reads, and the placeholder for an image."""
        encoder = use.report_health().encoder
        model = use.configured_model if encoder is None else encoder.model
        for asked in query_fields(request.scope["query_string"]).get("model", []):
            if not is_called(model, asked):
                raise UnknownModel(
                    f"the model {asked[:100]!r} is not loaded here; use {model!r}, or "
                    f"{ANY_MODEL!r} for whichever model is loaded."
                )
        return PropsResponse(
            default_generation_settings=GenerationSettings(
                n_ctx=CONTEXT_LENGTH if encoder is None else encoder.context_length
            ),
            modalities=Modalities(vision=True, audio=False),
            media_marker=MEDIA_MARKER,
            model_alias=model,
        )

    return (props,)
