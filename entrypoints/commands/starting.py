"""From the environment to a composed service, for every command that needs one."""

import logging
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from entrypoints.container import Container
    from entrypoints.settings import Settings


def settings_or_exit() -> "Settings":
    """The settings; where one is not allowed, a line that says so and exit status 2."""
    # Imports in functions keep `--help` and completion fast.
    from entrypoints.settings import InvalidSetting, read_settings

    try:
        return read_settings()
    except InvalidSetting as invalid:
        click.echo(str(invalid), err=True)
        sys.exit(2)


def compose(settings: "Settings") -> "Container":
    """The service as the settings describe it, for a command that a person waits for."""
    from entrypoints.container import Container

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    # Why no model is loaded is told by the command; the log keeps what was not foreseen.
    logging.getLogger("application.model.model_lifecycle").addFilter(
        lambda record: bool(record.exc_info)
    )
    for warning in settings.warnings:
        logging.getLogger(__name__).warning(warning)
    return Container(settings=settings)
