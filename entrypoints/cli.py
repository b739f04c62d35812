"""The command ``clip-server``."""

import logging
import sys
from pathlib import Path

import click

from entrypoints.commands.export import export
from entrypoints.commands.pipeline import pipeline
from entrypoints.commands.tensorrt import tensorrt
from entrypoints.commands.validate import validate
from entrypoints.logs import configure_logging
from entrypoints.settings import InvalidSetting, read_settings

logger = logging.getLogger(__name__)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="clip-embedding-server")
def main() -> None:
    """CLIP embeddings over HTTP."""


@main.command()
def serve() -> None:
    """Start the server, configured by the environment (see the README's table)."""
    try:
        settings = read_settings()
    except InvalidSetting as invalid:
        click.echo(str(invalid), err=True)
        sys.exit(2)
    configure_logging(settings.log_format, settings.log_level)
    # Imported here so that a bad value is reported before the framework is loaded.
    from adapters.observability.profiling import start_profiling
    from entrypoints.container import Container
    from entrypoints.http.server import serve as serve_http

    for warning in settings.warnings:
        logger.warning(warning)
    start_profiling(
        wanted=settings.profile, url=settings.pyroscope_url, environment=settings.environment
    )
    serve_http(Container(settings=settings))


@main.command()
@click.argument("source")
@click.argument("directory", type=click.Path(path_type=Path))
def bundle(source: str, directory: Path) -> None:
    """Make a bundle of the checkpoint SOURCE in the new directory DIRECTORY.

    A bundle is a checkpoint together with all that serves it on OpenVINO without PyTorch. SOURCE
    is whatever CLIP_MODEL_PATH may be. Serve the result with CLIP_MODEL_PATH=DIRECTORY.
    """
    from adapters.checkpoints.checkpoint import InvalidCheckpoint
    from adapters.checkpoints.reading import read_checkpoint
    from adapters.export.bundle import write_bundle

    if directory.exists():
        click.echo(f"{directory} exists already; name a directory that does not.", err=True)
        sys.exit(1)
    try:
        made = write_bundle(read_checkpoint(source), directory)
    except (InvalidCheckpoint, OSError) as failure:
        click.echo(str(failure), err=True)
        sys.exit(1)
    click.echo(f"{made.directory}: {made.model}, fingerprint {made.fingerprint}")


for command in (export, validate, tensorrt, pipeline):
    main.add_command(command)


if __name__ == "__main__":
    main()
