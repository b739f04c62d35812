"""Embeddings of many images, and of texts."""

import logging
from typing import Annotated, Final

from litestar.di import NamedDependency
from litestar.params import Body

from application.use_cases.embed import EmbeddedImage, EmbedImages, EmbedTexts
from domain.counts import check_image_count
from domain.embedding import Embedding
from domain.errors import InvalidInput
from entrypoints.http.bodies.base64_images import NotBase64, decode_image
from entrypoints.http.bodies.json_bodies import JsonRequest
from entrypoints.http.errors.problems import INTERNAL, status_of
from entrypoints.http.middleware.disconnects import unless_gone
from entrypoints.http.middleware.response_headers import request_id
from entrypoints.http.routes.question import Stopwatch, question
from entrypoints.http.schemas import examples
from entrypoints.http.schemas.embeddings import (
    EmbedBatchAnswer,
    EmbedBatchItem,
    EmbedBatchRequest,
    EmbedTextAnswer,
    EmbedTextRequest,
    ItemError,
)

logger: Final = logging.getLogger(__name__)


@question("/embed/batch", EmbedBatchAnswer)
async def embed_batch(
    request: JsonRequest,
    data: Annotated[EmbedBatchRequest, Body(examples=[examples.EMBED_BATCH])],
    embed_images: NamedDependency[EmbedImages],
) -> EmbedBatchAnswer:
    """Each of several images as a unit vector; a bad one has an error in its place."""
    watch = Stopwatch()
    check_image_count(len(data.images))  # before a million of them are decoded one by one
    images = [_file_or_why_not(text, place) for place, text in enumerate(data.images)]
    outcomes = await unless_gone(request, embed_images(images))
    return EmbedBatchAnswer([_item(request, outcome) for outcome in outcomes], watch.milliseconds)


@question("/embed/text", EmbedTextAnswer)
async def embed_text(
    request: JsonRequest,
    data: Annotated[EmbedTextRequest, Body(examples=[examples.EMBED_TEXT])],
    embed_texts: NamedDependency[EmbedTexts],
) -> EmbedTextAnswer:
    """Each of several texts as a unit vector, comparable with those of images."""
    watch = Stopwatch()
    embeddings = await unless_gone(request, embed_texts(data.texts))
    return EmbedTextAnswer([text.vector.tolist() for text in embeddings], watch.milliseconds)


def _file_or_why_not(text: str, place: int) -> bytes | InvalidInput:
    try:
        return decode_image(text, name=f"images[{place}]")
    except NotBase64 as invalid:
        return invalid


def _item(request: JsonRequest, outcome: EmbeddedImage) -> EmbedBatchItem:
    if isinstance(outcome, Embedding):
        return EmbedBatchItem(embedding=outcome.vector.tolist(), error=None)
    if (status := status_of(outcome)) is None:
        logger.error(
            "request %s: one of its images failed", request_id(request.scope), exc_info=outcome
        )
        return EmbedBatchItem(None, ItemError(500, "internal_error", INTERNAL))
    return EmbedBatchItem(None, ItemError(status, outcome.code, outcome.detail))
