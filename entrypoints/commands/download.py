"""``clip-server download``."""

import sys
from pathlib import Path

import click

from entrypoints.commands.bundle import make_bundle


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
    # Imports in functions keep `--help` and completion fast.
    from adapters.models.checkpoint_files import InvalidCheckpoint
    from adapters.models.hub import is_hub_name
    from adapters.models.reading import fetched

    if not is_hub_name(name):
        click.echo(
            f"{name[:200]} is not a name on the hub, which has the form owner/name; if it is a "
            "directory, no download is needed.",
            err=True,
        )
        sys.exit(2)
    if bundle is not None:
        make_bundle(name, bundle)
        return
    try:
        click.echo(fetched(name))
    except InvalidCheckpoint as failure:
        click.echo(str(failure), err=True)
        sys.exit(1)
