"""``clip-server pipeline``."""

from pathlib import Path

import click

from entrypoints.commands import engine_options as options
from entrypoints.commands.export import export_to
from entrypoints.commands.tensorrt import build_to
from entrypoints.commands.validate import validate_file


@click.command()
@options.model_path
@options.output_dir
@options.precision
@options.max_batch
@options.architecture
def pipeline(
    model_path: str | None,
    output_dir: Path | None,
    precision: str,
    max_batch: int,
    architecture: str | None,
) -> None:
    """Export, validate and build an engine, in that order.

    Stops with exit status 1 at the first step that fails, so that no engine is built from an export
    that disagrees with PyTorch.

    \u0008
    Examples:
      clip-server pipeline
      clip-server pipeline --model-path /models/clip-vit-l --output-dir engines --max-batch 16
    """
    with options.failures_told():
        exported = options.onnx_file_in(output_dir, precision)
        checkpoint = options.read(model_path)
        export_to(checkpoint, exported, precision)
        validate_file(checkpoint, exported)
        build_to(
            lambda: checkpoint,
            exported,
            options.engine_file(None, output_dir, precision),
            precision=precision,
            max_batch=max_batch,
            architecture=architecture,
        )
