"""Frames of video files and of streams, decoded by PyAV (FFmpeg)."""

import errno
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import numpy as np
import simplejpeg

from application.watch_ports import Frame, FrameSourcePort, SourceFailure

if TYPE_CHECKING:
    import av
    import av.container
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream as Track

SCHEMES: Final = ("rtsp", "rtsps", "http", "https")
"""Of addresses that are streams."""

_LONGEST_SIDE: Final = 1920
"""Pixels; larger frames are made smaller first. The encoder sees a few hundred."""

_QUALITY: Final = 95
"""Of the JPEG that a frame becomes on its way to the encoder."""

_FILE: Final = {"protocol_whitelist": "file"}
_STREAM: Final = {
    # A playlist or a session description must not lead to files of this machine.
    "protocol_whitelist": "rtp,rtsp,rtsps,srtp,udp,tcp,tls,http,https,httpproxy,crypto",
    "rtsp_transport": "tcp",  # of UDP, frames arrive damaged
}
_OPEN_TIMEOUT_S: Final = 15.0
_READ_TIMEOUT_S: Final = 15.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_TOLERANCE_S: Final = 1e-3
"""By which a file's time stamps are rounded."""


def is_address(source: str) -> bool:
    """Whether a source is a stream's address and no path."""
    return urlsplit(source).scheme.lower() in SCHEMES and "://" in source


def without_credentials(address: str) -> str:
    """What a stream is called in messages: its address without user, password and query."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}"


class VideoFile(FrameSourcePort):
    """A video file, from its beginning to its end, as fast as its frames are taken."""

    live = False

    def __init__(self, path: Path, *, name: str, every_s: float) -> None:
        """Name a file.

        Args:
            path: of the file.
            name: what users call it.
            every_s: seconds of the video between two frames; 0: every frame.
        """
        self.name = name
        self._path = path
        self._every_s = every_s
        self._frames: Iterator[Frame] | None = None
        self._closed = False

    def take(self) -> Frame | None:
        """See `FrameSourcePort.take`."""
        if self._frames is None:
            self._frames = self._due()
        return None if self._closed else next(self._frames, None)

    def close(self) -> None:
        """See `FrameSourcePort.close`."""
        self._closed = True

    def _due(self) -> Iterator[Frame]:
        import av  # an extra, and slow to import

        try:
            with _opened(str(self._path), _FILE, timeout=None) as (container, track):
                track.thread_type = "AUTO"
                began = self._began(container)
                due_s = 0.0
                for number, picture in enumerate(_decoded(container, track)):
                    at_s = _seconds(picture, number, track)
                    if at_s + _TOLERANCE_S < due_s:
                        continue
                    due_s = max(due_s + self._every_s, at_s)
                    yield _as_frame(picture, number, began + timedelta(seconds=at_s), at_s)
        except (av.FFmpegError, OSError) as failure:
            raise SourceFailure(
                f"{self.name} is not a readable video: {_reason(failure)}."
            ) from failure

    def _began(self, container: "av.container.InputContainer") -> datetime:
        """When the recording began: as the file says, else its length before its last change."""
        try:
            said = datetime.fromisoformat(container.metadata.get("creation_time", ""))
            return said if said.tzinfo else said.replace(tzinfo=UTC)
        except ValueError:
            length_s = (container.duration or 0) / 1e6
            return datetime.fromtimestamp(self._path.stat().st_mtime - length_s, UTC)


class VideoStream(FrameSourcePort):
    """A camera's stream (RTSP, MJPEG or whatever FFmpeg opens), connected for as long as it takes.

    A thread reads it all, since a camera drops a client that does not, and keeps the newest frame
    that was due. Of streams whose key frames come often enough, it decodes only those.
    """

    live = True

    def __init__(
        self, address: str, *, name: str, every_s: float, say: Callable[[str, str], None]
    ) -> None:
        """Name a stream; it is connected with the first `take`.

        Args:
            address: may have a user and a password.
            name: what users call it.
            every_s: seconds between two frames; 0: every frame.
            say: called with the name and what is wrong, from another thread.
        """
        self.name = name
        self._address = address
        self._every_s = every_s
        self._say = say
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._skipped = 0
        self._packets = 0
        self._due_s = time.monotonic()
        self._failure: SourceFailure | None = None
        self._closed = threading.Event()
        self._reader: threading.Thread | None = None

    def take(self) -> Frame | None:
        """See `FrameSourcePort.take`."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, name="stream", daemon=True)
            self._reader.start()
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._failure or self._closed.is_set())
            frame, self._newest, self._skipped = self._newest, None, 0
            if self._failure is not None:
                raise self._failure
            return None if self._closed.is_set() else frame

    def close(self) -> None:
        """See `FrameSourcePort.close`."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    def _read(self) -> None:
        """Connect, read until it breaks, pause, connect again."""
        import av  # an extra, and slow to import

        pause_s = _FIRST_PAUSE_S
        while not self._closed.is_set():
            received, reason = False, "it ended"
            try:
                timeout = (_OPEN_TIMEOUT_S, _READ_TIMEOUT_S)
                with _opened(self._address, _STREAM, timeout=timeout) as (container, track):
                    for picture in self._pictures(container, track):
                        received = True
                        at_s = time.monotonic()
                        self._put(_as_frame(picture, self._packets, datetime.now(UTC), at_s))
            except (av.FFmpegError, OSError) as failure:
                reason = _reason(failure)
            except Exception as failure:
                # Not its text, which may have the address with its password.
                self._fail(SourceFailure(f"{self.name} failed: {type(failure).__name__}."))
                raise
            if not self._closed.is_set():
                pause_s = _FIRST_PAUSE_S if received else min(2 * pause_s, _LONGEST_PAUSE_S)
                self._say(self.name, f"no picture: {reason}. Reconnecting in {pause_s:.0f} s.")
                self._closed.wait(pause_s)

    def _pictures(
        self, container: "av.container.InputContainer", track: "Track"
    ) -> "Iterator[VideoFrame]":
        """Decoded frames that are due; none once the source is closed."""
        import av  # an extra, and slow to import

        track.codec_context.flags |= av.codec.context.Flags.low_delay
        choice = _PacketChoice(self._every_s)
        for packet in container.demux(track):
            if self._closed.is_set():
                return
            if not packet.size:
                continue  # the end
            self._packets += 1
            now_s = time.monotonic()
            due = now_s >= self._due_s
            if not choice.decodes(is_key=packet.is_keyframe, at_s=now_s, due=due):
                continue
            try:
                pictures = track.codec_context.decode(packet)
            except av.InvalidDataError:
                continue  # damaged on its way; a later key frame mends it
            for picture in pictures:
                if not picture.is_corrupt and (now_s := time.monotonic()) >= self._due_s:
                    following_s = self._due_s + self._every_s
                    self._due_s = following_s if following_s > now_s else now_s + self._every_s
                    yield picture

    def _put(self, frame: Frame) -> None:
        with self._changed:
            if self._newest is not None:
                self._skipped += 1
            self._newest = replace(frame, skipped=self._skipped)
            self._changed.notify_all()

    def _fail(self, failure: SourceFailure) -> None:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()


class _PacketChoice:
    """Which packets of a stream are decoded: all, or only key frames where those come often enough.

    A packet between key frames cannot be decoded without all since the last one.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last_key_s: float | None = None
        self._only_keys = True  # until the first, nothing can be decoded

    def decodes(self, *, is_key: bool, at_s: float, due: bool) -> bool:
        if not is_key:
            return not self._only_keys
        interval_s = math.inf if self._last_key_s is None else at_s - self._last_key_s
        self._last_key_s = at_s
        self._only_keys = interval_s <= self._every_s
        return due or not self._only_keys


@contextmanager
def _opened(
    source: str, options: dict[str, str], *, timeout: tuple[float, float] | None
) -> "Iterator[tuple[av.container.InputContainer, Track]]":
    import av  # an extra, and slow to import

    with av.open(source, options=options, timeout=timeout) as container:
        if not container.streams.video:
            raise OSError(errno.ENODATA, "it has no video")
        yield container, container.streams.video[0]


def _decoded(container: "av.container.InputContainer", track: "Track") -> "Iterator[VideoFrame]":
    """All frames of a file; packets that are damaged are ignored."""
    import av  # an extra, and slow to import

    for packet in container.demux(track):
        try:
            pictures = track.codec_context.decode(packet if packet.size else None)
        except (av.InvalidDataError, av.EOFError):
            continue
        yield from pictures


def _seconds(picture: "VideoFrame", number: int, track: "Track") -> float:
    """Where a frame is in its file; by its number where the file has no time stamps."""
    if picture.pts is None or track.time_base is None:
        return number / float(track.average_rate or 25)
    return float((picture.pts - (track.start_time or 0)) * track.time_base)


def _as_frame(picture: "VideoFrame", number: int, at: datetime, at_s: float) -> Frame:
    longest = max(picture.width, picture.height)
    scale = min(1.0, _LONGEST_SIDE / longest)
    pixels = picture.to_ndarray(
        format="rgb24",
        width=max(round(picture.width * scale), 1),
        height=max(round(picture.height * scale), 1),
        interpolation="AREA",
    )
    if picture.rotation % 360:
        pixels = np.rot90(pixels, round(picture.rotation / 90) % 4)
    return Frame(
        number=number,
        at=at,
        at_s=at_s,
        picture=simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=_QUALITY),
        brightness=float(pixels.mean()) / 255,
    )


def _reason(failure: Exception) -> str:
    """What went wrong, without the address."""
    said = getattr(failure, "strerror", None) or type(failure).__name__
    return said[0].lower() + said[1:]
