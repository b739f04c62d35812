"""Every call of the service: a module for each group of calls."""

from collections.abc import Sequence
from typing import Final

from litestar.handlers import HTTPRouteHandler

from entrypoints.http.routes.cameras import baseline, compare
from entrypoints.http.routes.contract import (
    anomaly_score,
    batch_similarity,
    classify,
    embed,
    similarity,
)
from entrypoints.http.routes.embeddings import embed_batch, embed_text
from entrypoints.http.routes.health import health, live, ready
from entrypoints.http.routes.openai import create_embeddings, list_models, retrieve_model

ROUTES: Final[Sequence[HTTPRouteHandler]] = (
    embed,
    anomaly_score,
    classify,
    similarity,
    batch_similarity,
    embed_batch,
    embed_text,
    compare,
    baseline,
    create_embeddings,
    list_models,
    retrieve_model,
    health,
    live,
    ready,
)
