"""The use case that watches scenes, on sources and an embedder that do as they are told."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from application.bulk_ports import BulkFailure
from application.use_cases.search import KnownSightings
from application.use_cases.watch import Scene, Watching, WatchScenes
from application.watch_ports import (
    AlarmPort,
    EmbeddedFrame,
    EmbedderUnavailable,
    Frame,
    FrameEmbedderPort,
    FrameSourcePort,
    SourceFailure,
    WatchedFrame,
    WatchReporterPort,
)
from domain.embedding import Embedding
from domain.errors import InvalidBaseline, InvalidImage, InvalidLabels
from domain.watching import AlarmRule, KeptBaseline
from tests.support.clock import FakeClock
from tests.support.indexes import MemoryIndex

USUAL, UNUSUAL = b"usual", b"truck"
DAY, NIGHT = 0.6, 0.1


def frame(number: int, picture: bytes | None = USUAL, **more: Any) -> Frame:
    at = datetime.fromtimestamp(number, UTC)
    return Frame(number=number, at=at, at_s=float(number), picture=picture, **more)


class Given(FrameSourcePort):
    """Gives the frames that it was given."""

    def __init__(self, frames: Sequence[Frame], *, name: str = "yard", live: bool = False) -> None:
        self.name, self.live = name, live
        self.closed = threading.Event()
        self._frames = iter(frames)

    def take(self) -> Frame | None:
        return None if self.closed.is_set() else next(self._frames, None)

    def close(self) -> None:
        self.closed.set()


class Waits(Given):
    """Gives its frames and then waits, as a camera does."""

    def take(self) -> Frame | None:
        following = super().take()
        if following is None:
            self.closed.wait()
        return following


class Embedder(FrameEmbedderPort):
    """Embeds a picture by its first byte, nearly the same each time."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self.asked: list[bytes] = []
        self.fails: list[Exception] = []

    async def embed(self, picture: bytes, labels: Sequence[str]) -> EmbeddedFrame:
        self.asked.append(picture)
        if self.fails:
            raise self.fails.pop(0)
        vector = self._random.normal(scale=0.02, size=16)
        vector[picture[0] % 16] += 1
        scores = {label: 1 / len(labels) for label in labels} if labels else None
        return EmbeddedFrame(Embedding.from_encoder(vector), "f1", scores)


class Report(WatchReporterPort):
    def __init__(self) -> None:
        self.frames: list[WatchedFrame] = []
        self.troubles: list[str] = []
        self._one_more = asyncio.Event()

    def frame(self, frame: WatchedFrame) -> None:
        self.frames.append(frame)
        self._one_more.set()

    async def until(self, frames: int) -> None:
        while len(self.frames) < frames:
            self._one_more.clear()
            await self._one_more.wait()

    def trouble(self, source: str, what: str) -> None:
        self.troubles.append(what)

    @property
    def alarms(self) -> list[int]:
        return [each.frame for each in self.frames if each.alarm]


class Told(AlarmPort):
    def __init__(self, wait: asyncio.Event | None = None) -> None:
        self.of: list[tuple[int, bytes]] = []
        self._wait = wait

    async def tell(self, frame: WatchedFrame, picture: bytes) -> None:
        if self._wait is not None:
            await self._wait.wait()
        self.of.append((frame.frame, picture))


@pytest.fixture
def report() -> Report:
    return Report()


@pytest.fixture
def embedder() -> Embedder:
    return Embedder()


LEARN_10 = Watching(rule=AlarmRule(frames=2, quiet_s=0), baseline_frames=10)


def watch_scenes(
    embedder: FrameEmbedderPort, report: Report, watching: Watching = LEARN_10, **more: Any
) -> WatchScenes:
    return WatchScenes(embedder, watching, clock=FakeClock(), reporter=report, **more)


async def test_a_baseline_is_learned_and_what_differs_is_told(
    embedder: Embedder, report: Report
) -> None:
    frames = [frame(n) for n in range(20)] + [frame(n, UNUSUAL) for n in range(20, 24)]
    saved: list[KeptBaseline] = []
    told = Told()
    scene = Scene(Given([*frames, frame(24)]), [], save=saved.extend)
    await watch_scenes(embedder, report, alarms=[told])([scene])
    assert [each.learned for each in report.frames[:11]] == [*range(1, 11), None]
    assert [each.anomaly_score for each in report.frames[:10]] == [None] * 10
    assert report.frames[9].threshold == saved[0].threshold == report.frames[10].threshold
    assert saved[0].fingerprint == "f1"
    assert report.alarms == [21]
    assert told.of == [(21, UNUSUAL)]
    assert report.frames[20].anomaly_score == pytest.approx(1, abs=0.2)


async def test_frames_of_day_and_night_make_two_baselines(
    embedder: Embedder, report: Report
) -> None:
    lights = [(USUAL, DAY), (b"night", NIGHT)]
    frames = [frame(n, lights[n % 2][0], brightness=lights[n % 2][1]) for n in range(16)]
    saved: list[KeptBaseline] = []
    await watch_scenes(embedder, report)([Scene(Given(frames), [], save=saved.extend)])
    assert [each.brightness for each in saved] == [pytest.approx(DAY), pytest.approx(NIGHT)]
    assert not report.alarms
    assert all(each.anomaly_score < 0.1 for each in report.frames[10:] if each.anomaly_score)


async def test_sources_are_watched_side_by_side(embedder: Embedder, report: Report) -> None:
    scenes = [
        Scene(Given([frame(n) for n in range(12)], name=name), []) for name in ("front", "yard")
    ]
    await watch_scenes(embedder, report)(scenes)
    for name in ("front", "yard"):
        assert [each.frame for each in report.frames if each.source == name] == [*range(12)]


async def test_a_picture_without_an_embedding_is_named_and_passed_over(
    embedder: Embedder, report: Report
) -> None:
    embedder.fails = [InvalidImage("image is damaged.")]
    unreadable = frame(1, None, path="b.jpg", error="unreadable_file: Permission denied")
    frames = [frame(0, path="a.jpg"), unreadable, *(frame(n) for n in range(2, 14))]
    await watch_scenes(embedder, report)([Scene(Given(frames), [])])
    assert [(each.path, each.error) for each in report.frames[:2]] == [
        ("a.jpg", "invalid_image: image is damaged."),
        ("b.jpg", "unreadable_file: Permission denied"),
    ]
    assert report.frames[2].learned == 1


async def passing(clock: FakeClock, work: "asyncio.Task[None]") -> None:
    """Let time pass until the work is done."""
    while not work.done():
        await asyncio.sleep(0.001)
        if clock.sleeping:
            await clock.advance(60)
    await work


async def test_a_file_waits_for_an_embedder_and_a_stream_goes_on(
    embedder: Embedder, report: Report
) -> None:
    for live, expected in ((False, [0, 1, 2]), (True, [2])):
        embedder.fails = [EmbedderUnavailable("no model.")] * 2
        clock = FakeClock()
        watching = WatchScenes(embedder, LEARN_10, clock=clock, reporter=report)
        report.frames.clear()
        scene = Scene(Given([frame(n) for n in range(3)], live=live), [kept()])
        await passing(clock, asyncio.create_task(watching([scene])))
        assert [each.frame for each in report.frames] == expected
    assert "Trying again in 2 s." in report.troubles[1]


def kept(**other: Any) -> KeptBaseline:
    vector = np.zeros(16)
    vector[USUAL[0] % 16] = 1
    fields = {"embedding": Embedding.from_encoder(vector), "threshold": 0.2, "fingerprint": "f1"}
    return KeptBaseline(**{**fields, **other})


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        (kept(fingerprint="other"), "fingerprint other, and the frame with that of f1"),
        (kept(threshold=None), "no threshold"),
        (kept(embedding=Embedding.from_encoder(np.ones(4))), "has 4 numbers.*have 16"),
    ],
)
async def test_a_baseline_that_cannot_be_used_is_refused(
    baseline: KeptBaseline, said: str, embedder: Embedder, report: Report
) -> None:
    source = Waits([frame(0)])
    with pytest.raises(InvalidBaseline, match=said):
        await watch_scenes(embedder, report)([Scene(source, [baseline])])
    assert source.closed.is_set()


async def test_a_given_threshold_replaces_the_baselines(embedder: Embedder, report: Report) -> None:
    watching = Watching(threshold=0.0, rule=AlarmRule(frames=1))
    await watch_scenes(embedder, report, watching)([Scene(Given([frame(0)]), [kept()])])
    assert (report.frames[0].threshold, report.alarms) == (0.0, [0])


async def test_a_source_that_ends_too_early_is_a_failure(
    embedder: Embedder, report: Report
) -> None:
    with pytest.raises(SourceFailure, match="yard ended after 3 of the 10 frames"):
        await watch_scenes(embedder, report)([Scene(Given([frame(n) for n in range(3)]), [])])


async def test_it_can_be_stopped_while_a_baseline_is_learned(
    embedder: Embedder, report: Report
) -> None:
    scenes = [Scene(Waits([frame(n) for n in range(3)]), [])]
    watching = watch_scenes(embedder, report)
    work = asyncio.create_task(watching(scenes))
    await report.until(3)
    watching.stop(scenes)
    await work


async def test_labels_and_the_nearest_sighting_are_named(
    embedder: Embedder, report: Report
) -> None:
    index = MemoryIndex(
        np.stack([np.eye(16)[1], np.eye(16)[USUAL[0] % 16], np.full(16, np.nan)]),
        fingerprint="f1",
        paths=["far.jpg", "near.jpg", "failed.jpg"],
    )
    watching = Watching(labels=("a truck", "nothing"), baseline_frames=10)
    scenes = [Scene(Given([frame(0)]), [kept()])]
    await watch_scenes(embedder, report, watching, known=KnownSightings(index))(scenes)
    assert report.frames[0].scores == {"a truck": 0.5, "nothing": 0.5}
    assert report.frames[0].nearest is not None
    path, cosine = report.frames[0].nearest
    assert (path, cosine > 0.95) == ("near.jpg", True)
    index.fingerprint = "other"
    with pytest.raises(BulkFailure, match="fingerprint other"):
        await watch_scenes(embedder, report, watching, known=KnownSightings(index))(
            [Scene(Given([frame(0)]), [kept()])]
        )
    with pytest.raises(InvalidLabels):
        watch_scenes(embedder, report, Watching(labels=("a truck", " ")))


async def test_receivers_that_hang_delay_nothing_and_do_not_pile_up(
    embedder: Embedder, report: Report
) -> None:
    wait = asyncio.Event()
    told = Told(wait)
    watching = Watching(rule=AlarmRule(frames=1, quiet_s=0))
    frames = [frame(n, UNUSUAL if n % 2 else USUAL) for n in range(60)]
    work = asyncio.create_task(
        watch_scenes(embedder, report, watching, alarms=[told])([Scene(Given(frames), [kept()])])
    )
    await report.until(60)
    assert len(report.alarms) == 30
    assert sum("was not sent" in each for each in report.troubles) == 14
    wait.set()
    await work
    assert len(told.of) == 16
