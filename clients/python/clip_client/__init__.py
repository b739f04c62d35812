"""Asks a CLIP embedding server, with or without asyncio. All that is meant for use is here."""

from clip_client.answers import (
    AnomalyScore,
    Baseline,
    Classification,
    Comparison,
    EnsembleMetadata,
    Health,
    Spread,
)
from clip_client.calls import ImageOrVector
from clip_client.clients import AsyncClipClient, ClipClient
from clip_client.errors import (
    ClipError,
    ConnectionFailed,
    FingerprintMismatch,
    InvalidInput,
    InvalidRequest,
    Refused,
    ServerFault,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from clip_client.exchange import Retries
from clip_client.images import ImageSource
from clip_client.vectors import Embedding, Vector, average_embedding, cosine_similarity

__all__ = [
    "AnomalyScore",
    "AsyncClipClient",
    "Baseline",
    "Classification",
    "ClipClient",
    "ClipError",
    "Comparison",
    "ConnectionFailed",
    "Embedding",
    "EnsembleMetadata",
    "FingerprintMismatch",
    "Health",
    "ImageOrVector",
    "ImageSource",
    "InvalidInput",
    "InvalidRequest",
    "Refused",
    "Retries",
    "ServerFault",
    "Spread",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Vector",
    "average_embedding",
    "cosine_similarity",
]
