"""The one loaded model: brought up in the background, asked for by every use case."""

import asyncio
import logging
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

from application.model.self_test import check_agreement, self_test
from application.ports import (
    Device,
    EncoderDescription,
    EncoderLoaderPort,
    EncoderPort,
    EncoderUnavailable,
)
from domain.embedding import Embedding
from domain.errors import EncoderDoubted, EncoderFault, EncoderHanging, ModelNotReady

logger = logging.getLogger(__name__)

_kept: ContextVar[EncoderPort | None] = ContextVar("kept_encoder", default=None)
"""The encoder that the request being answered began with."""

_HANGING = (
    "a call of the encoder has not returned in time. It cannot be interrupted: unless it returns "
    "after all, the server must be started again."
)
_CONDEMNED = "the encoder that this request began with has failed its self-test."


class ModelState(StrEnum):
    """Where the model is on its way to answering."""

    STARTING = "starting"
    READY = "ready"
    UNLOADED = "unloaded"
    FAILED = "failed"
    DOUBTED = "doubted"
    HANGING = "hanging"


class ModelLifecycle:
    """Loads the encoder off the event loop and holds it.

    Loading never raises: what went wrong is kept as `failure` and told to every caller of
    `encoder`, so that the service stays up and says what is missing.

    An encoder that broke its contract is doubted: it answers nobody until it has made of a fixed
    input what it made of it when it was loaded, or was loaded anew. That takes somebody who sees to
    it (`watched_over`); where nobody does, as on the command line, nothing is doubted.
    """

    def __init__(self, loader: EncoderLoaderPort) -> None:
        self._loader = loader
        self._encoder: EncoderPort | None = None
        self._given_up: EncoderDescription | None = None
        self._device: Device | None = None
        self._failure: str | None = None
        self._proof: tuple[str, Sequence[Embedding]] | None = None
        self._watched = False
        self._doubt: str | None = None
        self._doubted = asyncio.Event()
        self._doubts = 0
        self._hanging = 0
        self._condemned: weakref.WeakSet[EncoderPort] = weakref.WeakSet()
        self._condemnations = 0

    @property
    def state(self) -> ModelState:
        """Where the model is.

        Starting, ready, given up for now (and loaded again when it is needed), failed, doubted, or
        in a call that does not return.
        """
        if self._hanging:
            return ModelState.HANGING
        if self._doubt is not None:
            return ModelState.DOUBTED
        if self._encoder is not None:
            return ModelState.READY
        if self._given_up is not None:
            return ModelState.UNLOADED
        return ModelState.STARTING if self._failure is None else ModelState.FAILED

    @property
    def failure(self) -> str | None:
        """Why there is no encoder that may answer, else None."""
        if self._hanging:
            return _HANGING
        return self._failure if self._doubt is None else self._doubt

    @property
    def condemnations(self) -> int:
        """How many encoders have failed a self-test: what they made before may be wrong too."""
        return self._condemnations

    @property
    def doubts(self) -> int:
        """How many there have been: what was under way when there was one is not sent on."""
        return self._doubts

    @property
    def watched(self) -> bool:
        """Whether somebody sees to an encoder that is doubted."""
        return self._watched

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
            EncoderDoubted, EncoderHanging: as `check` says.
        """
        encoder = _kept.get() or self._encoder
        self.check(encoder)
        if self._encoder is not None and encoder is not None:
            return encoder
        if self._failure is None:
            raise ModelNotReady(
                "the model is still being loaded.", code="model_starting", retry_after_s=5
            )
        raise ModelNotReady(
            f"no model is loaded: {self._failure}", code="model_not_loaded", retry_after_s=30
        )

    def check(self, encoder: EncoderPort | None) -> None:
        """Refuse an encoder that must not answer now; None is the one that is being loaded.

        Raises:
            EncoderDoubted: it broke its contract and has not proven itself since.
            EncoderHanging: a call does not return, and there is no other way to an encoder.
        """
        if self._hanging:
            raise EncoderHanging(_HANGING, retry_after_s=30)
        if self._doubt is not None and encoder is self._encoder:
            raise EncoderDoubted(self._doubt, retry_after_s=2)
        if encoder in self._condemned:
            raise EncoderDoubted(_CONDEMNED, retry_after_s=2)

    @contextmanager
    def watched_over(self) -> Iterator[None]:
        """For the duration of the block somebody waits for doubts and settles them."""
        self._watched = True
        try:
            yield
        finally:
            self._watched = False

    async def doubted(self) -> None:
        """Return once there is a doubt that nobody has been told of yet."""
        await self._doubted.wait()
        self._doubted.clear()

    def doubt(self, encoder: EncoderPort, fault: str) -> bool:
        """Keep the encoder from answering until it is trusted again or loaded anew.

        Args:
            encoder: what broke its contract.
            fault: what it did, for clients.

        Returns:
            Whether it is doubted because of this; not if another answers meanwhile, if it already
            was, or if nobody would settle it.
        """
        if not self._watched or encoder is not self._encoder or self._doubt is not None:
            return False
        self._doubt = f"the encoder is being tested, since {fault}."
        self._doubts += 1
        self._doubted.set()
        return True

    def doubt_again(self) -> None:
        """Whoever should have settled the doubt has failed to; let them try again."""
        if self._doubt is not None:
            self._doubted.set()

    def trust(self) -> None:
        """The doubted encoder has proven itself: it answers again."""
        self._doubt = None

    def condemn(self, fault: str) -> None:
        """The doubted encoder has failed its self-test and never answers again."""
        if self._encoder is not None:
            self._condemned.add(self._encoder)
            self._given_up = self._encoder.description
            self._condemnations += 1
        self._encoder = None
        self._doubt = f"the encoder failed its self-test ({fault}) and is being loaded anew."

    def hang(self) -> EncoderHanging:
        """A call does not return: nobody is answered until it does. Returns what to tell them."""
        self._hanging += 1
        self._doubts += 1
        return EncoderHanging(_HANGING, retry_after_s=30)

    def returned(self) -> None:
        """A call that did not return has done so after all: the encoder must prove itself."""
        self._hanging -= 1
        if not self._hanging:
            self._doubt = "the encoder is being tested, since a call of it took far too long."
            self._doubted.set()

    def prove(self, encoder: EncoderPort) -> None:
        """Have the encoder make of a fixed input what it made of it before. Blocks.

        Raises:
            EncoderFault: it makes something else; or whatever it raises.
        """
        made = self_test(encoder)
        fingerprint = encoder.description.fingerprint
        if self._proof is not None and self._proof[0] == fingerprint:
            check_agreement(made, self._proof[1])
        else:
            self._proof = fingerprint, made

    @contextmanager
    def one_encoder(self) -> Iterator[None]:
        """For the duration of the block `encoder` is always the same, whatever takes over.

        Raises:
            ModelNotReady, EncoderDoubted, EncoderHanging: as `encoder` says.
        """
        token = _kept.set(self.encoder())
        try:
            yield
        finally:
            _kept.reset(token)

    def switch_over(self, serving: EncoderPort, better: EncoderPort) -> bool:
        """Let ``better`` answer from now on; False if ``serving`` is not the one that does.

        What was asked before is answered by the encoder it was asked of: no request is lost, and
        none is answered by two (see `one_encoder`). Called on the event loop.
        """
        if self._encoder is not serving or self.state is not ModelState.READY:
            return False
        self._encoder = better
        return True

    def lose(self, encoder: EncoderPort, reason: str) -> None:
        """The encoder will never answer again: no model is loaded from now on."""
        if self._encoder is encoder:
            self._encoder = self._given_up = self._doubt = None
            self._failure = reason
            logger.error("the model is lost: %s", reason)

    async def bring_up(self) -> None:
        """Load and try the encoder in a thread; afterwards it is ready or failed."""
        self._failure = None
        self._failure = await self._loaded_or_failure()

    async def load_anew(self) -> bool:
        """Load a condemned encoder again; whether that went well. If not, it stays doubted."""
        failure = await self._loaded_or_failure()
        if failure is None:
            self._doubt = None
        else:
            self._doubt = f"the encoder failed its self-test; loading it anew failed too: {failure}"
        return failure is None

    async def _loaded_or_failure(self) -> str | None:
        """Take the encoder that is loaded now; why there is none, fit for clients, if it fails."""
        try:
            encoder = await asyncio.to_thread(self._load)
        except EncoderUnavailable as unavailable:
            logger.error("no model is loaded: %s", unavailable)
            return str(unavailable)
        except Exception:
            logger.exception("loading the model failed unexpectedly")
            return "loading it failed unexpectedly; the server's log has the reason."
        self._encoder = encoder
        description = encoder.description
        logger.info(
            "ready: %s (fingerprint %s) by %s in %s on %s",
            description.model,
            description.fingerprint,
            description.backend,
            description.precision,
            description.device.name,
        )
        return None

    def give_up(self) -> EncoderPort:
        """Let go of the loaded encoder, for `bring_up` to load it again; who asked drops it."""
        encoder = self.encoder()
        self._given_up = encoder.description
        self._encoder = None
        return encoder

    def _load(self) -> EncoderPort:
        self._device = self._loader.probe_device()
        encoder = self._loader.load()
        try:
            # The first calls also pay for lazy initialisation; better here than in a request.
            self.prove(encoder)
        except EncoderFault as fault:
            raise EncoderUnavailable(f"the encoder fails its self-test: {fault.detail}.") from fault
        return encoder
