"""Frames of folders, video files and streams."""

import io
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapters.watching.pictures import brightness_of
from adapters.watching.sources import open_sources
from application.watch_ports import Frame, FrameSourcePort, SourceFailure
from tests.support.mjpeg import MjpegCamera
from tests.support.photos import as_file
from tests.support.videos import FRAMES_A_SECOND, SIZE, Weather, frames, write_video


def unheard(source: str, what: str) -> None:
    """Nothing of a file is tried again."""
    raise AssertionError(f"{source}: {what}")


def opened(what: Path | str, *, every_s: float = 0.0) -> FrameSourcePort:
    (source,) = open_sources([str(what)], every_s=every_s, say=unheard)
    return source


def grey_picture(level: int) -> Image.Image:
    return Image.new("RGB", SIZE, (level,) * 3)


def taken(source: FrameSourcePort) -> Iterator[Frame]:
    while (frame := source.take()) is not None:
        yield frame


def level(frame: Frame) -> int:
    """Of a frame that is plain grey."""
    assert frame.picture is not None
    with Image.open(io.BytesIO(frame.picture)) as picture:
        return round(float(np.asarray(picture.convert("L")).mean()))


@pytest.fixture(scope="module")
def greys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds, each frame brighter than the one before."""
    pictures = (grey_picture(n * 10) for n in range(4 * FRAMES_A_SECOND))
    path = tmp_path_factory.mktemp("greys") / "greys.mp4"
    return write_video(path, pictures, "-metadata", "creation_time=2026-05-01T12:00:00Z")


def test_every_frame_of_a_file_comes_in_its_order(greys: Path) -> None:
    found = list(taken(opened(greys)))
    assert [frame.number for frame in found] == list(range(20))
    assert [frame.at_s for frame in found] == pytest.approx([n / 5 for n in range(20)])
    assert [level(frame) for frame in found] == pytest.approx([n * 10 for n in range(20)], abs=3)
    assert [frame.brightness for frame in found] == pytest.approx(
        [n * 10 / 255 for n in range(20)], abs=0.01
    )
    assert found[5].at == datetime(2026, 5, 1, 12, 0, 1, tzinfo=UTC)
    assert not any(frame.skipped for frame in found)


@pytest.mark.parametrize(
    ("every_s", "numbers"), [(1.0, [0, 5, 10, 15]), (0.5, [0, 3, 5, 8, 10, 13, 15, 18]), (60, [0])]
)
def test_frames_of_a_file_are_seconds_apart(
    every_s: float, numbers: list[int], greys: Path
) -> None:
    assert [frame.number for frame in taken(opened(greys, every_s=every_s))] == numbers


def test_a_file_without_a_date_was_recorded_before_its_last_change(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", frames(lambda _: Weather().frame(), seconds=2))
    os.utime(path, (1_000_000, 1_000_000))
    first = next(taken(opened(path)))
    assert first.at.timestamp() == pytest.approx(1_000_000 - 2, abs=0.5)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "gif"])
def test_many_kinds_of_files_are_read(suffix: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"v.{suffix}", frames(lambda _: Weather().frame(), seconds=2))
    assert len(list(taken(opened(path, every_s=1.0)))) == 2


def test_a_phones_video_is_upright(tmp_path: Path) -> None:
    """As ffmpeg itself turns it."""
    lying = Image.new("RGB", SIZE, "black")
    lying.paste("white", (0, 0, 40, SIZE[1]))
    data = write_video(tmp_path / "plain.mp4", [lying]).read_bytes()
    one, zero = (0x10000).to_bytes(4), bytes(4)
    plain = [one, zero, zero, zero, one, zero, zero, zero, (0x40000000).to_bytes(4)]
    quarter = [zero, one, zero, (-0x10000).to_bytes(4, signed=True), zero, *plain[5:]]
    place = data.rindex(b"".join(plain))  # the track's display matrix
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data[:place] + b"".join(quarter) + data[place + 36 :])
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", str(turned), "-frames:v", "1"]
    subprocess.run([*command, str(tmp_path / "upright.png")], check=True, timeout=60)
    (frame,) = taken(opened(turned))
    assert frame.picture is not None
    with (
        Image.open(io.BytesIO(frame.picture)) as found,
        Image.open(tmp_path / "upright.png") as due,
    ):
        assert found.size == due.size == (SIZE[1], SIZE[0])
        levels = [np.asarray(each.convert("L")).astype(int) for each in (found, due)]
    assert np.abs(levels[0] - levels[1]).mean() < 5


def test_large_frames_are_made_smaller(tmp_path: Path) -> None:
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i"]
    path = tmp_path / "large.mp4"
    subprocess.run(
        [*command, "testsrc=size=3840x2160:rate=5", "-frames:v", "2", path], check=True, timeout=60
    )
    frame = next(taken(opened(path)))
    assert frame.picture is not None
    with Image.open(io.BytesIO(frame.picture)) as picture:
        assert picture.size == (1920, 1080)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_damaged_file_gives_what_it_has_or_says_so(
    share: float, greys: Path, tmp_path: Path
) -> None:
    data = greys.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: round(share * len(data))])
    with pytest.raises(SourceFailure, match=r"cut.mp4 is not a readable video: "):
        list(taken(opened(path)))


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "sine=duration=1"]
    subprocess.run([*command, sound], check=True, timeout=60)
    with pytest.raises(SourceFailure, match=r"sound.wav .*: it has no video"):
        list(taken(opened(sound)))
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(SourceFailure, match=r"text.mp4 is not a readable video"):
        list(taken(opened(text)))


def test_a_playlist_cannot_name_other_files(greys: Path, tmp_path: Path) -> None:
    """FFmpeg reads what lists of files name; one from elsewhere must not name the user's."""
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttp://127.0.0.1:9/secret.ts\n"
        "#EXT-X-ENDLIST\n"
    )
    with pytest.raises(SourceFailure, match=r"list.m3u8"):
        list(taken(opened(playlist)))


def test_a_folder_gives_its_pictures_by_name(tmp_path: Path) -> None:
    for name, grey in (("b.jpg", 200), ("a.png", 100), ("sub/c.jpg", 50)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(as_file(grey_picture(grey), "PNG"))
    (tmp_path / "notes.txt").write_text("no picture")
    os.utime(tmp_path / "a.png", (1_000_000, 1_000_000))
    found = list(taken(opened(tmp_path, every_s=2.0)))
    assert [Path(frame.path or "").name for frame in found] == ["a.png", "b.jpg", "c.jpg"]
    assert [frame.at_s for frame in found] == [0.0, 2.0, 4.0]
    assert found[0].at.timestamp() == 1_000_000
    assert found[0].brightness == pytest.approx(100 / 255, abs=0.01)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "huge.jpg").write_bytes(b"\0" * (10 * 1024 * 1024 + 1))
    (tmp_path / "junk.jpg").write_bytes(b"junk")
    gone, huge, junk = taken(opened(tmp_path))
    assert gone.error == "unreadable_file: No such file or directory"
    assert str(huge.error).startswith("image_too_large: image is 10485761 bytes")
    assert (junk.picture, junk.brightness, junk.error) == (b"junk", None, None)
    assert brightness_of(b"") is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nowhere.mp4"], "nowhere.mp4 does not exist"),
        (["ftp://user:secret@camera/x"], "ftp://camera/x is not a URL that can be watched"),
        (["concat:a|b"], "does not exist"),
        (["yard=nowhere"], "nowhere does not exist"),
        (["http://a:secret@camera/s", "http://camera/s"], "two sources are called http://camera/s"),
    ],
)
def test_what_cannot_be_watched_is_refused(given: list[str], said: str) -> None:
    with pytest.raises(SourceFailure, match=said) as failure:
        open_sources(given, every_s=1, say=unheard)
    assert "secret" not in str(failure.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceFailure, match="has no pictures"):
        opened(tmp_path).take()


def test_a_name_before_a_source_names_it(greys: Path, tmp_path: Path) -> None:
    (source,) = open_sources([f"front={greys}"], every_s=1, say=unheard)
    assert source.name == "front"
    odd = tmp_path / "a=b.mp4"
    odd.write_bytes(greys.read_bytes())
    assert opened(odd).name == str(odd)


class Said:
    """What was said of sources, from their threads."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, source: str, what: str) -> None:
        self.lines.append(f"{source}: {what}")


def grey_pictures(count: int) -> list[bytes]:
    return [as_file(grey_picture(n * 10), "JPEG") for n in range(count)]


def test_a_stream_that_is_cut_is_connected_again() -> None:
    said = Said()
    with MjpegCamera(grey_pictures(20)).running() as camera:
        (source,) = open_sources([camera.address], every_s=0, say=said)
        with closing(source):
            for _ in range(5):
                assert source.take() is not None
            camera.cut()
            before = time.monotonic()
            while camera.connections < 2 and time.monotonic() < before + 30:
                assert source.take() is not None
            for _ in range(5):
                assert source.take() is not None
    assert camera.connections == 2
    assert source.name.startswith("http://127.0.0.1:")
    assert said.lines[0].endswith("Reconnecting in 1 s.")
    assert not any("secret" in line for line in (*said.lines, source.name))


def test_frames_that_come_too_fast_are_skipped_and_counted() -> None:
    with MjpegCamera(grey_pictures(20), each_s=0.01).running() as camera:
        (source,) = open_sources([camera.address], every_s=0, say=Said())
        with closing(source):
            first = source.take()
            time.sleep(0.5)
            source.take()
            newest = source.take()
    assert first is not None
    assert newest is not None
    assert newest.number > first.number + 10


def test_a_stream_gives_a_frame_each_time_it_is_due() -> None:
    with MjpegCamera(grey_pictures(20), each_s=0.01).running() as camera:
        (source,) = open_sources([camera.address], every_s=0.2, say=Said())
        with closing(source):
            found = [source.take() for _ in range(4)]
    times = [frame.at_s for frame in found if frame is not None]
    assert len(times) == 4
    assert np.diff(times).min() > 0.1


def test_pauses_grow_while_nobody_answers() -> None:
    said = Said()
    (source,) = open_sources(["http://user:secret@127.0.0.1:9/video"], every_s=0, say=said)
    with closing(source):
        waiting = threading.Thread(target=source.take)
        waiting.start()
        deadline = time.monotonic() + 30
        while len(said.lines) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        source.close()
        waiting.join(timeout=30)
        assert not waiting.is_alive()
    assert said.lines[0] == (
        "http://127.0.0.1:9/video: no picture: connection refused. Reconnecting in 2 s."
    )
    assert "Reconnecting in 4 s" in said.lines[1]


def test_a_closed_source_has_ended(greys: Path) -> None:
    source = opened(greys)
    assert source.take() is not None
    source.close()
    assert source.take() is None
