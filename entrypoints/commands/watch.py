"""``clip-server watch``."""

import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from domain.limits import FEWEST_FRAMES_FOR_A_THRESHOLD, MAX_FRAMES
from entrypoints.commands.starting import (
    compose,
    fail,
    result_or_exit,
    settings_or_exit,
    supervised_model,
)

if TYPE_CHECKING:
    from application.use_cases.watch import Scene, Watching
    from application.watch_ports import AlarmPort, FrameEmbedderPort, FrameSourcePort
    from entrypoints.commands.watch_report import WatchReport
    from entrypoints.container import Container

_PLACE: Final = "{source}"
"""The placeholder for a source's name in a baseline's file name."""

_PATH: Final = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--every",
    type=click.FloatRange(0, 86_400),
    default=2.0,
    show_default=True,
    help="Seconds between two frames; 0: every frame.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=_PATH,
    help="What the scene usually looks like; twice for day and night. {source} stands for the "
    "source's name.",
)
@click.option(
    "--baseline-frames",
    type=click.IntRange(FEWEST_FRAMES_FOR_A_THRESHOLD, MAX_FRAMES),
    default=30,
    show_default=True,
    help="Build the baseline from this many first frames if none is given.",
)
@click.option("--save-baseline", type=_PATH, help="Save the built baseline in this file.")
@click.option(
    "--night",
    metavar="HH:MM-HH:MM",
    help="When the second of two baselines applies. Without it, the one closer in brightness does.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Anomaly score above which a frame is unusual. Default: the baseline's suggestion.",
)
@click.option(
    "--alarm-after",
    type=click.IntRange(1, 10_000),
    default=2,
    show_default=True,
    help="Raise an alarm after this many unusual frames in a row.",
)
@click.option(
    "--quiet-for",
    type=click.FloatRange(0, 7 * 86_400),
    default=300.0,
    show_default=True,
    help="Seconds to wait after an alarm before the next one.",
)
@click.option("--labels", metavar="A,B,...", help="Score these labels for each frame.")
@click.option("--known", type=_PATH, help="Name the nearest row in a file written by `embed`.")
@click.option("--webhook", metavar="URL", help="POST each alarm to this URL, with a small picture.")
@click.option("--exec", "command", metavar="COMMAND", help="Run this command for each alarm.")
@click.option("--alarm-file", type=_PATH, help="Append each alarm to this file.")
@click.option("--output", type=_PATH, help="Append a JSON line for each frame to this file.")
@click.option("--server", metavar="URL", help="Use this server instead of loading a model.")
@click.option("--key", metavar="KEY", help="The server's API key.")
@click.option("--json", "json_wanted", is_flag=True, help="Print a JSON line for each frame.")
def watch(
    *,
    sources: tuple[str, ...],
    every: float,
    baselines: tuple[Path, ...],
    baseline_frames: int,
    save_baseline: Path | None,
    night: str | None,
    threshold: float | None,
    alarm_after: int,
    quiet_for: float,
    labels: str | None,
    known: Path | None,
    webhook: str | None,
    command: str | None,
    alarm_file: Path | None,
    output: Path | None,
    server: str | None,
    key: str | None,
    json_wanted: bool,
) -> None:
    """Watch scenes, and raise an alarm when one looks unusual.

    SOURCE is a folder of pictures, a video file, or the address of a camera's stream (RTSP, or
    MJPEG over HTTP); several are watched at once. NAME=SOURCE gives it a name. A folder and a file
    end at their end; a stream is connected again for as long as it takes.

    COMMAND gets the alarm as JSON on its standard input.

    \u0008
    Examples:
      clip-server watch rtsp://user:password@camera/stream --save-baseline usual.json
      clip-server watch front=rtsp://camera1/s yard=rtsp://camera2/s --baseline '{source}.json'
      clip-server watch night.mp4 --baseline day.json --baseline night.json --json
      clip-server watch rtsp://camera/stream --exec 'mail -s alarm me@example.org'
    """
    if baselines and save_baseline is not None:
        raise click.UsageError("Give --baseline or --save-baseline: only what is built is saved.")
    if len(baselines) > 2:
        raise click.UsageError("Give --baseline at most twice: for day and night.")
    if save_baseline is not None and len(sources) > 1 and _PLACE not in str(save_baseline):
        raise click.UsageError(
            "Several sources need a file each: --save-baseline 'usual-{source}.json'."
        )
    # Imports in functions keep `--help` and completion fast.
    from adapters.watching.sources import open_sources
    from application.use_cases.watch import Watching
    from application.watch_ports import SourceFailure
    from domain.watching import AlarmRule, NightHours
    from entrypoints.commands.watch_report import WatchReport

    try:
        hours = None if night is None else NightHours.parsed(night)
    except ValueError:
        raise click.UsageError(
            f"--night is {night!r}; it must be two times such as 21:00-06:30."
        ) from None
    if hours is not None and len(baselines) != 2:
        raise click.UsageError("--night needs two: --baseline for the day, then for the night.")
    watching = Watching(
        rule=AlarmRule(frames=alarm_after, quiet_s=quiet_for),
        threshold=threshold,
        baseline_frames=baseline_frames,
        labels=tuple(label.strip() for label in labels.split(",")) if labels else (),
        night=hours,
    )
    alarms = _alarms(webhook, command, alarm_file)
    container = compose(settings_or_exit())
    with WatchReport(json_wanted=json_wanted, output=output) as report:
        try:
            opened = open_sources(sources, every_s=every, say=report.trouble)
        except SourceFailure as failure:
            fail(str(failure))
        result_or_exit(
            _watch(
                container,
                [_scene(source, baselines, save_baseline) for source in opened],
                watching,
                report=report,
                alarms=alarms,
                known=known,
                server=server,
                key=key,
            )
        )


def _alarms(webhook: str | None, command: str | None, alarm_file: Path | None) -> "list[AlarmPort]":
    from adapters.watching.alarms import Command, JsonLinesFile, Webhook

    alarms: list[AlarmPort] = []
    if webhook is not None:
        try:
            alarms.append(Webhook(webhook))
        except ValueError:
            raise click.UsageError(
                "--webhook must be an address that begins with http:// or https://."
            ) from None
    if command is not None:
        alarms.append(Command(command))
    if alarm_file is not None:
        alarms.append(JsonLinesFile(alarm_file))
    return alarms


def _scene(
    source: "FrameSourcePort", baselines: Sequence[Path], save_baseline: Path | None
) -> "Scene":
    from adapters.bulk.baseline_file import read_baselines, write_baselines
    from application.bulk_ports import BulkFailure
    from application.use_cases.watch import Scene
    from domain.errors import ClipError

    try:
        kept = [
            baseline
            for path in baselines
            for baseline in read_baselines(_of_source(path, source.name))
        ]
    except (BulkFailure, ClipError) as failure:
        fail(str(failure))
    if save_baseline is None:
        return Scene(source, kept)
    target = _of_source(save_baseline, source.name)
    return Scene(source, kept, save=lambda learned: write_baselines(target, learned))


def _of_source(path: Path, name: str) -> Path:
    """A baseline's file name with the source's name filled in, without folder separators."""
    plain = "".join(each if each.isalnum() or each in "-_." else "-" for each in name)
    return Path(str(path).replace(_PLACE, plain))


async def _watch(
    container: "Container",
    scenes: "Sequence[Scene]",
    watching: "Watching",
    *,
    report: "WatchReport",
    alarms: "Sequence[AlarmPort]",
    known: Path | None,
    server: str | None,
    key: str | None,
) -> None:
    from application.use_cases.search import KnownSightings
    from application.use_cases.watch import EmbedFrames, WatchScenes

    sightings = None if known is None else KnownSightings(container.index_file(known))
    embedder: FrameEmbedderPort
    model: AbstractAsyncContextManager[None]
    if server is None:
        embedder, model = EmbedFrames(container.inference()), supervised_model(container)
    else:
        from adapters.remote.clip_server import ClipServer
        from adapters.watching.server_embedder import ServerEmbedder

        embedder, model = ServerEmbedder(ClipServer(server, key=key)), nullcontext()
    watch_scenes = WatchScenes(
        embedder, watching, clock=container.clock(), reporter=report, alarms=alarms, known=sightings
    )
    loop = asyncio.get_running_loop()
    async with model:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, watch_scenes.stop, scenes)
            except NotImplementedError:  # Windows ends the process instead
                logging.getLogger(__name__).debug("signals are not handled here")
        await watch_scenes(scenes)
