"""Use case: watch scenes, and raise an alarm when one looks unusual."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Final

from application.bulk_ports import error_of
from application.inference.inference import Inference
from application.ports import ClockPort
from application.use_cases.search import KnownSightings
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
from domain.anomaly import score_against
from domain.baseline import baseline_of
from domain.classification import classify
from domain.embedding import Baseline, Embedding
from domain.errors import EncoderFault, InvalidBaseline, InvalidInput, ServiceUnavailable
from domain.watching import (
    AlarmRule,
    AlarmState,
    KeptBaseline,
    NightHours,
    baseline_for,
    groups_by_light,
)
from domain.wording import check_labels

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
"""Pauses between tries to embed a frame; each is twice as long as the one before."""

_MOST_ALARMS_UNDER_WAY: Final = 16
"""Alarms being sent at the same time; each may take as long as its receiver does."""


@dataclass(frozen=True, slots=True)
class Watching:
    """How scenes are watched.

    Attributes:
        rule: when an alarm is raised.
        threshold: anomaly score above which a frame is unusual; None: the baseline's own.
        baseline_frames: frames to build a baseline from if none is given.
        labels: labels to score for each frame.
        night: hours of the second baseline; None: use the baseline whose brightness is nearer.
    """

    rule: AlarmRule = field(default_factory=AlarmRule)
    threshold: float | None = None
    baseline_frames: int = 30
    labels: tuple[str, ...] = ()
    night: NightHours | None = None


@dataclass(slots=True, eq=False)
class Scene:
    """A source and its baselines.

    Attributes:
        source: where its frames come from.
        baselines: how it usually looks; if empty, learned from its first frames.
        save: is called with the baselines once they are learned.
    """

    source: FrameSourcePort
    baselines: Sequence[KeptBaseline]
    save: Callable[[Sequence[KeptBaseline]], None] = lambda _: None
    alarm: AlarmState = field(default_factory=AlarmState)
    learned: list[tuple[Embedding, float | None]] = field(default_factory=list)


class WatchScenes:
    """Watches sources side by side until each has ended.

    Each source has one frame in progress at a time. If frames come faster than they are embedded,
    live sources skip some and say how many, and other sources wait.
    """

    def __init__(
        self,
        embedder: FrameEmbedderPort,
        watching: Watching,
        *,
        clock: ClockPort,
        reporter: WatchReporterPort,
        alarms: Sequence[AlarmPort] = (),
        known: KnownSightings | None = None,
    ) -> None:
        """Set up.

        Args:
            embedder: embeds frames.
            watching: how the scenes are watched.
            clock: for pauses.
            reporter: gets every frame.
            alarms: get every alarm.
            known: known sightings; the nearest one is named for each frame.

        Raises:
            InvalidLabels: the labels break a rule.
        """
        if watching.labels:
            check_labels(watching.labels)
        self._embedder = embedder
        self._watching = watching
        self._clock = clock
        self._reporter = reporter
        self._alarms = alarms
        self._known = known
        self._telling: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def __call__(self, scenes: Sequence[Scene]) -> None:
        """Watch until every source has ended or was closed, and all alarms are sent.

        Raises:
            SourceFailure: a source cannot be read, or ended before its baseline was learned.
            InvalidBaseline: one is from another model, or has no threshold and none was given.
            InvalidFrames: the frames of a baseline cancel out.
        """
        threads = ThreadPoolExecutor(max(len(scenes), 1), thread_name_prefix="source")
        try:
            async with asyncio.TaskGroup() as group:
                for scene in scenes:
                    group.create_task(self._watch(scene, threads))
            if self._telling:
                await asyncio.wait(self._telling)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            for scene in scenes:
                scene.source.close()
            threads.shutdown(wait=False, cancel_futures=True)

    def stop(self, scenes: Sequence[Scene]) -> None:
        """End before the sources do; frames in progress are still finished."""
        self._stopped = True
        for scene in scenes:
            scene.source.close()

    async def _watch(self, scene: Scene, threads: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while (frame := await loop.run_in_executor(threads, scene.source.take)) is not None:
            await self._look_at(frame, scene)
        if not scene.baselines and not self._stopped:
            raise SourceFailure(
                f"{scene.source.name} ended after {len(scene.learned)} of the "
                f"{self._watching.baseline_frames} frames that its baseline is built from."
            )

    async def _look_at(self, frame: Frame, scene: Scene) -> None:
        seen = WatchedFrame(
            source=scene.source.name,
            frame=frame.number,
            time=frame.at,
            path=frame.path,
            skipped=frame.skipped,
            error=frame.error,
        )
        embedded = None
        if frame.picture is not None:
            try:
                embedded = await self._embedded(frame.picture, scene)
            except (InvalidInput, EncoderFault) as failure:
                seen = replace(seen, error=error_of(failure))
        if embedded is None:
            if seen.error is not None:
                self._reporter.frame(seen)
            return
        seen = replace(
            seen,
            scores=embedded.scores,
            nearest=None
            if self._known is None
            else self._known.nearest(embedded.embedding, embedded.fingerprint),
        )
        if scene.baselines:
            seen = self._scored(seen, frame, embedded, scene)
        else:
            self._learn(frame, embedded, scene)
            seen = replace(
                seen,
                learned=len(scene.learned) or self._watching.baseline_frames,
                threshold=scene.baselines[0].threshold if scene.baselines else None,
            )
        self._reporter.frame(seen)
        if seen.alarm and frame.picture is not None:
            self._tell(seen, frame.picture)

    async def _embedded(self, picture: bytes, scene: Scene) -> EmbeddedFrame | None:
        """The embedded picture; None if it could not be embedded before the next one came."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self._embedder.embed(picture, self._watching.labels)
            except EmbedderUnavailable as unavailable:
                self._reporter.trouble(
                    scene.source.name, f"{unavailable} Trying again in {pause_s:.0f} s."
                )
            await self._clock.sleep(pause_s)
            if scene.source.live:
                return None
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _learn(self, frame: Frame, embedded: EmbeddedFrame, scene: Scene) -> None:
        scene.learned.append((embedded.embedding, frame.brightness))
        if len(scene.learned) < self._watching.baseline_frames:
            return
        lights = [brightness for _, brightness in scene.learned if brightness is not None]
        complete = len(lights) == len(scene.learned)
        groups = groups_by_light(lights) if complete else [list(range(len(scene.learned)))]
        baselines = []
        for group in groups:
            usual = baseline_of([scene.learned[place][0] for place in group])
            baselines.append(
                KeptBaseline(
                    embedding=usual.embedding,
                    threshold=usual.suggested_threshold
                    if self._watching.threshold is None
                    else self._watching.threshold,
                    fingerprint=embedded.fingerprint,
                    brightness=mean(lights[place] for place in group) if complete else None,
                )
            )
        scene.save(baselines)
        scene.baselines = baselines
        scene.learned = []

    def _scored(
        self, seen: WatchedFrame, frame: Frame, embedded: EmbeddedFrame, scene: Scene
    ) -> WatchedFrame:
        baseline = baseline_for(
            scene.baselines,
            brightness=frame.brightness,
            at=frame.at.astimezone().time(),
            night=self._watching.night,
        )
        if baseline.fingerprint not in (None, embedded.fingerprint):
            raise InvalidBaseline(
                f"the baseline of {scene.source.name} was made by a model with fingerprint "
                f"{baseline.fingerprint}, and the frame with that of {embedded.fingerprint}. Build "
                "the baseline again.",
                code="baseline_of_another_model",
            )
        if baseline.embedding.dimension != embedded.embedding.dimension:
            raise InvalidBaseline(
                f"the baseline of {scene.source.name} has {baseline.embedding.dimension} numbers; "
                f"the model's embeddings have {embedded.embedding.dimension}.",
                code="baseline_wrong_length",
            )
        threshold = self._watching.threshold
        if threshold is None:
            threshold = baseline.threshold
        if threshold is None:
            raise InvalidBaseline(
                f"the baseline of {scene.source.name} has no threshold: give one.",
                code="baseline_without_threshold",
            )
        anomaly = score_against(
            Baseline(baseline.embedding), embedded.embedding, threshold=threshold
        )
        scene.alarm, alarm = scene.alarm.after(
            over=bool(anomaly.over_threshold), at_s=frame.at_s, rule=self._watching.rule
        )
        return replace(seen, anomaly_score=anomaly.score, threshold=threshold, alarm=alarm)

    def _tell(self, seen: WatchedFrame, picture: bytes) -> None:
        for alarm in self._alarms:
            if len(self._telling) >= _MOST_ALARMS_UNDER_WAY:
                self._reporter.trouble(
                    seen.source,
                    f"an alarm was not sent: {_MOST_ALARMS_UNDER_WAY} earlier ones are still in "
                    "progress.",
                )
                return
            task = asyncio.create_task(alarm.tell(seen, picture))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)


class EmbedFrames(FrameEmbedderPort):
    """Embeds frames in this process."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def embed(self, picture: bytes, labels: Sequence[str]) -> EmbeddedFrame:
        """See `FrameEmbedderPort.embed`. The labels' embeddings are cached."""
        try:
            embedding, texts = await self._inference.embed_image_and_texts(picture, labels)
        except ServiceUnavailable as unavailable:
            raise EmbedderUnavailable(str(unavailable)) from unavailable
        model = self._inference.encoder
        scores = None
        if labels:
            label_embeddings = dict(zip(labels, texts, strict=True))
            scores = classify(embedding, label_embeddings, logit_scale=model.logit_scale).scores
        return EmbeddedFrame(embedding, model.fingerprint, scores)
