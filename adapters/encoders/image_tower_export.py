"""Any image tower as an ONNX file: without PyTorch if its family is known, else traced."""

from pathlib import Path

from adapters.export.image_tower_file import write_image_tower
from adapters.models.checkpoint import Checkpoint
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.precision import Precision
from adapters.system.installation import install_command


def export_image_tower(
    checkpoint: Checkpoint, path: Path, *, precision: Precision, takes_levels: bool = False
) -> None:
    """Write the image tower of any checkpoint that the torch encoder loads, and check it.

    See `write_image_tower`. Tracing needs PyTorch and onnxscript.

    Raises:
        InvalidCheckpoint: it cannot be exported; says why.
        OSError: the files cannot be written.
    """
    write_image_tower(
        checkpoint, path, precision=precision, trace=_trace, takes_levels=takes_levels
    )


def _trace(checkpoint: Checkpoint, path: Path, precision: Precision) -> None:
    try:
        # Imported here: known families do not need PyTorch, which takes seconds to import.
        from adapters.encoders.torch.tracing import trace_image_tower
    except ImportError as missing:
        raise InvalidCheckpoint(
            f"{checkpoint.model}: its image tower is of no known family, and exporting it needs "
            f"{missing.name}, which is not installed. Run: {install_command('torch', 'engine')}"
        ) from missing
    trace_image_tower(checkpoint, path, precision)
