"""What watching scenes needs from the outside world, besides `ports`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from domain.embedding import Embedding


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        number: of the frame in its source, from 0; skipped frames count too.
        at: when it was taken.
        at_s: the same, to compare frames of one source, in seconds since any fixed point.
        picture: an image file; None if it cannot be read.
        brightness: mean of the picture in [0, 1]; None if unknown.
        path: of the file, for a folder's.
        error: why there is no picture.
        skipped: frames lost since the previous one, because they came faster than they were taken.
    """

    number: int
    at: datetime
    at_s: float
    picture: bytes | None
    brightness: float | None = None
    path: str | None = None
    error: str | None = None
    skipped: int = 0


class SourceFailure(Exception):
    """A source cannot be read, now or ever. The message is for users and has no credentials."""


class FrameSourcePort(ABC):
    """A folder, a video file or a stream. Calls block and come from one thread at a time."""

    name: str
    """The name that users know it by; without credentials."""

    live: bool
    """Whether frames that are not taken in time are lost. Other sources wait."""

    @abstractmethod
    def take(self) -> Frame | None:
        """The next frame that is due; None at the end, and once the source is closed.

        A live source waits for it, reconnects for as long as needed, and keeps only the newest
        frame.

        Raises:
            SourceFailure: it cannot be read, and a retry would not help.
        """

    @abstractmethod
    def close(self) -> None:
        """End it from any thread. A running `take` returns soon."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedFrame:
    """The results of a model for one picture.

    Attributes:
        embedding: of the picture.
        fingerprint: of the model.
        scores: label → probability; None without labels.
    """

    embedding: Embedding
    fingerprint: str
    scores: Mapping[str, float] | None


class EmbedderUnavailable(Exception):
    """Pictures cannot be embedded now, but perhaps later. Says why."""


class FrameEmbedderPort(ABC):
    """Where frames are embedded: in this process, or by a server."""

    @abstractmethod
    async def embed(self, picture: bytes, labels: Sequence[str]) -> EmbeddedFrame:
        """Embed an image file and score the labels, if there are any.

        Raises:
            EmbedderUnavailable: not now.
            InvalidInput, EncoderFault: this picture has no embedding.
        """


@dataclass(frozen=True, slots=True)
class WatchedFrame:
    """The result for one frame, as it is written and sent in alarms.

    Attributes:
        source: its name.
        frame: `Frame.number`.
        time: when it was taken.
        anomaly_score: in [0, 1]; None while the baseline is being built, or if there is an error.
        threshold: the score is compared with it; None in the same cases. The frame that completes a
            baseline has its threshold.
        alarm: whether this frame raises an alarm.
        scores: label → probability, if labels were given.
        nearest: path and cosine of the nearest known sighting, if any are known.
        path: of the file, for a folder's.
        learned: frames that the baseline has so far, while it is being built.
        skipped: `Frame.skipped`.
        error: why the frame has no score.
    """

    source: str
    frame: int
    time: datetime
    anomaly_score: float | None = None
    threshold: float | None = None
    alarm: bool = False
    scores: Mapping[str, float] | None = None
    nearest: tuple[str, float] | None = None
    path: str | None = None
    learned: int | None = None
    skipped: int = 0
    error: str | None = None


class WatchReporterPort(ABC):
    """Receives the results, frame by frame. Calls return at once."""

    @abstractmethod
    def frame(self, frame: WatchedFrame) -> None:
        """A frame was embedded, or could not be."""

    @abstractmethod
    def trouble(self, source: str, what: str) -> None:
        """A problem with watching a source; it is retried."""


class AlarmPort(ABC):
    """A receiver of alarms."""

    @abstractmethod
    async def tell(self, frame: WatchedFrame, picture: bytes) -> None:
        """Send an alarm, with retries if they make sense. Never raises; logs a failure.

        Args:
            frame: raised the alarm.
            picture: the image file.
        """
