"""``clip-server serve``."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from entrypoints.commands.starting import settings_or_exit

if TYPE_CHECKING:
    from entrypoints.settings import Settings

logger = logging.getLogger(__name__)


class _ServeCommand(click.Command):
    """Builds its options and the end of its help from the settings' declarations.

    The settings are imported only when needed, so that the help of other commands stays fast.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from entrypoints.settings import DECLARED

        options: list[click.Parameter] = [
            click.Option(
                [each.about.option, each.about.name],
                help=f"{each.about.meaning} Default: {each.about.name}, else "
                f"{each.default_text}.".replace("`", ""),
                metavar="TEXT",
            )
            for each in DECLARED
            if each.about.option is not None
        ]
        return [*options, *super().get_params(ctx)]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from entrypoints.configuration import help_entries

        with formatter.section("Environment variables"):
            formatter.write_dl(list(help_entries()))


def _how_to_bring_a_model(settings: "Settings") -> str | None:
    """Advice if nothing is at the default path, as in a container that was just started.

    The server does not fall back to the embedded demo model: someone whose mount failed would store
    its embeddings without noticing.
    """
    from adapters.encoders.selection import EncoderChoice
    from entrypoints.settings import Settings

    path = settings.model_path
    if path != Settings().model_path or Path(path).exists():
        return None
    if settings.encoder is EncoderChoice.FAKE:
        return None
    return (
        f"there is no checkpoint at {path}, so requests get 503. Mount one there (docker run "
        f"-v /your/checkpoint:{path}:ro; with compose, in the folder CLIP_MODELS), set "
        "CLIP_MODEL_PATH to where it is, or set CLIP_MODEL_PATH=builtin:demo to try the server "
        "with the embedded demo model."
    )


@click.command(cls=_ServeCommand)
def serve(**options: Any) -> None:
    """Start the server.

    It is configured by environment variables, listed below. Options win over them.

    \u0008
    Examples:
      clip-server serve --model builtin:demo
      clip-server serve --model openai/clip-vit-large-patch14
      CLIP_MODEL_PATH=/models/clip-vit-l clip-server serve --port 9000
    """
    settings = settings_or_exit(
        {name: value for name, value in options.items() if value is not None}
    )
    # Imported here so that a bad value is reported before the framework is loaded.
    from entrypoints.logs import configure_logging

    configure_logging(settings.log_format, settings.log_level)
    from adapters.encoders.selection import EncoderChoice
    from adapters.system.hardware import nvidia_driver_present, usable_cores
    from entrypoints.processes.count import http_processes

    for warning in settings.warnings:
        logger.warning(warning)
    if (advice := _how_to_bring_a_model(settings)) is not None:
        logger.warning(advice)
    if settings.api_keys is None:
        logger.warning(
            "CLIP_API_KEYS is not set: anyone who reaches %s:%d can use the server",
            settings.host,
            settings.port,
        )
    without_card = (EncoderChoice.OPENVINO, EncoderChoice.FAKE)
    fronts = http_processes(
        settings.http_processes,
        card=settings.encoder not in without_card and nvidia_driver_present(),
        cores=usable_cores(),
    )
    if fronts > 1:
        from entrypoints.processes.parent import serve_by_processes

        serve_by_processes(settings, fronts)
    else:
        _serve_in_this_process(settings)


def _serve_in_this_process(settings: "Settings") -> None:
    from adapters.observability.profiling import start_profiling
    from adapters.system.memory import return_large_blocks_at_once
    from entrypoints.container import Container, measure_encoders
    from entrypoints.server.server import serve as serve_http

    return_large_blocks_at_once()
    start_profiling(
        wanted=settings.profile, url=settings.pyroscope_url, environment=settings.environment
    )
    container = Container(settings=settings)
    measure_encoders(container)
    serve_http(container)
