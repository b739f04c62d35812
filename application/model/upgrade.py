"""Prepares a faster encoder while another one serves, and compares it before the switch-over."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from application.model.states import Lease
from application.ports import EncoderPort, EncoderUnavailable, EncoderUpgradePort, RawEmbeddings
from domain.embedding import Embedding, agrees, smallest_cosine
from domain.limits import SMALLEST_COSINE

Call: TypeAlias = Callable[
    [Lease, Callable[[EncoderPort], RawEmbeddings]], Awaitable[RawEmbeddings]
]
"""`Supervisor.call`."""


class EncodersDisagree(EncoderUnavailable):
    """The faster encoder's embeddings differ from those of the serving one."""


async def faster_encoder(
    port: EncoderUpgradePort, serving: Lease, call: Call
) -> tuple[EncoderPort, float]:
    """A faster encoder that agrees with the serving one, and their smallest cosine.

    The serving encoder is called between its batches, an image at a time.

    Args:
        port: prepares the faster encoder.
        serving: a lease of the encoder that it must agree with.
        call: calls the serving encoder.

    Raises:
        EncodersDisagree: their embeddings differ.
        EncoderUnavailable: it cannot be prepared.
        ClipError: one of the two returned something that is not an embedding, or must not be used.
    """
    samples = await asyncio.to_thread(port.samples, serving.image_input)
    expected: list[Embedding] = []
    for place in range(len(samples)):
        one = samples[place : place + 1]
        rows = await call(serving, lambda encoder, one=one: encoder.encode_images(one))  # type: ignore[misc]
        expected.append(Embedding.from_encoder(rows[0]))
    faster = await asyncio.to_thread(port.build, serving.encoder, expected)
    rows = await asyncio.to_thread(faster.encode_images, samples)
    embeddings = [Embedding.from_encoder(row) for row in rows]
    if texts := port.texts():
        rows = await call(serving, lambda encoder: encoder.encode_texts(texts))
        expected += [Embedding.from_encoder(row) for row in rows]
        rows = await asyncio.to_thread(faster.encode_texts, texts)
        embeddings += [Embedding.from_encoder(row) for row in rows]
    cosine = smallest_cosine(embeddings, expected)
    if not agrees(embeddings, expected):
        raise EncodersDisagree(
            f"{faster.description.backend} does not agree with "
            f"{serving.encoder.description.backend}: cosine {cosine:.4f}, more than "
            f"{SMALLEST_COSINE} is needed."
        )
    return faster, cosine
