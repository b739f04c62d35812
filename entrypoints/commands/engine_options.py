"""Options that ``export``, ``validate``, ``tensorrt`` and ``pipeline`` share."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from entrypoints.commands.starting import fail, settings_or_exit

if TYPE_CHECKING:
    from adapters.models.checkpoint import Checkpoint

_Command = TypeVar("_Command", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)


_EXTRA_OF: Final = {
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript", "polygraphy", "cuda"), "engine"),
    **dict.fromkeys(("torch", "open_clip"), "torch"),
    "openvino": "cpu",
}
"""The extra that installs a package, by the package's import name."""


def model_path(command: _Command) -> _Command:
    """Which checkpoint."""
    return click.option("--model-path", help="The checkpoint. Default: CLIP_MODEL_PATH.")(command)


def precision(command: _Command) -> _Command:
    """The option for the image tower's precision."""
    return click.option(
        "--precision",
        type=click.Choice(["fp16", "fp32"]),
        default="fp16",
        show_default=True,
        help="What the image tower computes in; inputs and outputs are float32.",
    )(command)


def onnx(command: _Command) -> _Command:
    """An exported image tower."""
    return click.option(
        "--onnx",
        "onnx_file",
        type=_FILE,
        help="The exported image tower. Default: vision_encoder_PRECISION.onnx in --output-dir.",
    )(command)


def output(what: str) -> Callable[[_Command], _Command]:
    """The option for one output file."""
    return click.option(
        "--output", type=_FILE, help=f"The file to write. Default: {what} in --output-dir."
    )


def output_dir(command: _Command) -> _Command:
    """The option for the directory of files with their usual names."""
    return click.option(
        "--output-dir",
        type=_PATH,
        help="Directory for the files. Default: that of CLIP_ENGINE_PATH, where the server looks.",
    )(command)


def max_batch(command: _Command) -> _Command:
    """The optimisation profile."""
    return click.option(
        "--max-batch",
        type=click.IntRange(1, 1024),
        default=8,
        show_default=True,
        help="Most images that the engine takes in one call.",
    )(command)


def architecture(command: _Command) -> _Command:
    """Another machine's GPU."""
    return click.option(
        "--architecture",
        metavar="MAJOR.MINOR",
        callback=_checked_architecture,
        help="Compute capability of another machine's GPU to build for, such as 8.9; needs "
        "TensorRT for RTX and no GPU.",
    )(command)


def directory(output_dir: Path | None) -> Path:
    """Where files go."""
    from adapters.encoders.tensorrt_backend import DEFAULT_DIRECTORY

    if output_dir is not None:
        return output_dir
    engine = settings_or_exit().engine_path
    return DEFAULT_DIRECTORY if engine is None else engine.parent


def engine_file(output: Path | None, output_dir: Path | None, precision: str) -> Path:
    """Where the engine goes."""
    if output is not None:
        return output
    if output_dir is None and (configured := settings_or_exit().engine_path) is not None:
        return configured
    return directory(output_dir) / f"vision_encoder_{precision}.engine"


def onnx_file_in(output_dir: Path | None, precision: str) -> Path:
    """Where the exported image tower goes, and is looked for."""
    return directory(output_dir) / f"vision_encoder_{precision}.onnx"


def read(model_path: str | None) -> "Checkpoint":
    """The named checkpoint, or the server's."""
    from adapters.models.reading import read_checkpoint

    return read_checkpoint(model_path or settings_or_exit().model_path)


@contextmanager
def failures_told() -> Iterator[None]:
    """Turn expected failures into one line and exit status 1; log progress on standard error."""
    from adapters.models.checkpoint_files import InvalidCheckpoint
    from adapters.system.installation import install_command
    from application.ports import EncoderUnavailable
    from domain.errors import ClipError

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        yield
    except (InvalidCheckpoint, EncoderUnavailable, ClipError) as failure:
        fail(str(failure))
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in _EXTRA_OF:
            raise
        fail(
            f"this command needs {package}, which is not installed. Run: "
            f"{install_command(_EXTRA_OF[package])}"
        )
    except OSError as failure:
        fail(f"{failure.filename or 'a file'} cannot be read or written: {failure.strerror}.")


def _checked_architecture(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    major, _, minor = (value or "0.0").partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise click.BadParameter(f"{value!r} is not a compute capability such as 8.9.")
    return value
