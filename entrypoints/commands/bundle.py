"""``clip-server bundle``."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("source")
@click.argument("directory", type=click.Path(path_type=Path))
def bundle(source: str, directory: Path) -> None:
    """Make a bundle of a checkpoint.

    A bundle is a directory with the checkpoint and the files that OpenVINO needs to serve it
    without PyTorch. SOURCE is anything that CLIP_MODEL_PATH may be; DIRECTORY must not exist yet.
    Serve the bundle with CLIP_MODEL_PATH=DIRECTORY.

    \u0008
    Example:
      clip-server bundle /models/clip-vit-l /models/clip-vit-l-bundle
    """
    make_bundle(source, directory)


def make_bundle(source: str, directory: Path) -> None:
    """Make a bundle and print what it is; exits with status 1 if that fails."""
    # Imports in functions keep `--help` and completion fast.
    from adapters.export.bundles import write_bundle
    from adapters.models.checkpoint_files import InvalidCheckpoint
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
