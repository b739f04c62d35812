"""The one loaded model: brought up in the background, asked for by every use case."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

import numpy as np

from application.ports import (
    Device,
    EncoderDescription,
    EncoderLoaderPort,
    EncoderPort,
    EncoderUnavailable,
)
from domain.errors import ModelNotReady
from domain.limits import IMAGE_SIZE

logger = logging.getLogger(__name__)

_kept: ContextVar[EncoderPort | None] = ContextVar("kept_encoder", default=None)
"""The encoder that the request being answered began with."""


class ModelState(StrEnum):
    """Where the model is on its way to answering."""

    STARTING = "starting"
    READY = "ready"
    UNLOADED = "unloaded"
    FAILED = "failed"


class ModelLifecycle:
    """Loads the encoder off the event loop and holds it.

    Loading never raises: what went wrong is kept as `failure` and told to every caller of
    `encoder`, so that the service stays up and says what is missing.
    """

    def __init__(self, loader: EncoderLoaderPort) -> None:
        self._loader = loader
        self._encoder: EncoderPort | None = None
        self._given_up: EncoderDescription | None = None
        self._device: Device | None = None
        self._failure: str | None = None

    @property
    def state(self) -> ModelState:
        """Starting, ready, given up for now (and loaded again when it is needed), or failed."""
        if self._encoder is not None:
            return ModelState.READY
        if self._given_up is not None:
            return ModelState.UNLOADED
        return ModelState.STARTING if self._failure is None else ModelState.FAILED

    @property
    def failure(self) -> str | None:
        """Why loading failed when it was last tried, else None."""
        return self._failure

    @property
    def device(self) -> Device | None:
        """The hardware, known before the model is loaded; None until it was looked at."""
        return self._device

    @property
    def loaded(self) -> EncoderPort | None:
        """The encoder, or None while there is none."""
        return self._encoder

    @property
    def description(self) -> EncoderDescription | None:
        """What is loaded, or was and will be again; None while there is neither."""
        return self._given_up if self._encoder is None else self._encoder.description

    def encoder(self) -> EncoderPort:
        """The loaded encoder; within `one_encoder` the one that was loaded at its beginning.

        Raises:
            ModelNotReady: still starting, or loading failed (its detail says why).
        """
        if self._encoder is not None:
            return _kept.get() or self._encoder
        if self._failure is None:
            raise ModelNotReady(
                "the model is still being loaded.", code="model_starting", retry_after_s=5
            )
        raise ModelNotReady(
            f"no model is loaded: {self._failure}", code="model_not_loaded", retry_after_s=30
        )

    @contextmanager
    def one_encoder(self) -> Iterator[None]:
        """For the duration of the block `encoder` is always the same, whatever takes over.

        Raises:
            ModelNotReady: as `encoder` says.
        """
        token = _kept.set(self.encoder())
        try:
            yield
        finally:
            _kept.reset(token)

    def switch_over(self, serving: EncoderPort, better: EncoderPort) -> bool:
        """Let ``better`` answer from now on; False if ``serving`` no longer was the one that does.

        What was asked before is answered by the encoder it was asked of: no request is lost, and
        none is answered by two (see `one_encoder`). Called on the event loop.
        """
        if self._encoder is not serving:
            return False
        self._encoder = better
        return True

    def lose(self, encoder: EncoderPort, reason: str) -> None:
        """The encoder will never answer again: no model is loaded from now on."""
        if self._encoder is encoder:
            self._encoder = self._given_up = None
            self._failure = reason
            logger.error("the model is lost: %s", reason)

    async def bring_up(self) -> None:
        """Load and warm up the encoder in a thread; afterwards it is ready or failed."""
        self._failure = None
        try:
            self._encoder = await asyncio.to_thread(self._load)
        except EncoderUnavailable as unavailable:
            self._failure = str(unavailable)
            logger.error("no model is loaded: %s", self._failure)
        except Exception:
            self._failure = "loading it failed unexpectedly; the server's log has the reason."
            logger.exception("loading the model failed unexpectedly")
        else:
            description = self._encoder.description
            logger.info(
                "ready: %s (fingerprint %s) by %s in %s on %s",
                description.model,
                description.fingerprint,
                description.backend,
                description.precision,
                description.device.name,
            )

    def give_up(self) -> EncoderPort:
        """Let go of the loaded encoder, for `bring_up` to load it again; who asked drops it."""
        encoder = self.encoder()
        self._given_up = encoder.description
        self._encoder = None
        return encoder

    def _load(self) -> EncoderPort:
        self._device = self._loader.probe_device()
        encoder = self._loader.load()
        # The first calls pay for lazy initialisation; better here than in someone's request.
        encoder.encode_images(np.zeros((1, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32))
        encoder.encode_texts(["a photo"])
        return encoder
