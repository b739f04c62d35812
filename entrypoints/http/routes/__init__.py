"""Every call of the service: a module for each group of calls."""

from collections.abc import Sequence
from typing import Final

from litestar.handlers import HTTPRouteHandler

from entrypoints.http.routes.contract import (
    anomaly_score,
    batch_similarity,
    classify,
    embed,
    similarity,
)
from entrypoints.http.routes.health import health, live, ready

ROUTES: Final[Sequence[HTTPRouteHandler]] = (
    embed,
    anomaly_score,
    classify,
    similarity,
    batch_similarity,
    health,
    live,
    ready,
)
