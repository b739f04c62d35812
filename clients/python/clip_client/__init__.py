"""Client of a CLIP embedding server, with and without asyncio. This is its public interface."""

from clip_client.calls import ImageOrVector
from clip_client.clients import AsyncClipClient, ClipClient
from clip_client.errors import (
    ClipError,
    ConnectionFailed,
    FingerprintMismatch,
    InvalidAddress,
    InvalidInput,
    InvalidRequest,
    Refused,
    ServerFault,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnexpectedResponse,
)
from clip_client.exchange import Retries
from clip_client.images import ImageSource
from clip_client.results import (
    AnomalyScore,
    Baseline,
    Classification,
    Comparison,
    EnsembleMetadata,
    Health,
    Spread,
)
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
    "InvalidAddress",
    "InvalidInput",
    "InvalidRequest",
    "Refused",
    "Retries",
    "ServerFault",
    "Spread",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "UnexpectedResponse",
    "Vector",
    "average_embedding",
    "cosine_similarity",
]
