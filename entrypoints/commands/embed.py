"""``clip-server embed``."""

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click

from entrypoints.commands.starting import compose, fail, loaded_model, settings_or_exit

if TYPE_CHECKING:
    from application.bulk_ports import Progress
    from entrypoints.container import Container

_INTERRUPTED: Final = 128 + signal.SIGINT
"""Exit status of a run that was stopped, as shells have it."""

_SILENCE_S: Final = 30
"""Seconds between two lines of progress in a log."""


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write; its name ends in .parquet, .npz or .jsonl.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there already.")
def embed(paths: tuple[str, ...], output: Path, overwrite: bool) -> None:
    """Embed images into one file, a row for each.

    PATH is an image, a folder (with all folders in it) or a pattern in quotes; ** in a pattern
    stands for any number of folders. Links to folders are not followed inside a folder or by **.

    A file that cannot be embedded does not stop the run: its row has the error instead. The exit
    status is 1 if no file could be embedded.

    To continue a run that was stopped or killed, give the same command again. Until OUTPUT is
    written, the work done so far is in OUTPUT.journal.

    \u0008
    Examples:
      clip-server embed photos/ --output photos.parquet
      clip-server embed 'cameras/*/2026-11-*' door.jpg -o november.npz
    """
    container = compose(settings_or_exit())
    from application.bulk_ports import BulkFailure
    from domain.errors import ModelNotReady

    bar = _Bar()
    try:
        finished = asyncio.run(_run(container, paths, output, overwrite=overwrite, bar=bar))
    except (KeyboardInterrupt, asyncio.CancelledError):
        bar.close()
        click.echo(f"Stopped: {bar}. To continue, give the same command again.", err=True)
        sys.exit(_INTERRUPTED)
    except (BulkFailure, ModelNotReady, OSError) as failure:
        bar.close()
        fail(str(failure))
    bar.close()
    failed = f", {finished.failed} of them with an error" if finished.failed else ""
    click.echo(f"{output}: {finished.total} rows{failed}", err=True)
    if finished.failed == finished.total:
        fail("No file could be embedded; each row's error says why.")


async def _run(
    container: "Container", paths: tuple[str, ...], output: Path, *, overwrite: bool, bar: "_Bar"
) -> "Progress":
    target = container.embeddings_file(output, overwrite=overwrite)
    with _stopped_by_signals(bar):
        async with loaded_model(container):
            return await container.embed_in_bulk()(
                container.image_files(paths), target, on_progress=bar.show
            )


@contextmanager
def _stopped_by_signals(bar: "_Bar") -> Iterator[None]:
    """Cancel the current task on Ctrl-C and on SIGTERM, so that it records its finished rows.

    While files are being listed, nothing is recorded yet, and the event loop does not run and so
    cannot cancel anything. In that phase the signal raises KeyboardInterrupt directly.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def stop(_: int, __: FrameType | None) -> None:
        if not bar.begun:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(task.cancel)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Bar:
    """Progress: share, rate and time left on a terminal, else a line every half minute."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._last: Progress | None = None
        self._said_at = time.monotonic()

    @property
    def begun(self) -> bool:
        """Whether all files are listed and embedding has begun."""
        return self._last is not None

    def show(self, progress: "Progress") -> None:
        """Draw the bar as of now."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=progress.total,
                initial=progress.done,
                unit=" images",
                disable=None,  # shown only on a terminal
                dynamic_ncols=True,
            )
        else:
            self._bar.update()
        if self._last is None or progress.failed != self._last.failed:
            self._bar.set_postfix(errors=progress.failed, refresh=False)
        self._last = progress
        if self._bar.disable and time.monotonic() - self._said_at >= _SILENCE_S:
            self._said_at = time.monotonic()
            click.echo(f"{self}.", err=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def __str__(self) -> str:
        if self._last is None:
            return "nothing was embedded yet"
        return f"{self._last.done} of {self._last.total} images are done"
