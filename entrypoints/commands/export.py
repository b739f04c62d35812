"""``clip-server export``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from entrypoints.commands import engine_options as options

if TYPE_CHECKING:
    from adapters.models.checkpoint import Checkpoint


@click.command()
@options.model_path
@options.output("vision_encoder_PRECISION.onnx")
@options.output_dir
@options.precision
def export(
    model_path: str | None, output: Path | None, output_dir: Path | None, precision: str
) -> None:
    """Export the image tower to ONNX.

    Writes the graph, and its weights to a file of the same name with .data at the end. Plain CLIP
    vision transformers need no PyTorch for this.

    \u0008
    Example:
      clip-server export --model-path builtin:demo --output demo.onnx --precision fp16
    """
    with options.failures_told():
        target = output or options.onnx_file_in(output_dir, precision)
        export_to(options.read(model_path), target, precision)


def export_to(checkpoint: "Checkpoint", target: Path, precision: str) -> None:
    """Export and print what was written."""
    from adapters.encoders.image_tower_export import export_image_tower
    from adapters.export.image_tower_file import data_file
    from adapters.models.precision import Precision

    export_image_tower(checkpoint, target, precision=Precision(precision))
    size = (target.stat().st_size + data_file(target).stat().st_size) / 2**20
    click.echo(
        f"{target}: {checkpoint.model} in {precision}, {size:.0f} MiB, "
        f"fingerprint {checkpoint.fingerprint}"
    )
