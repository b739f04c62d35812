"""Use cases: embeddings of images and texts."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeAlias

from application.inference.inference import Inference
from application.ports import TokenCount
from domain.counts import check_image_count, check_input_count
from domain.embedding import Embedding
from domain.errors import EncoderFault, InvalidInput, InvalidInputs, UnknownModel
from domain.wording import check_each_text


class EmbedImage:
    """Serves ``POST /embed``."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(self, image: bytes) -> Embedding:
        """Embed one image file. Raises as `Inference` says."""
        return await self._inference.embed_image(image)


EmbeddedImage: TypeAlias = Embedding | InvalidInput | EncoderFault
"""An embedding, or why this image has none."""


class EmbedImages:
    """Serves ``POST /embed/batch``."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(self, images: Sequence[bytes | InvalidInput]) -> list[EmbeddedImage]:
        """Embed 1 to `MAX_IMAGES` image files.

        Args:
            images: the files' bytes; or, if one could not be decoded from the body, the reason.

        Returns:
            One for each image, in their order.

        Raises:
            InvalidImages: none or too many. Else as `Inference` says, except errors about single
                images.
        """
        check_image_count(len(images))
        files = [image for image in images if isinstance(image, bytes)]
        outcomes = iter(await self._inference.embed_each_image(files) if files else [])
        return [
            _of_one_image(next(outcomes)) if isinstance(image, bytes) else image for image in images
        ]

    async def as_they_come(
        self, images: Sequence[bytes | InvalidInput]
    ) -> AsyncGenerator[tuple[int, Embedding | Exception], None]:
        """The same, each with its place among the images, as soon as it is ready.

        A failure on the way counts only for its own images; others may still succeed. Images that
        could not be decoded from the body come first.

        Raises:
            InvalidImages, ServiceUnavailable: as `__call__`, before the first result; and when the
                encoder becomes suspect, after which no result may be used.
        """
        check_image_count(len(images))
        places = [place for place, image in enumerate(images) if isinstance(image, bytes)]
        files = [image for image in images if isinstance(image, bytes)]
        async with aclosing(self._inference.embed_in_groups(files)) as groups:
            first = await anext(groups, []) if files else []
            for place, image in enumerate(images):
                if not isinstance(image, bytes):
                    yield place, image
            remaining = iter(places)
            for outcome in first:
                yield next(remaining), outcome
            async for group in groups:
                for outcome in group:
                    yield next(remaining), outcome


def _of_one_image(outcome: Embedding | Exception) -> EmbeddedImage:
    """The outcome of one image. If the failure is not the image's fault, the request fails."""
    if isinstance(outcome, Embedding | InvalidInput | EncoderFault):
        return outcome
    raise outcome


class EmbedTexts:
    """Serves ``POST /embed/text``."""

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
"""A name that always means the loaded model."""


@dataclass(frozen=True, slots=True)
class EmbeddedInputs:
    """Embeddings, and how much input they took.

    Attributes:
        embeddings: one for each input, in their order.
        tokens: of all texts together, and how many more were cut off.
        images: how many inputs were images.
        model: the model that is actually loaded.
    """

    embeddings: list[Embedding]
    tokens: TokenCount
    images: int
    model: str


class EmbedInputs:
    """Serves ``POST /v1/embeddings`` and its equivalents in other protocols."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(
        self,
        inputs: Sequence[bytes | str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        name_of: Callable[[int], str] = "input[{}]".format,
        whole_texts: bool = False,
    ) -> EmbeddedInputs:
        """Embed 1 to `MAX_INPUTS` inputs, at most `MAX_IMAGES` of them images.

        Args:
            inputs: image files as bytes and texts as strings, in any order.
            model: the model that must be loaded, as for `is_called`; None: any.
            dimensions: the size that each embedding must have; None: any.
            name_of: the client's name for the input at a place.
            whole_texts: whether to refuse a text that is longer than the model reads, instead of
                cutting it.

        Raises:
            UnknownModel: another model is loaded.
            InvalidInputs: none, too many, a blank or too long text, or other dimensions.
            InvalidImages: too many images. Else as `Inference` says; errors name the input.
        """
        _check(inputs, name_of)
        encoder = self._inference.encoder
        if model is not None and not is_called(encoder.model, model):
            raise UnknownModel(
                f"the model {model[:100]!r} is not loaded here; use {encoder.model!r}, or "
                f"{ANY_MODEL!r} for whichever model is loaded."
            )
        if dimensions not in {None, encoder.embedding_dimension}:
            raise InvalidInputs(
                f"dimensions is {dimensions}; {encoder.model} makes embeddings of "
                f"{encoder.embedding_dimension} numbers, which cannot be shortened.",
                code="unsupported_dimensions",
            )
        images = {
            name_of(place): item for place, item in enumerate(inputs) if isinstance(item, bytes)
        }
        texts = [item for item in inputs if isinstance(item, str)]
        if images:
            check_image_count(len(images))
        if whole_texts and texts and (cut := (await self._inference.count_tokens(texts)).cut):
            raise InvalidInputs(
                f"the texts have {cut} tokens more than the model reads; send shorter ones, or "
                "allow truncation.",
                code="text_too_long",
            )
        image_embeddings, text_embeddings, tokens = await self._inference.embed_all_and_count(
            images, texts
        )
        next_image, next_text = iter(image_embeddings), iter(text_embeddings)
        return EmbeddedInputs(
            embeddings=[
                next(next_image) if isinstance(item, bytes) else next(next_text) for item in inputs
            ],
            tokens=tokens,
            images=len(images),
            model=encoder.model,
        )


def is_called(loaded: str, asked: str) -> bool:
    """Whether ``asked`` names the loaded model.

    Accepts its own name, with or without the part before the last slash on either side
    (``openai/...``), or `ANY_MODEL`. Case does not matter.
    """
    name = asked.strip().lower().rpartition("/")[2]
    return name in {loaded.lower().rpartition("/")[2], ANY_MODEL}


def _check(inputs: Sequence[bytes | str], name_of: Callable[[int], str]) -> None:
    check_input_count(len(inputs), field=name_of(0).partition("[")[0])
    for place, item in enumerate(inputs):
        if isinstance(item, str) and not item.strip():
            raise InvalidInputs(
                f"{name_of(place)} is blank; each text must hold at least one character.",
                code="blank_input",
            )
