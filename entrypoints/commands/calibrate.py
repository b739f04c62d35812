"""``clip-server calibrate``."""

import csv
import json
import math
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from entrypoints.commands.starting import compose, loaded_model, result_or_exit, settings_or_exit
from entrypoints.commands.terminal import drawn

if TYPE_CHECKING:
    from application.bulk_ports import ImageFile, ImageFilesPort
    from application.use_cases.calibrate import Examples, MeasureExamples
    from domain.calibration import Calibration
    from entrypoints.container import Container

_DECIMALS: Final = 4
"""Decimals of the printed threshold. It is rounded up, which never adds a false alarm."""

_MOST_NAMED: Final = 5
"""Most unreadable pictures that are named one by one."""


def _common(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option(
            "--svg",
            type=click.Path(path_type=Path, dir_okay=False, writable=True),
            help="Also write the distributions as a picture.",
        ),
        click.option(
            "--confidence",
            type=click.FloatRange(0.5, 1.0, max_open=True),
            default=0.95,
            show_default=True,
            help="How often the interval should contain the true value.",
        ),
        click.option(
            "--false-alarms",
            type=click.FloatRange(0.0, 0.5, min_open=True),
            default=0.01,
            show_default=True,
            help="The share of false alarms that you accept.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def calibrate() -> None:
    """Find a threshold from your own pictures.

    The defaults of /compare (0.85) and /anomaly-score are a beginning. Sort some pictures from
    your cameras, and this says where your own threshold lies and how sure that is.
    """


@calibrate.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@_common
def things(folder: Path, **options: Any) -> None:
    """Compare people or vehicles: one folder for each.

    FOLDER holds a folder for each person, vehicle or other thing, with two or more pictures of it,
    best from different cameras. Every picture is compared with every other.

    \u0008
    Example:
      clip-server calibrate things crops/ --false-alarms 0.01
    """
    folders = sorted(each for each in folder.iterdir() if each.is_dir())

    async def measure(measure: "MeasureExamples", container: "Container") -> "Examples":
        groups = [_listing(container, str(each)) for each in folders]
        groups = [group for group in groups if group]
        if len(groups) < 2:
            raise click.ClickException(
                f"{folder} holds {len(groups)} folders with pictures; at least 2 are needed, one "
                "for each thing."
            )
        files = container.image_files([])
        return await measure.of_things(files, groups, on_progress=_progress)

    _calibrate(measure, _Pairs(), **options)


@calibrate.command()
@click.argument("table", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_common
def pairs(table: Path, **options: Any) -> None:
    """Compare the pairs of a table.

    TABLE is a CSV file with three columns: two pictures, and `same` or `different`. Names of
    pictures are relative to the table's folder.

    \u0008
    Example:
      clip-server calibrate pairs pairs.csv --svg pairs.svg
    """

    async def measure(measure: "MeasureExamples", container: "Container") -> "Examples":
        files = container.image_files([])
        return await measure.of_pairs(files, _pairs_of(table), on_progress=_progress)

    _calibrate(measure, _Pairs(), **options)


@calibrate.command()
@click.argument("normal", type=click.Path(path_type=Path, exists=True))
@click.argument("unusual", type=click.Path(path_type=Path, exists=True), required=False)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Score against this baseline instead of the mean of the normal frames.",
)
@_common
def frames(normal: Path, unusual: Path | None, baseline: Path | None, **options: Any) -> None:
    """Find the anomaly score above which a scene is unusual.

    NORMAL is a folder of frames in which all is as usual, UNUSUAL one of frames that should raise
    an alarm. Frames that follow each other within seconds look alike and count as fewer than they
    are: take them minutes apart.

    \u0008
    Example:
      clip-server calibrate frames quiet/ alarms/ --false-alarms 0.001
    """

    async def measure(measure: "MeasureExamples", container: "Container") -> "Examples":
        kept = None
        if baseline is not None:
            from adapters.bulk.baseline_file import read_baselines

            kept, *others = read_baselines(baseline)
            if others:
                raise click.ClickException(
                    f"{baseline} has baselines of day and night. Calibrate each on its own frames, "
                    "with a baseline of its own."
                )
            loaded = container.inference().encoder.fingerprint
            if kept.fingerprint not in (None, loaded):
                raise click.ClickException(
                    f"{baseline} was made by a model with fingerprint {kept.fingerprint}, and "
                    f"the loaded model has {loaded}. Build the baseline again."
                )
        return await measure.of_frames(
            container.image_files([]),
            _listing(container, str(normal)),
            [] if unusual is None else _listing(container, str(unusual)),
            baseline=None if kept is None else kept.embedding,
            on_progress=_progress,
        )

    _calibrate(measure, _Frames(), **options)


class _Pairs:
    """The words for pairs of pictures."""

    number = "cosine"
    negatives = "different things"
    positives = "the same thing"
    unit = "pairs"

    def advice(self, threshold: float) -> str:
        return f'"threshold": {threshold} in the request to /compare'


class _Frames:
    """The words for frames of a scene."""

    number = "anomaly score"
    negatives = "normal frames"
    positives = "unusual frames"
    unit = "frames"

    def advice(self, threshold: float) -> str:
        return f'"threshold": {threshold} in the request to /anomaly-score'


def _calibrate(
    measure: "Callable[[MeasureExamples, Container], Awaitable[Examples]]",
    words: _Pairs | _Frames,
    *,
    false_alarms: float,
    confidence: float,
    svg: Path | None,
    as_json: bool,
) -> None:
    container = compose(settings_or_exit())
    from domain.calibration import calibrate as find_threshold

    async def work() -> "tuple[Examples, Calibration]":
        async with loaded_model(container):
            examples = await measure(container.measure_examples(), container)
        return examples, find_threshold(
            examples.negatives,
            examples.positives,
            false_alarms=false_alarms,
            confidence=confidence,
            groups=examples.groups,
        )

    examples, found = result_or_exit(work())
    _name_left_out(examples)
    threshold = _rounded_up(found.threshold)
    if as_json:
        click.echo(json.dumps({**asdict(found), "threshold": threshold}))
    else:
        _print(found, examples, words, threshold)
    if svg is not None:
        from entrypoints.commands.distribution import as_svg

        svg.write_text(
            as_svg(found, examples.negatives, examples.positives, words), encoding="utf-8"
        )
        click.echo(f"Wrote {svg}.", err=True)


def _listing(container: "Container", path: str) -> "list[ImageFile]":
    files: ImageFilesPort = container.image_files([path])
    return sorted(files.listing(), key=lambda file: file.path)


def _pairs_of(table: Path) -> "list[tuple[ImageFile, ImageFile, bool]]":
    from application.bulk_ports import ImageFile

    def picture(name: str) -> ImageFile:
        return ImageFile(str(table.parent / name), size=0, modified_ns=0)

    meanings = {"same": True, "different": False}
    found = []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if not row or (number == 1 and row[-1].strip().lower() not in meanings):
                    continue  # a header
                if len(row) != 3 or row[2].strip().lower() not in meanings:
                    raise click.ClickException(
                        f"{table}, line {number}: {','.join(row)!r} is not two pictures and `same` "
                        "or `different`, separated by commas."
                    )
                found.append((picture(row[0]), picture(row[1]), meanings[row[2].strip().lower()]))
    except (UnicodeDecodeError, csv.Error) as failure:
        raise click.ClickException(f"{table} is not a CSV file in UTF-8: {failure}.") from failure
    if not found:
        raise click.ClickException(f"{table} has no pairs.")
    return found


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        click.echo(f"\r{done} of {total} pictures are embedded{end}", err=True, nl=False)


def _name_left_out(examples: "Examples") -> None:
    left_out = list(examples.left_out.items())
    for path, reason in left_out[:_MOST_NAMED]:
        click.echo(f"left out: {path}: {reason}", err=True)
    if len(left_out) > _MOST_NAMED:
        click.echo(f"left out: {len(left_out) - _MOST_NAMED} more pictures", err=True)


def _rounded_up(threshold: float) -> float:
    scale: int = 10**_DECIMALS
    return math.ceil(round(threshold * scale, 6)) / scale


def _print(
    found: "Calibration", examples: "Examples", words: _Pairs | _Frames, threshold: float
) -> None:
    from entrypoints.commands.distribution import as_text

    click.echo(drawn(as_text(found, examples.negatives, examples.positives, words)))
    sure = f"{found.confidence * 100:g} % interval"
    low, high = found.interval.low, found.interval.high
    click.secho(f"threshold {threshold}", bold=True, nl=False)
    ends = f"{_end(low)} to {_end(high)}"
    click.echo(f"   ({sure}: {ends}) for {found.false_alarms:.2%} false alarms")
    worth = found.independent_negatives
    if worth < found.negatives:
        click.echo(
            f"{found.negatives} {words.unit} of {words.negatives} share pictures or things; they "
            f"say as much as {worth} independent ones."
        )
    if high is None:
        click.echo(
            f"That is too few to be sure: at least {found.fewest_negatives} independent "
            f"{words.unit} are needed for this rate, or accept more false alarms."
        )
    if found.detection is not None and found.detection_interval is not None:
        interval = found.detection_interval
        click.echo(
            f"Above it: {found.detection:.1%} of {found.positives} {words.unit} of "
            f"{words.positives} ({sure}: {interval.low:.1%} to {interval.high:.1%})."
        )
    click.echo(f"Use it: {words.advice(threshold)}")


def _end(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.{_DECIMALS}f}"
