"""``clip-server download``."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("name")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Make a bundle of it in this directory, which must not exist yet.",
)
def download(name: str, bundle: Path | None) -> None:
    """Download a model from the Hugging Face hub, for a machine without a network.

    NAME is as in CLIP_MODEL_PATH: owner/name, or owner/name@revision. It goes into HF_HOME, and
    what is there already is not downloaded again. A bundle is a directory that you can copy; serve
    it with CLIP_MODEL_PATH=DIRECTORY.

    \u0008
    Examples:
      clip-server download openai/clip-vit-large-patch14
      clip-server download openai/clip-vit-large-patch14 --bundle clip-vit-l
    """
    from adapters.export.bundles import write_bundle
    from adapters.models.checkpoint import InvalidCheckpoint
    from adapters.models.hub import is_hub_name
    from adapters.models.reading import fetched, read_checkpoint

    if not is_hub_name(name):
        click.echo(
            f"{name[:200]} is no name on the hub, which has the form owner/name; if it is a "
            "directory, nothing need be downloaded.",
            err=True,
        )
        sys.exit(2)
    if bundle is not None and bundle.exists():
        click.echo(f"{bundle} exists already; name a directory that does not.", err=True)
        sys.exit(1)
    try:
        directory = fetched(name)
        if bundle is None:
            click.echo(directory)
            return
        made = write_bundle(read_checkpoint(directory), bundle)
    except (InvalidCheckpoint, OSError) as failure:
        click.echo(str(failure), err=True)
        sys.exit(1)
    click.echo(f"{made.directory}: {made.model}, fingerprint {made.fingerprint}")
