"""The command ``clip-server``."""

import logging
import sys

import click

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
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    # Imported here so that a bad value is reported before the framework is loaded.
    from entrypoints.container import Container
    from entrypoints.http.server import serve as serve_http

    for warning in settings.warnings:
        logger.warning(warning)
    serve_http(Container(settings=settings))


if __name__ == "__main__":
    main()
