"""What the use cases need from the outside world. Adapters implement these; tests pass fakes."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from domain.embedding import Embedding
from domain.limits import CONTEXT_LENGTH, IMAGE_SIZE

Pixels: TypeAlias = NDArray[np.uint8 | np.float32]
"""One preprocessed image, ``[3, size, size]``, RGB.

uint8: decoded levels from 0 to 255, a quarter of the bytes to keep, copy and send. float32: already
normalised with CLIP's mean and standard deviation.

The size is the model's, see `ImageInput`. Encoders normalise levels, and convert for models with
another mean and standard deviation.
"""

PixelBatch: TypeAlias = NDArray[np.uint8 | np.float32]
"""Preprocessed images of one model, ``[n, 3, size, size]``: all levels, or all normalised."""

RawEmbeddings: TypeAlias = NDArray[np.float32]
"""What a tower returns: float32 ``[n, dimension]``; the domain normalises each row."""


@dataclass(frozen=True, slots=True)
class Device:
    """The hardware that the encoder uses or would use.

    Attributes:
        name: ``cpu`` or ``cuda:0``.
        cuda_available: whether CUDA can be used on this machine.
        gpu_problem: why this machine's NVIDIA GPU cannot be used, as a sentence; None if it can be
            used or there is no GPU.
        gpu_wanted: whether to warn if there is a GPU and the encoder runs elsewhere.
    """

    name: str
    cuda_available: bool
    gpu_problem: str | None = None
    gpu_wanted: bool = True


class Fit(StrEnum):
    """How a picture is made square."""

    CROP = "crop"
    """Resize the short side, and keep the middle of the long one."""
    SQUASH = "squash"
    """Resize both sides, ignoring the shape."""
    PAD = "pad"
    """Resize the long side, and fill the rest evenly."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """How a picture is prepared for an image tower; by default as CLIP does it.

    Attributes:
        size: pixels of each side.
        fit: how the picture becomes square.
        filter: the resampling filter by Pillow's name, such as ``bicubic``.
        fill: the level that `Fit.PAD` fills up with.
    """

    size: int = IMAGE_SIZE
    fit: Fit = Fit.CROP
    filter: str = "bicubic"
    fill: int = 0


CLIPS_INPUT: Final = ImageInput()


@dataclass(frozen=True, slots=True)
class EncoderDescription:
    """The facts about an encoder; constant for its lifetime.

    Attributes:
        model: the model that is actually loaded, e.g. ``clip-vit-large-patch14``.
        fingerprint: identifies weights, architecture and preprocessing; embeddings with different
            fingerprints must never be compared.
        backend: ``torch``, ``fake``, …
        precision: the floating-point type that the towers compute in, e.g. ``fp32``.
        device: the hardware it runs on.
        embedding_dimension: floats per embedding.
        logit_scale: the multiplier of cosines in a classification (already exponentiated).
        engine_path: the TensorRT engine in use, else None.
        logit_bias: added to a scaled cosine before the sigmoid; None if the model was trained with
            a softmax and has none.
        image_input: how pictures are prepared for its image tower.
        context_length: tokens that its text tower reads of a text, start and end included.
        concurrent_calls: calls that it accepts at the same time, each from its own thread; at most
            `MOST_CONCURRENT_CALLS` are made.
    """

    model: str
    fingerprint: str
    backend: str
    precision: str
    device: Device
    embedding_dimension: int
    logit_scale: float
    engine_path: str | None = None
    logit_bias: float | None = None
    image_input: ImageInput = CLIPS_INPUT
    context_length: int = CONTEXT_LENGTH
    concurrent_calls: int = 1


MOST_CONCURRENT_CALLS: Final = 2
"""At most this many calls of one encoder: one computes while the other's data is copied."""


class TextTower(Protocol):
    """The text tower of one checkpoint, tokenizer included. Every encoder is one too."""

    def encode_texts(self, texts: Sequence[str], /) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""

    def count_tokens(self, texts: Sequence[str], /) -> "TokenCount":
        """See `EncoderPort.count_tokens`."""


class EncoderPort(ABC):
    """Both towers of one CLIP checkpoint.

    Calls block and come from one thread at a time, so that implementations need no locks of their
    own, unless the description allows several concurrent calls.
    """

    @property
    @abstractmethod
    def description(self) -> EncoderDescription:
        """The facts about this encoder."""

    @abstractmethod
    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """Image tower. ``[n, 3, size, size]`` → ``[n, dimension]``, same order, n may be 0.

        Takes levels in uint8 and normalised pixels in float32, see `Pixels`.
        """

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """Text tower. n texts → ``[n, dimension]``, same order, n may be 0.

        A text with more tokens than the model reads is cut; its end-of-text token is kept.
        """

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> "TokenCount":
        """The tokens of all texts together; may be called during any other call.

        Counting texts that were just encoded is cheap.
        """

    @property
    def text_tower(self) -> TextTower:
        """The text tower alone, for an encoder that takes over and shares it.

        An encoder whose image tower will be freed returns a part of itself; others return
        themselves.
        """
        return self

    @abstractmethod
    def device_memory_used(self) -> int | None:
        """Bytes of device memory used by this process; None without CUDA."""


class EncoderLoaderPort(ABC):
    """Loads the encoder from the settings. Calls block for seconds or minutes."""

    @abstractmethod
    def probe_device(self) -> Device:
        """The hardware that `load` will use."""

    def preferred(self) -> tuple[str, str]:
        """The backend that `load` tries first, and why; for a person to read."""
        return "unknown", "this loader has only one"

    def progress(self) -> str | None:
        """What `load` is doing now, for a person to read; None if that is obvious.

        Returns at once, and is called while another thread loads.
        """
        return None

    @abstractmethod
    def load(self) -> EncoderPort:
        """Load both towers.

        Raises:
            EncoderUnavailable: it cannot be loaded; the message says what is missing or wrong.
        """


class EncoderUnavailable(Exception):
    """The encoder cannot be loaded. The message is for clients: it says what to do."""


class HardwareMissing(EncoderUnavailable):
    """This machine does not have the hardware; there is nothing to fix."""


class EncoderLost(Exception):
    """The encoder's device failed for good: every later call in this process fails too."""


class EncoderUpgradePort(ABC):
    """Builds a faster encoder for the checkpoint that another one already serves. Calls block."""

    @abstractmethod
    def wanted(self, serving: EncoderDescription) -> bool:
        """Whether a faster encoder than the serving one is possible.

        Raises:
            EncoderUnavailable: one was requested and is not possible here; says why.
        """

    @abstractmethod
    def samples(self, image_input: ImageInput) -> PixelBatch:
        """Images on which both encoders must agree, prepared for the image tower."""

    def texts(self) -> Sequence[str]:
        """Texts on which both must agree; empty if both have the same text tower."""
        return ()

    @abstractmethod
    def build(self, serving: EncoderPort, expected: Sequence[Embedding]) -> EncoderPort:
        """Build the faster encoder, which takes seconds or minutes.

        Its text tower returns the same embeddings as the serving encoder's, except for rounding, so
        that cached ones stay valid. Do not call ``serving`` here: it is busy with requests.

        Args:
            serving: the encoder that serves meanwhile; its parts may be shared.
            expected: its embeddings of the `samples`.

        Raises:
            EncoderUnavailable: it cannot be built; says why.
        """


class EncoderMeasurementPort(EncoderUpgradePort):
    """Measures whether another encoder is faster than the serving one."""

    @abstractmethod
    def measure(self, serving: EncoderDescription, stop: threading.Event) -> bool | None:
        """Measure the encoders that are not measured yet. Takes seconds, or minutes the first time.

        Measuring slows down requests, so it ends as soon as ``stop`` is set. Finished measurements
        are remembered for the next call.

        Args:
            serving: the encoder that serves meanwhile.
            stop: set by another thread as soon as a request arrives.

        Returns:
            Whether another encoder is clearly faster; None if it was stopped before that was known,
            or if the machine was too busy to tell.

        Raises:
            EncoderUnavailable: measuring is not possible here; says why.
        """

    @abstractmethod
    def keep(self, encoder: EncoderDescription) -> None:
        """Save the encoder to use from now on. After that, nothing is measured any more."""


class ImagePreparationPort(ABC):
    """Prepares image files for the image tower, several at the same time."""

    @abstractmethod
    async def prepare(self, data: bytes, image_input: ImageInput = CLIPS_INPUT) -> Pixels:
        """Check, decode, resize and crop one image file.

        Args:
            data: the file's bytes.
            image_input: what the image tower takes.

        Raises:
            ImageTooLarge: more bytes than allowed.
            InvalidImage: not an image, format not allowed, too many pixels, damaged, or more work
                than one image may be.
            ServiceUnavailable: it cannot be decoded now; says nothing about the image.
            MemoryError: there is not enough memory to decode it; says nothing about the image.
        """

    async def start(self) -> None:  # noqa: B027 - most have nothing to do
        """Start whatever the first image would otherwise wait for."""

    async def close(self) -> None:  # noqa: B027
        """Stop whatever `start` started. Images in progress are abandoned."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of several texts together.

    Attributes:
        read: tokens that the text tower reads, start and end included.
        cut: tokens cut off the ends of longer texts.
    """

    read: int
    cut: int

    def __add__(self, other: "TokenCount") -> "TokenCount":
        return TokenCount(self.read + other.read, self.cut + other.cut)


class Stage(StrEnum):
    """The stages of a request. Images and texts queue and are encoded separately."""

    DECODE_QUEUE = "decode_queue"
    DECODE = "decode"
    IMAGE_QUEUE = "image_queue"
    IMAGE_ENCODE = "image_encode"
    TEXT_QUEUE = "text_queue"
    TEXT_ENCODE = "text_encode"


class ObserverPort:
    """Is notified of what the service does, for metrics, traces and logs.

    Called on the event loop, in the context (`contextvars`) of the request that it is about.
    Returns at once and never raises. An adapter overrides the methods that it needs; the others do
    nothing.
    """

    def stage_passed(self, stage: Stage, started_s: float, ended_s: float) -> None:
        """A request has left a stage; both times are of `time.perf_counter`.

        The encoding stages are those of the whole batch that the request was part of.
        """

    def batch_encoded(self, images: int) -> None:
        """The image tower has encoded a batch of this many ``images``."""

    def encoder_suspected(self, cause: str) -> None:
        """The encoder is suspect because of a ``fault``, or because a call is ``hanging``."""

    def encoder_reloaded(self, *, succeeded: bool) -> None:
        """An encoder that had failed its verification was reloaded, or could not be."""

    def texts_looked_up(self, *, hits: int, misses: int) -> None:
        """So many of a request's texts were cached or being encoded; so many had to be encoded."""


UNOBSERVED: Final = ObserverPort()
"""Does nothing: for use without metrics."""


class ClockPort(ABC):
    """The time, so that tests need not wait for it."""

    @abstractmethod
    def now_s(self) -> float:
        """Seconds since some fixed point; never goes back."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""


class PlacesPort:
    """The places in `Admission` that are held by other processes of the same server.

    This base class is for a server with a single process.
    """

    def hold(self, places: int) -> None:
        """Tell the others how many places this process holds now."""

    def held_elsewhere(self) -> int:
        """Places that all other processes hold now."""
        return 0


ALONE: Final = PlacesPort()
"""There is no other process."""


class MemoryPort(ABC):
    """The process's memory."""

    @abstractmethod
    def release(self) -> None:
        """Give unused memory back to the system and the device. Blocks briefly."""


class ServerFailure(Exception):
    """Another server cannot be reached, or its response is not the expected one; says why.

    Attributes:
        status: of its HTTP response; None if there was no response, or not the right one.
    """

    def __init__(self, detail: str, *, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
