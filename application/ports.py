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

uint8 is what a picture is decoded to, levels from 0 to 255: a quarter of the bytes to keep, copy
and send. float32 is normalised with CLIP's mean and standard deviation already.

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
        gpu_problem: why the NVIDIA GPU of this machine cannot be used, as a sentence; None where it
            can, and where there is none.
        gpu_wanted: whether an encoder on something else is worth a warning where there is a GPU.
    """

    name: str
    cuda_available: bool
    gpu_problem: str | None = None
    gpu_wanted: bool = True


class Fit(StrEnum):
    """How a picture that is not square becomes one."""

    CROP = "crop"
    """The short side is resized, and of the long one the middle is kept."""
    SQUASH = "squash"
    """Both sides are resized, whatever the shape."""
    PAD = "pad"
    """The long side is resized, and the rest is filled up evenly."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """What an image tower sees of a picture; by default what CLIP does.

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
    """What an encoder is; constant for its lifetime.

    Attributes:
        model: the model really loaded, e.g. ``clip-vit-large-patch14``.
        fingerprint: identifies weights, architecture and preprocessing; embeddings with different
            fingerprints must never be compared.
        backend: ``torch``, ``fake``, …
        precision: the floating-point type that the towers compute in, e.g. ``fp32``.
        device: the hardware it runs on.
        embedding_dimension: floats per embedding.
        logit_scale: the multiplier of cosines in a classification (already exponentiated).
        engine_path: the TensorRT engine in use, else None.
        logit_bias: what is added to a scaled cosine before the sigmoid; None where the model was
            trained with a softmax and has none.
        image_input: what its image tower takes.
        context_length: tokens of a text that its text tower reads, start and end included.
        concurrent_calls: calls that it takes at the same time, from as many threads; at most
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
"""Of an encoder: one computes while the data of the other is on its way."""


class TextTower(Protocol):
    """The text tower of one checkpoint, tokenizer included. Every encoder is one too."""

    def encode_texts(self, texts: Sequence[str], /) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""

    def count_tokens(self, texts: Sequence[str], /) -> "TokenCount":
        """See `EncoderPort.count_tokens`."""


class EncoderPort(ABC):
    """Both towers of one CLIP checkpoint.

    Calls block and come from one thread at a time, so that implementations need no locks of their
    own, unless the supervisor was told that the encoder takes several at once.
    """

    @property
    @abstractmethod
    def description(self) -> EncoderDescription:
        """What this encoder is."""

    @abstractmethod
    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """Image tower. ``[n, 3, size, size]`` → ``[n, dimension]``, same order, n may be 0.

        Takes levels in uint8 and normalised pixels in float32, see `Pixels`.
        """

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """Text tower. n texts → ``[n, dimension]``, same order, n may be 0.

        A text of more tokens than the model reads is cut, with its end-of-text token kept.
        """

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> "TokenCount":
        """The tokens of all texts together; may be called beside any other call.

        Texts that were just encoded take little to count.
        """

    @property
    def text_tower(self) -> TextTower:
        """The text tower alone, for an encoder that takes over and shares it.

        An encoder whose image tower is to be freed then returns a part of itself; others return
        themselves.
        """
        return self

    @abstractmethod
    def device_memory_used(self) -> int | None:
        """Bytes of device memory in use by this process; None where there is no CUDA."""


class EncoderLoaderPort(ABC):
    """Loads the encoder that the settings ask for. Calls block, for seconds or minutes."""

    @abstractmethod
    def probe_device(self) -> Device:
        """The hardware that `load` will use."""

    def preferred(self) -> tuple[str, str]:
        """The backend that `load` tries first, and why; for a person to read."""
        return "unknown", "this loader has only one"

    def progress(self) -> str | None:
        """What `load` is busy with, for a person to read; None where that goes without saying.

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
    """The encoder cannot be loaded. The message is fit for clients: it says what to do."""


class HardwareMissing(EncoderUnavailable):
    """This machine does not have the hardware; there is nothing to repair."""


class EncoderLost(Exception):
    """The encoder's device failed for good: every later call in this process fails too."""


class EncoderUpgradePort(ABC):
    """Builds a faster encoder for the checkpoint that another one already serves. Calls block."""

    @abstractmethod
    def wanted(self, serving: EncoderDescription) -> bool:
        """Whether a faster encoder than the serving one is possible.

        Raises:
            EncoderUnavailable: one was asked for and is not possible here; says why.
        """

    @abstractmethod
    def samples(self, image_input: ImageInput) -> PixelBatch:
        """Images on which both encoders must agree, as the image tower takes them."""

    def texts(self) -> Sequence[str]:
        """Texts on which both must agree; none where both have the same text tower."""
        return ()

    @abstractmethod
    def build(self, serving: EncoderPort, expected: Sequence[Embedding]) -> EncoderPort:
        """Build the faster encoder, which takes seconds or minutes.

        Its text tower returns the same embeddings as the serving encoder's, but for rounding, so
        that cached ones stay valid. ``serving`` is not called here, since it is busy with requests.

        Args:
            serving: the encoder that serves meanwhile, and whose parts may be shared.
            expected: its embeddings of the `samples`.

        Raises:
            EncoderUnavailable: it cannot be built; says why.
        """


class EncoderMeasurementPort(EncoderUpgradePort):
    """Finds out by measuring whether another encoder is faster than the serving one."""

    @abstractmethod
    def measure(self, serving: EncoderDescription, stop: threading.Event) -> bool | None:
        """Measure what was not measured before. Takes seconds, the first time maybe minutes.

        Requests are served meanwhile, and slowed down: once ``stop`` is set, nothing computes here
        any longer. What was finished by then is remembered for the next call.

        Args:
            serving: the encoder that serves meanwhile.
            stop: is set by another thread as soon as a request comes.

        Returns:
            Whether another encoder is clearly faster; None if it was stopped before that was known,
            or the machine was too busy to tell.

        Raises:
            EncoderUnavailable: it cannot be found out here; says why.
        """

    @abstractmethod
    def keep(self, encoder: EncoderDescription) -> None:
        """Remember which encoder is to be taken from now on; nothing is measured then."""


class ImagePreparationPort(ABC):
    """Turns an image file into what the image tower takes. Calls block and may run in parallel."""

    @abstractmethod
    def prepare(self, data: bytes, image_input: ImageInput = CLIPS_INPUT) -> Pixels:
        """Check, decode, resize and crop one image file.

        Args:
            data: the file's bytes.
            image_input: what the image tower takes.

        Raises:
            ImageTooLarge: more bytes than allowed.
            InvalidImage: not an image, format not allowed, too many pixels, damaged, or more work
                than one image may be.
            ServiceUnavailable: it cannot be decoded now; says nothing about the image.
            MemoryError: there is not enough to decode it; says nothing about the image.
        """

    def start(self) -> None:  # noqa: B027 - most have nothing to do
        """Make what the first image would have to wait for. Blocks for as long as that takes."""

    def close(self) -> None:  # noqa: B027
        """End what was started, once the images under way are prepared."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of several texts together.

    Attributes:
        read: what the text tower reads, start and end included.
        cut: what was left off at the ends of texts that are longer.
    """

    read: int
    cut: int

    def __add__(self, other: "TokenCount") -> "TokenCount":
        return TokenCount(self.read + other.read, self.cut + other.cut)


class Stage(StrEnum):
    """What a request spends its time on. Image and texts queue and are encoded on their own."""

    DECODE_QUEUE = "decode_queue"
    DECODE = "decode"
    IMAGE_QUEUE = "image_queue"
    IMAGE_ENCODE = "image_encode"
    TEXT_QUEUE = "text_queue"
    TEXT_ENCODE = "text_encode"


class ObserverPort:
    """Is told what happens inside, for metrics, traces and logs.

    Called on the event loop, in the context (`contextvars`) of the request that it is about.
    Returns at once and never raises. An adapter overrides the methods that it needs; the others do
    nothing.
    """

    def stage_passed(self, stage: Stage, started_s: float, ended_s: float) -> None:
        """A request has left a stage; both times are of `time.perf_counter`.

        The encoding stages are those of the whole batch that the request was part of.
        """

    def batch_encoded(self, images: int) -> None:
        """The image tower has encoded a batch of so many images."""

    def encoder_suspected(self, cause: str) -> None:
        """The encoder is suspect: of a ``fault``, or because a call is ``hanging``."""

    def encoder_reloaded(self, *, succeeded: bool) -> None:
        """An encoder that had failed its verification was reloaded, or could not be."""

    def texts_looked_up(self, *, hits: int, misses: int) -> None:
        """So many of a request's texts were cached or being encoded; so many had to be encoded."""


UNOBSERVED: Final = ObserverPort()
"""Does nothing: for where there are no metrics."""


class ClockPort(ABC):
    """The time, so that tests need not wait for it."""

    @abstractmethod
    def now_s(self) -> float:
        """Seconds since some fixed point; never goes back."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""


class PlacesPort:
    """What the processes that serve together hold of the requests that may be inside at once.

    As it stands it is for a process that serves alone.
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
        """Give unused memory back to the system and the device. Blocks a moment."""


class ServerFailure(Exception):
    """Another server cannot be asked, or responds with something else; says with what.

    Attributes:
        status: of its HTTP response; None where there was none, or not the right one.
    """

    def __init__(self, detail: str, *, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
