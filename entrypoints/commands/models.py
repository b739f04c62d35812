"""``clip-server models``."""

from dataclasses import asdict
from typing import Any

import click

from entrypoints.commands.progress import working
from entrypoints.commands.terminal import as_json


@click.command()
@click.option("--json", "json_wanted", is_flag=True, help="Print a JSON object for each model.")
def models(*, json_wanted: bool) -> None:
    """List models on the hub that are worth knowing, and how fast each would be here.

    Any other model of these families can be served as well. The seconds an image are estimated for
    OpenVINO on this processor, in the fastest precision that needs no calibration; `clip-server
    doctor` measures what is loaded.

    \u0008
    Examples:
      clip-server models
      clip-server download google/siglip2-base-patch16-224
    """
    # Imports in functions keep `--help` and completion fast.
    from adapters.encoders.expected_speed import gains, multiplication_rate, seconds_per_image
    from adapters.models.catalogue import KNOWN
    from adapters.models.hub import is_downloaded
    from adapters.models.precision import Precision
    from adapters.system.hardware import processor

    with working("measuring this processor's multiplication rate"):
        rate = multiplication_rate()
    possible = gains(processor().instructions)
    without_calibration = (each for each in possible if each is not Precision.INT8)
    precision = max(without_calibration, key=possible.__getitem__)
    rows: list[dict[str, Any]] = []
    for model in KNOWN:
        operations = model.image_tower.operations
        rows.append(
            {
                **{key: value for key, value in asdict(model).items() if key != "image_tower"},
                "image_size": model.image_tower.size,
                "operations_per_image": operations,
                "seconds_per_image": seconds_per_image(operations, rate, possible[precision]),
                "precision": str(precision),
                "downloaded": is_downloaded(model.name),
            }
        )
    if json_wanted:
        for row in rows:
            click.echo(as_json(row))
        return
    width = max(len(row["name"]) for row in rows)
    heading = f"{'':{width}}  {'numbers':>7}  {'on disk':>7}  {'an image':>8}  languages  licence"
    click.secho(heading, bold=True)
    for row in rows:
        mark = "  downloaded" if row["downloaded"] else ""
        click.echo(
            f"{row['name']:{width}}  {row['dimension']:>7}  {row['megabytes'] / 1000:>4.1f} GB  "
            f"{row['seconds_per_image']:>6.2f} s  {row['languages']:<9}  {row['licence']}{mark}"
        )
        click.secho(f"    {row['family']}, {row['image_size']} pixels: {row['note']}", dim=True)
    click.echo(f"\nSeconds an image are estimated, in {precision} on this processor.", err=True)
