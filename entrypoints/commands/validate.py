"""``clip-server validate``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from entrypoints.commands import engine_options as options
from entrypoints.commands.starting import fail

if TYPE_CHECKING:
    from adapters.models.checkpoint import Checkpoint


@click.command()
@options.model_path
@options.onnx
@options.output_dir
@options.precision
def validate(
    model_path: str | None, onnx_file: Path | None, output_dir: Path | None, precision: str
) -> None:
    """Compare an exported image tower with PyTorch.

    Runs photos and random pixels through PyTorch in fp32 and through the ONNX file on ONNX Runtime.
    The exit status is 1 if the smallest cosine is 0.99 or lower. Engines are compared by tensorrt
    and pipeline when they are built.

    \u0008
    Example:
      clip-server validate --model-path builtin:demo --onnx demo.onnx
    """
    with options.failures_told():
        exported = onnx_file or options.onnx_file_in(output_dir, precision)
        validate_file(options.read(model_path), exported)


def validate_file(checkpoint: "Checkpoint", onnx_file: Path) -> None:
    """Validate, print the smallest cosine, and fail unless it is large enough."""
    from adapters.encoders.reference import exported_and_reference
    from domain.embedding import agrees, smallest_cosine
    from domain.limits import SMALLEST_COSINE

    made, expected = exported_and_reference(checkpoint, onnx_file)
    cosine = smallest_cosine(made, expected)
    click.echo(f"{onnx_file}: smallest cosine against PyTorch {cosine:.6f}")
    if not agrees(made, expected):
        fail(f"cosine {cosine:.6f} is too low: more than {SMALLEST_COSINE} is needed.")
