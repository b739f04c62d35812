"""``/clip/...`` of Roboflow's inference server."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeGuard, TypeVar

import msgspec

from domain.counts import check_input_count
from domain.embedding import Embedding
from domain.errors import InvalidInputs
from entrypoints.http.dialects import Dialect
from entrypoints.http.middleware.envelope import note_tokens_cut, request_id
from entrypoints.http.routes.dialects.one_input import sent_image
from entrypoints.http.routes.endpoint import Call, Endpoint
from entrypoints.http.schemas.dialects import (
    ClipCompareRequest,
    ClipCompareResponse,
    ClipEmbedResponse,
    ClipImageRequest,
    ClipTextRequest,
    RoboflowImage,
)

_MODELS: Final = {
    "ViT-B-16": "clip-vit-base-patch16",
    "ViT-B-32": "clip-vit-base-patch32",
    "ViT-L-14": "clip-vit-large-patch14",
    "ViT-L-14-336px": "clip-vit-large-patch14-336",
}
"""Roboflow's names for CLIP's models, and the models' own names."""

_IMAGE_FIELDS: Final = {"type", "value"}
_MAX_NAME: Final = 100

_Item = TypeVar("_Item", str, RoboflowImage, str | RoboflowImage)
_Prompts: TypeAlias = str | list[str | RoboflowImage] | dict[str, str | RoboflowImage]


async def clip_embed_image(call: Call[ClipImageRequest]) -> ClipEmbedResponse:
    """Images as unit vectors."""
    sent = call.data.image
    images = _listed("image", sent)
    inputs = {name: _input(image, "image", name) for name, image in images.items()}
    return await _embedded(call, inputs, call.data.clip_version_id)


async def clip_embed_text(call: Call[ClipTextRequest]) -> ClipEmbedResponse:
    """Texts as unit vectors."""
    return await _embedded(call, _listed("text", call.data.text), call.data.clip_version_id)


async def clip_compare(call: Call[ClipCompareRequest]) -> ClipCompareResponse:
    """The cosines of one text or image with several others."""
    sent = call.data
    prompts = _prompts(sent.prompt)
    inputs = {"subject": _input(sent.subject, sent.subject_type, "subject")}
    for name, prompt in prompts.items():
        inputs[name] = _input(prompt, sent.prompt_type, name)
    subject, *others = await _embeddings(call, inputs, sent.clip_version_id)
    cosines = [subject.cosine(other) for other in others]
    return ClipCompareResponse(
        similarity=(
            dict(zip(sent.prompt, cosines, strict=True)) if _is_named(sent.prompt) else cosines
        ),
        time=call.milliseconds / 1000,
        inference_id=request_id(call.scope),
    )


ENDPOINTS: Final = (
    Endpoint(
        "/clip/embed_image",
        ClipImageRequest,
        clip_embed_image,
        ClipEmbedResponse,
        dialect=Dialect.ROBOFLOW,
    ),
    Endpoint(
        "/clip/embed_text",
        ClipTextRequest,
        clip_embed_text,
        ClipEmbedResponse,
        dialect=Dialect.ROBOFLOW,
    ),
    Endpoint(
        "/clip/compare",
        ClipCompareRequest,
        clip_compare,
        ClipCompareResponse,
        dialect=Dialect.ROBOFLOW,
    ),
)


async def _embedded(
    call: Call[Any], inputs: Mapping[str, bytes | str], model: str | None
) -> ClipEmbedResponse:
    embeddings = await _embeddings(call, inputs, model)
    return ClipEmbedResponse(
        embeddings=[embedding.vector.tolist() for embedding in embeddings],
        time=call.milliseconds / 1000,
        inference_id=request_id(call.scope),
    )


async def _embeddings(
    call: Call[Any], inputs: Mapping[str, bytes | str], model: str | None
) -> Sequence[Embedding]:
    """One for each input.

    Args:
        call: the request.
        inputs: image files and texts, under the client's names for them.
        model: Roboflow's name for the model that must be loaded; None: any.
    """
    embedded = await call.use.embed_inputs(
        list(inputs.values()),
        model=None if model is None else _MODELS.get(model, model),
        name_of=list(inputs).__getitem__,
    )
    if embedded.tokens.cut:
        note_tokens_cut(call.scope, embedded.tokens.cut)
    return embedded.embeddings


def _listed(field: str, sent: _Item | Sequence[_Item]) -> dict[str, _Item]:
    """The values of a field, one or a list, by their names for errors.

    Raises:
        InvalidInputs: the list is empty or too long.
    """
    if not isinstance(sent, list):
        return {field: sent}  # type: ignore[dict-item] # no item is a sequence but str
    check_input_count(len(sent), field=field)
    return {f"{field}[{place}]": item for place, item in enumerate(sent)}


def _prompts(sent: _Prompts) -> Mapping[str, str | RoboflowImage]:
    """The prompts of a comparison, by the names for errors."""
    if not isinstance(sent, dict):
        return _listed("prompt", sent)
    if not _is_named(sent):
        return {"prompt": msgspec.convert(sent, RoboflowImage)}
    check_input_count(len(sent), field="prompt")
    return {f"prompt[{name[:_MAX_NAME]!r}]": item for name, item in sent.items()}


def _is_named(sent: _Prompts) -> TypeGuard[dict[str, str | RoboflowImage]]:
    """Whether it holds prompts by name, and is not one image, which looks alike in JSON."""
    return isinstance(sent, dict) and not (
        sent.keys() == _IMAGE_FIELDS and all(isinstance(value, str) for value in sent.values())
    )


def _input(sent: str | RoboflowImage, kind: str, name: str) -> bytes | str:
    """One image file or text.

    Raises:
        InvalidInputs: it is not of its declared kind, or is not sent as base64.
        NotBase64: the image is not base64.
    """
    match kind, sent:
        case "text", str():
            return sent
        case "image", RoboflowImage(type="base64"):
            return sent_image(sent.value, name=name)
        case "image", RoboflowImage():
            raise InvalidInputs(
                f"{name} has the type {sent.type[:_MAX_NAME]!r}; this server takes images as "
                "'base64' only. It fetches nothing and reads no pickles.",
                code="unknown_image_type",
            )
        case "text" | "image", _:
            wanted = "a text" if kind == "text" else 'an object {"type": "base64", "value": ...}'
            raise InvalidInputs(
                f"{name} must be {wanted}, since its type is {kind!r}.", code="wrong_type"
            )
        case _:
            raise InvalidInputs(
                f"the type of {name} is {kind[:_MAX_NAME]!r}; it must be 'image' or 'text'.",
                code="unknown_type",
            )
