"""Endpoints for embeddings of many images, and of texts."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from domain.counts import check_image_count
from domain.embedding import Embedding
from domain.errors import ClipError, InvalidInput
from entrypoints.http.bodies.base64_images import NotBase64, decode_image
from entrypoints.http.errors.table import INTERNAL, status_of
from entrypoints.http.middleware.envelope import request_id
from entrypoints.http.routes.endpoint import Call, Endpoint
from entrypoints.http.schemas.embeddings import (
    EmbedBatchItem,
    EmbedBatchLine,
    EmbedBatchRequest,
    EmbedBatchResponse,
    EmbedTextRequest,
    EmbedTextResponse,
    ItemError,
)

logger = logging.getLogger(__name__)


async def embed_batch(call: Call[EmbedBatchRequest]) -> EmbedBatchResponse:
    """Each of several images as a unit vector; a bad one has an error in its place.

    With `Accept: application/jsonl` there is a line for each image, with its `index`, as soon as it
    is encoded.
    """
    outcomes = await call.use.embed_images(_files(call))
    return EmbedBatchResponse(
        [_item(call.scope, outcome) for outcome in outcomes], call.milliseconds
    )


async def embed_batch_lines(
    call: Call[EmbedBatchRequest],
) -> AsyncGenerator[EmbedBatchLine, None]:
    """The same, a line for each image."""
    async with aclosing(call.use.embed_images.as_they_come(_files(call))) as outcomes:
        async for place, outcome in outcomes:
            item = _item(call.scope, outcome)
            yield EmbedBatchLine(index=place, embedding=item.embedding, error=item.error)


async def embed_text(call: Call[EmbedTextRequest]) -> EmbedTextResponse:
    """Each of several texts as a unit vector, comparable with those of images.

    With `Accept: application/octet-stream` the response is the bare vectors, one after the other:
    little-endian float32.
    """
    embeddings = await call.use.embed_texts(call.data.texts)
    return EmbedTextResponse([text.vector.tolist() for text in embeddings], call.milliseconds)


ENDPOINTS: Final = (
    Endpoint(
        "/embed/batch",
        EmbedBatchRequest,
        embed_batch,
        EmbedBatchResponse,
        lines=embed_batch_lines,
    ),
    Endpoint(
        "/embed/text",
        EmbedTextRequest,
        embed_text,
        EmbedTextResponse,
        vectors=lambda response: response.embeddings,
    ),
)


def _files(call: Call[EmbedBatchRequest]) -> list[bytes | InvalidInput]:
    sent = call.data.images
    check_image_count(len(sent))  # before decoding perhaps a million of them
    return [_file_or_why_not(text, place) for place, text in enumerate(sent)]


def _file_or_why_not(text: str, place: int) -> bytes | InvalidInput:
    try:
        return decode_image(text, name=f"images[{place}]")
    except NotBase64 as invalid:
        return invalid


def _item(scope: Any, outcome: Embedding | Exception) -> EmbedBatchItem:
    if isinstance(outcome, Embedding):
        return EmbedBatchItem(embedding=outcome.vector.tolist(), error=None)
    status = status_of(outcome)
    if status is None or not isinstance(outcome, ClipError):
        logger.error("request %s: one of its images failed", request_id(scope), exc_info=outcome)
        return EmbedBatchItem(None, ItemError(500, "internal_error", INTERNAL))
    return EmbedBatchItem(None, ItemError(status, outcome.code, outcome.detail))
