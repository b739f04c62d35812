"""Shows that a command is still running."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

_EACH_S: Final = 1.0


@contextmanager
def working(on: str) -> Iterator[None]:
    """Show on standard error what is being done, and on a terminal also the elapsed time.

    Args:
        on: the work, such as ``loading the model``.
    """
    if not sys.stderr.isatty():
        click.echo(f"{on} ...", err=True)
        yield
        return
    done = threading.Event()
    start = time.monotonic()

    def show() -> None:
        while True:
            click.echo(f"\r{on} ... {time.monotonic() - start:.0f} s", nl=False, err=True)
            if done.wait(_EACH_S):
                click.echo("\r\x1b[K", nl=False, err=True)  # clears the line
                return

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
