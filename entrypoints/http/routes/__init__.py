"""The endpoints that take a body: a module for each group of them."""

from collections.abc import Sequence
from typing import Any, Final

from entrypoints.http.routes import cameras, embeddings, images, openai
from entrypoints.http.routes.endpoint import Endpoint

ENDPOINTS: Final[Sequence[Endpoint[Any]]] = (
    *images.ENDPOINTS,
    *embeddings.ENDPOINTS,
    *cameras.ENDPOINTS,
    *openai.ENDPOINTS,
)
