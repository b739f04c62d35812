"""``clip-server tensorrt``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from entrypoints.commands import engine_options as options

if TYPE_CHECKING:
    from adapters.models.checkpoint import Checkpoint


@click.command()
@options.model_path
@options.onnx
@options.output("vision_encoder_PRECISION.engine")
@options.output_dir
@options.precision
@options.max_batch
@options.architecture
def tensorrt(
    *,
    model_path: str | None,
    onnx_file: Path | None,
    output: Path | None,
    output_dir: Path | None,
    precision: str,
    max_batch: int,
    architecture: str | None,
) -> None:
    """Build an engine from an exported image tower.

    The engine is compared with PyTorch on this machine's GPU, and kept only if every cosine is
    above 0.99. With --architecture it is built for another machine's GPU, and compared when it is
    first served there.

    \u0008
    Examples:
      clip-server tensorrt --onnx clip.onnx --output clip.engine
      clip-server tensorrt --onnx clip.onnx --output clip.engine --architecture 8.9
    """
    with options.failures_told():
        build_to(
            lambda: options.read(model_path),
            onnx_file or options.onnx_file_in(output_dir, precision),
            options.engine_file(output, output_dir, precision),
            precision=precision,
            max_batch=max_batch,
            architecture=architecture,
        )


def build_to(
    read: Callable[[], "Checkpoint"],
    onnx_file: Path,
    target: Path,
    *,
    precision: str,
    max_batch: int,
    architecture: str | None,
) -> None:
    """Build, compare where that is possible, and print what was written.

    Args:
        read: returns the checkpoint, if the engine is compared with it.
        onnx_file: the exported image tower.
        target: where the engine goes.
        precision: of the engine.
        max_batch: most images per call.
        architecture: compute capability of another machine's GPU; None builds for this one's.
    """
    from adapters.export.image_tower_file import check_image_tower
    from adapters.models.checkpoint_files import InvalidCheckpoint

    if not onnx_file.is_file():
        raise InvalidCheckpoint(f"{onnx_file} does not exist; make it with: clip-server export")
    found = check_image_tower(onnx_file).get("precision")
    if found != precision:
        raise InvalidCheckpoint(
            f"{onnx_file} was exported in {found}, not in {precision}; use --precision {found}, "
            "or export it again."
        )
    if architecture is not None:
        from adapters.encoders.tensorrt.engines import build_ahead_of_time

        build_ahead_of_time(onnx_file, target, architecture=architecture, largest_batch=max_batch)
        click.echo(
            f"{target}: {precision}, batch 1 to {max_batch}, compute capability {architecture}; "
            "not compared with PyTorch yet, the server does that"
        )
        return
    _build_here(read, onnx_file, target, precision=precision, max_batch=max_batch)


def _build_here(
    read: Callable[[], "Checkpoint"],
    onnx_file: Path,
    target: Path,
    *,
    precision: str,
    max_batch: int,
) -> None:
    from adapters.encoders.reference import reference_embeddings
    from adapters.encoders.tensorrt_backend import engines_at
    from adapters.export.image_tower_file import check_exported_from
    from adapters.images.photos import picture_samples
    from adapters.models.precision import Precision
    from application.ports import EncoderUnavailable

    try:
        engines = engines_at(target, Precision(precision), max_batch)
        engines.check_possible()
    except EncoderUnavailable as unavailable:
        raise EncoderUnavailable(
            f"{unavailable} To build for another machine's GPU, name it with --architecture."
        ) from unavailable
    checkpoint = read()
    check_exported_from(checkpoint, onnx_file)
    image_input = checkpoint.preprocessing.image_input
    engines.load_or_build(
        checkpoint.fingerprint,
        export=lambda _: onnx_file,
        image_input=image_input,
        expected=lambda: reference_embeddings(checkpoint, picture_samples(image_input)),
    )
    click.echo(f"{target}: {precision}, batch 1 to {max_batch}, agrees with PyTorch")
