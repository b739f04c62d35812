"""Endpoints for embeddings of many images, and of texts."""

import logging
from typing import Any, Final

from application.use_cases.embed import EmbeddedImage
from domain.counts import check_image_count
from domain.embedding import Embedding
from domain.errors import InvalidInput
from entrypoints.http.bodies.base64_images import NotBase64, decode_image
from entrypoints.http.errors.table import INTERNAL, status_of
from entrypoints.http.middleware.envelope import request_id
from entrypoints.http.routes.endpoint import Call, Endpoint
from entrypoints.http.schemas.embeddings import (
    EmbedBatchItem,
    EmbedBatchRequest,
    EmbedBatchResponse,
    EmbedTextRequest,
    EmbedTextResponse,
    ItemError,
)

logger = logging.getLogger(__name__)


async def embed_batch(call: Call[EmbedBatchRequest]) -> EmbedBatchResponse:
    """Each of several images as a unit vector; a bad one has an error in its place."""
    sent = call.data.images
    check_image_count(len(sent))  # before a million of them are decoded one by one
    images = [_file_or_why_not(text, place) for place, text in enumerate(sent)]
    outcomes = await call.use.embed_images(images)
    return EmbedBatchResponse(
        [_item(call.scope, outcome) for outcome in outcomes], call.milliseconds
    )


async def embed_text(call: Call[EmbedTextRequest]) -> EmbedTextResponse:
    """Each of several texts as a unit vector, comparable with those of images.

    With `Accept: application/octet-stream` the response is the bare vectors, one after the other:
    little-endian float32.
    """
    embeddings = await call.use.embed_texts(call.data.texts)
    return EmbedTextResponse([text.vector.tolist() for text in embeddings], call.milliseconds)


ENDPOINTS: Final = (
    Endpoint("/embed/batch", EmbedBatchRequest, embed_batch, EmbedBatchResponse),
    Endpoint(
        "/embed/text",
        EmbedTextRequest,
        embed_text,
        EmbedTextResponse,
        vectors=lambda response: response.embeddings,
    ),
)


def _file_or_why_not(text: str, place: int) -> bytes | InvalidInput:
    try:
        return decode_image(text, name=f"images[{place}]")
    except NotBase64 as invalid:
        return invalid


def _item(scope: Any, outcome: EmbeddedImage) -> EmbedBatchItem:
    if isinstance(outcome, Embedding):
        return EmbedBatchItem(embedding=outcome.vector.tolist(), error=None)
    if (status := status_of(outcome)) is None:
        logger.error("request %s: one of its images failed", request_id(scope), exc_info=outcome)
        return EmbedBatchItem(None, ItemError(500, "internal_error", INTERNAL))
    return EmbedBatchItem(None, ItemError(status, outcome.code, outcome.detail))
