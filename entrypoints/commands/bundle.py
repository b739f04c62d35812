"""``clip-server bundle``."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("source")
@click.argument("directory", type=click.Path(path_type=Path))
def bundle(source: str, directory: Path) -> None:
    """Make a bundle of a checkpoint.

    A bundle is the checkpoint SOURCE together with all that serves it on OpenVINO without PyTorch,
    in the new directory DIRECTORY. SOURCE is whatever CLIP_MODEL_PATH may be. Serve the
    result with CLIP_MODEL_PATH=DIRECTORY.

    \u0008
    Example:
      clip-server bundle /models/clip-vit-l /models/clip-vit-l-bundle
    """
    from adapters.export.bundles import write_bundle
    from adapters.models.checkpoint import InvalidCheckpoint
    from adapters.models.reading import read_checkpoint

    if directory.exists():
        click.echo(f"{directory} exists already; name a directory that does not.", err=True)
        sys.exit(1)
    try:
        made = write_bundle(read_checkpoint(source), directory)
    except (InvalidCheckpoint, OSError) as failure:
        click.echo(str(failure), err=True)
        sys.exit(1)
    click.echo(f"{made.directory}: {made.model}, fingerprint {made.fingerprint}")
