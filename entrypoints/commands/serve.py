"""``clip-server serve``."""

import logging

import click

from entrypoints.commands.starting import settings_or_exit

logger = logging.getLogger(__name__)


@click.command()
def serve() -> None:
    """Start the server.

    It is configured by the environment: see the table in the README.

    \u0008
    Examples:
      CLIP_MODEL_PATH=builtin:demo clip-server serve
      CLIP_MODEL_PATH=/models/clip-vit-l PORT=9000 clip-server serve
    """
    settings = settings_or_exit()
    # Imported here so that a bad value is reported before the framework is loaded.
    from entrypoints.logs import configure_logging

    configure_logging(settings.log_format, settings.log_level)
    from adapters.observability.profiling import start_profiling
    from adapters.system.memory import return_large_blocks_at_once
    from entrypoints.container import Container
    from entrypoints.server.server import serve as serve_http

    return_large_blocks_at_once()
    for warning in settings.warnings:
        logger.warning(warning)
    start_profiling(
        wanted=settings.profile, url=settings.pyroscope_url, environment=settings.environment
    )
    serve_http(Container(settings=settings))
