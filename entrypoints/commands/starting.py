"""From the environment to a composed service, for every command that needs one."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from entrypoints.container import Container
    from entrypoints.settings import Settings

_T = TypeVar("_T")


def settings_or_exit(options: Mapping[str, str] | None = None) -> "Settings":
    """The settings. If a value is not allowed, print a line that says so and exit with status 2.

    Args:
        options: values from the command line that override variables, by variable name.
    """
    # Imports in functions keep `--help` and completion fast.
    from entrypoints.settings import read_settings
    from entrypoints.variables import InvalidSetting

    try:
        return read_settings(options=options)
    except InvalidSetting as invalid:
        click.echo(str(invalid), err=True)
        sys.exit(2)


def compose(settings: "Settings") -> "Container":
    """The service as the settings describe it, for a command that a person waits for."""
    from entrypoints.container import Container

    handler = logging.StreamHandler()
    # The command itself reports why no model is loaded; only unexpected errors are logged.
    handler.addFilter(
        lambda record: bool(record.exc_info) or not record.name.startswith("application.model.")
    )
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler]
    )
    for warning in settings.warnings:
        logging.getLogger(__name__).warning(warning)
    return Container(settings=settings)


@asynccontextmanager
async def loaded_model(container: "Container") -> AsyncIterator[None]:
    """Load the model for the duration of the block, and then end the container's threads.

    If the model cannot be loaded, the use cases raise the reason.
    """
    from entrypoints.container import close_threads

    try:
        await container.model().load()
        yield
    finally:
        await close_threads(container)


@asynccontextmanager
async def supervised_model(container: "Container") -> AsyncIterator[None]:
    """Like `loaded_model`, but for commands that run for days: a suspect model is reloaded.

    Raises:
        ModelNotReady: the model cannot be loaded; says why.
    """
    async with loaded_model(container):
        container.inference().encoder  # noqa: B018 - raises the reason if there is none
        supervision = asyncio.create_task(container.model().run())
        try:
            yield
        finally:
            supervision.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supervision


def result_or_exit(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a command's work. If it fails for a known reason, print that and exit with status 1."""
    from application.bulk_ports import BulkFailure
    from application.ports import ServerFailure
    from application.watch_ports import SourceFailure
    from domain.errors import ClipError

    try:
        return asyncio.run(work)
    except (ClipError, BulkFailure, ServerFailure, SourceFailure, OSError) as failure:
        fail(str(failure))


def fail(message: str) -> NoReturn:
    """Print one line on standard error, and exit with status 1."""
    click.echo(message, err=True)
    sys.exit(1)
