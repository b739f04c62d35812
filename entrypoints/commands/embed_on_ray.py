"""``clip-server embed-on-ray``."""

import os
from pathlib import Path

import click

from entrypoints.commands.starting import fail, settings_or_exit


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder to write Parquet files to.",
)
@click.option("--address", help="The cluster. Default: RAY_ADDRESS, else only this machine.")
@click.option(
    "--encoders", type=click.IntRange(1), default=1, help="Most encoders at once (default: 1)."
)
@click.option(
    "--gpus", type=click.FloatRange(0), default=0.0, help="GPUs for each of them (default: 0)."
)
@click.option(
    "--cpus", type=click.FloatRange(0), default=1.0, help="Processors for each (default: 1)."
)
def embed_on_ray(
    paths: tuple[str, ...], output: Path, address: str | None, **resources: float
) -> None:
    """Embed images on a Ray cluster.

    PATH is an image, a folder or a pattern in quotes, or one Parquet file or folder with a column
    path and, if it holds the images themselves, a column image. All nodes must see the files and
    the output under the same path. To continue a job that was killed, give the same command again.
    Needs the extra 'ray'.

    \u0008
    Examples:
      clip-server embed-on-ray /shared/photos --output /shared/embeddings
      clip-server embed-on-ray /shared/photos -o /shared/embeddings --address ray-head:6379 \
        --encoders 8 --gpus 1
    """
    settings = settings_or_exit()
    # Set before Ray is imported, since Ray would otherwise send usage reports to its makers.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        from adapters.system.installation import install_command

        fail(f"embed-on-ray needs Ray, which is not installed. Run: {install_command('ray')}")
    from adapters.ray.bulk_output import BulkOutput
    from application.bulk_ports import BulkFailure
    from domain.errors import ModelNotReady
    from entrypoints.ray.bulk import Resources, embed_on_ray

    try:
        # Checked before joining the cluster, which takes half a minute.
        BulkOutput(output.absolute()).check_unfinished()
        ray.init(address=address, log_to_driver=False)
        rows = embed_on_ray(
            paths,
            output.absolute(),
            settings=settings,
            resources=Resources(**resources),
        )
    except (BulkFailure, ModelNotReady) as failure:
        fail(str(failure))
    click.echo(f"{output}: {rows} rows", err=True)
