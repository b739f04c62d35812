"""Use cases: embeddings of images and texts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from application.inference.inference import Inference
from application.ports import TokenCounterPort
from domain.counts import check_image_count, check_input_count
from domain.embedding import Embedding
from domain.errors import EncoderFault, InvalidInput, InvalidInputs, UnknownModel
from domain.wording import check_each_text


class EmbedImage:
    """Answers ``POST /embed``."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(self, image: bytes) -> Embedding:
        """Embed one image file. Raises as `Inference` says."""
        return await self._inference.embed_image(image)


EmbeddedImage: TypeAlias = Embedding | InvalidInput | EncoderFault
"""An embedding, or why this image has none."""


class EmbedImages:
    """Answers ``POST /embed/batch``."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(self, images: Sequence[bytes | InvalidInput]) -> list[EmbeddedImage]:
        """Embed 1 to `MAX_IMAGES` image files.

        Args:
            images: the files' bytes; or, where a client's file could not even be read, why not.

        Returns:
            One for each image, in their order.

        Raises:
            InvalidImages: none or too many. Else as `Inference` says, but for what is wrong with
                single images.
        """
        check_image_count(len(images))
        files = [image for image in images if isinstance(image, bytes)]
        outcomes = iter(await self._inference.embed_each_image(files) if files else [])
        return [_told(next(outcomes)) if isinstance(image, bytes) else image for image in images]


def _told(outcome: Embedding | Exception) -> EmbeddedImage:
    """What is to be told of one image; whatever else failed, fails the request."""
    if isinstance(outcome, Embedding | InvalidInput | EncoderFault):
        return outcome
    raise outcome


class EmbedTexts:
    """Answers ``POST /embed/text``."""

    def __init__(self, inference: Inference, *, max_texts: int) -> None:
        self._inference = inference
        self._max_texts = max_texts

    async def __call__(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed 1 to ``max_texts`` texts, in their order; one may come twice.

        Raises:
            InvalidTexts: the texts break a rule. Else as `Inference` says.
        """
        check_each_text(texts, limit=self._max_texts)
        _, embeddings = await self._inference.embed_all({}, texts)
        return embeddings


ANY_MODEL: Final = "clip"
"""The name that stands for whichever model is loaded."""


@dataclass(frozen=True, slots=True)
class EmbeddedInputs:
    """Embeddings with what they cost.

    Attributes:
        embeddings: one for each input, in their order.
        tokens: tokens of all texts together.
        images: how many inputs were images.
        model: the model really loaded.
    """

    embeddings: list[Embedding]
    tokens: int
    images: int
    model: str


class EmbedInputs:
    """Answers ``POST /v1/embeddings``."""

    def __init__(self, inference: Inference, tokens: TokenCounterPort) -> None:
        self._inference = inference
        self._tokens = tokens

    async def __call__(
        self,
        inputs: Sequence[bytes | str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
    ) -> EmbeddedInputs:
        """Embed 1 to `MAX_INPUTS` inputs, at most `MAX_IMAGES` of them images.

        Args:
            inputs: image files as bytes and texts as strings, mixed as you like.
            model: what must be loaded, as `is_called` takes it; None: whatever is.
            dimensions: what each embedding must have; None: whatever it has.

        Raises:
            UnknownModel: another model is loaded.
            InvalidInputs: none, too many, a blank text, or other dimensions.
            InvalidImages: too many images. Else as `Inference` says; errors name the input.
        """
        _check(inputs)
        encoder = self._inference.encoder
        if model is not None and not is_called(encoder.model, model):
            raise UnknownModel(
                f"the model {model[:100]!r} is not loaded here; ask for {encoder.model!r}, or for "
                f"{ANY_MODEL!r}, which is whatever is loaded."
            )
        if dimensions not in {None, encoder.embedding_dimension}:
            raise InvalidInputs(
                f"dimensions is {dimensions}; {encoder.model} makes embeddings of "
                f"{encoder.embedding_dimension} numbers, which cannot be shortened.",
                code="unsupported_dimensions",
            )
        images = {
            f"input[{place}]": item for place, item in enumerate(inputs) if isinstance(item, bytes)
        }
        texts = [item for item in inputs if isinstance(item, str)]
        if images:
            check_image_count(len(images))
        image_embeddings, text_embeddings = await self._inference.embed_all(images, texts)
        next_image, next_text = iter(image_embeddings), iter(text_embeddings)
        return EmbeddedInputs(
            embeddings=[
                next(next_image) if isinstance(item, bytes) else next(next_text) for item in inputs
            ],
            tokens=await asyncio.to_thread(self._tokens.count, texts) if texts else 0,
            images=len(images),
            model=encoder.model,
        )


def is_called(loaded: str, asked: str) -> bool:
    """Whether ``asked`` is a name of the loaded model.

    Its own name, with or without what precedes the last slash on either side (``openai/...``),
    or `ANY_MODEL`; upper and lower case are the same.
    """
    name = asked.strip().lower().rpartition("/")[2]
    return name in {loaded.lower().rpartition("/")[2], ANY_MODEL}


def _check(inputs: Sequence[bytes | str]) -> None:
    check_input_count(len(inputs))
    for place, item in enumerate(inputs):
        if isinstance(item, str) and not item.strip():
            raise InvalidInputs(
                f"input[{place}] is blank; each text must hold at least one character.",
                code="blank_input",
            )
