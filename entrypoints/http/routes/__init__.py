"""The endpoints that take a body: a module for each group of them."""

from collections.abc import Collection, Sequence
from typing import Any

from entrypoints.http.dialects import Dialect
from entrypoints.http.routes import cameras, embeddings, images, openai
from entrypoints.http.routes.dialects import cohere, roboflow, weaviate
from entrypoints.http.routes.endpoint import Endpoint


def endpoints_of(dialects: Collection[Dialect]) -> Sequence[Endpoint[Any]]:
    """Our own endpoints, and those of the other protocols that are spoken."""
    known: Sequence[Endpoint[Any]] = (
        *images.ENDPOINTS,
        *embeddings.ENDPOINTS,
        *cameras.ENDPOINTS,
        *openai.ENDPOINTS,
        *cohere.ENDPOINTS,
        *weaviate.ENDPOINTS,
        *roboflow.ENDPOINTS,
    )
    return [each for each in known if each.dialect is None or each.dialect in dialects]
