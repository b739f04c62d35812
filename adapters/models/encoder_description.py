"""Builds an encoder's description from a checkpoint or a bundle."""

from typing import Protocol

from adapters.models.preprocessing import Preprocessing
from adapters.models.tokenization import Tokenization
from application.ports import Device, EncoderDescription


class Served(Protocol):
    """The common interface of checkpoints and bundles."""

    @property
    def model(self) -> str:
        """The name to show."""

    @property
    def fingerprint(self) -> str:
        """Identifies its embeddings."""

    @property
    def embedding_dimension(self) -> int:
        """Floats per embedding."""

    @property
    def logit_scale(self) -> float:
        """The multiplier of cosines in a classification."""

    @property
    def logit_bias(self) -> float | None:
        """Added to the scaled cosine; None: trained without one."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes the image tower's input."""

    @property
    def tokenization(self) -> Tokenization:
        """How a text becomes the text tower's input."""


def encoder_description(
    served: Served,
    *,
    backend: str,
    precision: str,
    device: Device,
    fingerprint: str | None = None,
    engine_path: str | None = None,
    concurrent_calls: int = 1,
) -> EncoderDescription:
    """The description of an encoder for this checkpoint or bundle.

    Args:
        served: a checkpoint or a bundle.
        backend: see `EncoderDescription`, as for the others.
        precision: of the towers.
        device: the hardware.
        fingerprint: None: the one in ``served``.
        engine_path: of TensorRT's engine.
        concurrent_calls: calls that the encoder takes at the same time.

    Raises:
        InvalidCheckpoint: its scale or bias is unusable, or a weight is not finite.
    """
    return EncoderDescription(
        model=served.model,
        fingerprint=fingerprint or served.fingerprint,
        backend=backend,
        precision=precision,
        device=device,
        embedding_dimension=served.embedding_dimension,
        logit_scale=served.logit_scale,
        engine_path=engine_path,
        concurrent_calls=concurrent_calls,
        logit_bias=served.logit_bias,
        image_input=served.preprocessing.image_input,
        context_length=served.tokenization.context_length,
    )
