"""The service for Weaviate's module ``multi2vec-clip``. Weaviate sends no key."""

from collections.abc import Sequence
from typing import Any, Final

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from domain.counts import check_input_count
from domain.errors import ModelNotReady
from entrypoints.http.dialects import Dialect
from entrypoints.http.errors.table import Shape
from entrypoints.http.middleware.auth import OPEN_TO_ALL
from entrypoints.http.middleware.envelope import note_tokens_cut
from entrypoints.http.routes.dialects.one_input import sent_image
from entrypoints.http.routes.endpoint import TAGS, Call, Endpoint, UseCases, error_responses
from entrypoints.http.schemas.dialects import MetaResponse, VectorizeRequest, VectorizeResponse
from entrypoints.http.schemas.problem import WeaviateError

_TAG: Final = TAGS[Shape.WEAVIATE]


async def vectorize(call: Call[VectorizeRequest]) -> VectorizeResponse:
    """Texts and images as unit vectors, each kind in a list of its own."""
    texts, images = call.data.texts or [], call.data.images or []
    check_input_count(len(texts) + len(images), field="texts and images")

    def name_of(place: int) -> str:
        return f"texts[{place}]" if place < len(texts) else f"images[{place - len(texts)}]"

    files = [
        sent_image(image, name=name_of(len(texts) + place)) for place, image in enumerate(images)
    ]
    embedded = await call.use.embed_inputs([*texts, *files], name_of=name_of)
    if embedded.tokens.cut:
        note_tokens_cut(call.scope, embedded.tokens.cut)
    vectors = [embedding.vector.tolist() for embedding in embedded.embeddings]
    return VectorizeResponse(vectors[: len(texts)], vectors[len(texts) :])


ENDPOINTS: Final = (
    Endpoint(
        "/vectorize", VectorizeRequest, vectorize, VectorizeResponse, dialect=Dialect.WEAVIATE
    ),
)


def module_routes(use: UseCases) -> Sequence[HTTPRouteHandler]:
    """``GET /meta`` and the two probes."""
    errors = error_responses(Shape.WEAVIATE)

    @get("/meta", sync_to_thread=False, tags=[_TAG], responses={401: errors[401]})
    def meta() -> MetaResponse:
        """The model that is loaded."""
        now = use.report_health()
        encoder = now.encoder
        return MetaResponse(
            model=use.configured_model if encoder is None else encoder.model,
            dimension=now.embedding_dimension,
            fingerprint=None if encoder is None else encoder.fingerprint,
        )

    not_now = ResponseSpec(WeaviateError, description="Not now.", generate_examples=False)
    probe: dict[str, Any] = {
        "status_code": 204,
        "sync_to_thread": False,
        "tags": [_TAG],
        "opt": OPEN_TO_ALL,
        "security": [{}],
        "responses": {503: not_now},
    }

    @get("/.well-known/live", **probe)
    def module_live() -> None:
        """204 unless only a restart helps."""
        if not use.report_health().alive:
            raise ModelNotReady("the encoder hangs, or its device is lost; restart the server.")

    @get("/.well-known/ready", **probe)
    def module_ready() -> None:
        """204 if a request sent now would be accepted."""
        now = use.report_health()
        if not now.ready:
            raise ModelNotReady(now.reason or "the model is not ready yet.")

    return (meta, module_live, module_ready)
