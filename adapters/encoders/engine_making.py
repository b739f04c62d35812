"""Builds an engine and compares it with PyTorch in a process of its own.

An illegal access kills every CUDA context of its process, and a builder takes gigabytes. Neither
may affect the serving process. Run as a module, this is that process. It reads a `Commission` as
JSON from its first line of input, logs on standard error, and ends with status 0 once the engine is
in place; otherwise its last line of output says why not.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from adapters.encoders.image_tower_export import export_image_tower
from adapters.encoders.reference import reference_embeddings
from adapters.images.photos import picture_samples
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.precision import Precision
from adapters.models.reading import read_checkpoint
from adapters.system.parent import end_with_the_parent
from application.ports import EncoderLost, EncoderUnavailable
from domain.embedding import Embedding

if TYPE_CHECKING:
    from adapters.encoders.tensorrt.engines import TensorRtEngines

logger = logging.getLogger(__name__)

_COMMAND: Final = (sys.executable, "-m", "adapters.encoders.engine_making")
_POLITENESS: Final = 10
"""Added to the process's niceness, because requests are served meanwhile."""


_CRASHES: Final = frozenset(
    getattr(signal, name, None) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")
)
"""Signals of a crash; others come from outside, for example when memory runs out."""


class MakingCrashed(Exception):
    """The process crashed; the message says how."""


@dataclass(frozen=True, slots=True)
class Commission:
    """The engine to make.

    Attributes:
        checkpoint: a directory or bundle.
        engine: where the engine goes.
        precision: of the engine.
        largest_batch: most images per call.
    """

    checkpoint: str
    engine: Path
    precision: Precision
    largest_batch: int


def make_in_a_process(
    commission: Commission,
    expected: Sequence[Embedding] | None = None,
    *,
    command: Sequence[str] = _COMMAND,
) -> None:
    """Build an engine in a separate process, compare it and put it in place. Takes seconds to
    minutes.

    Args:
        commission: which one.
        expected: PyTorch's embeddings of the samples; None: that process computes them.
        command: the process; tests pass another.

    Raises:
        EncoderUnavailable: it cannot be built, or disagrees with PyTorch, or the process was ended
            from outside; says why.
        MakingCrashed: the process crashed.
        OSError: it cannot be started.
    """
    with TemporaryDirectory(prefix="clip-server-engine-") as scratch:
        place = ""
        if expected is not None:
            place = f"{scratch}/expected.npy"
            np.save(place, np.stack([each.vector for each in expected]))
        words = {**asdict(commission), "engine": str(commission.engine), "expected": place}
        with subprocess.Popen(  # noqa: S603 our own module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            log = threading.Thread(target=_pass_on, args=(process.stderr,), daemon=True)
            log.start()
            # Its input stays open: if it closes, the process knows that this one has ended. Written
            # without the buffer, because closing a non-empty buffer writes it again.
            with suppress(BrokenPipeError):  # it has already ended; its status says how
                os.write(process.stdin.fileno(), json.dumps(words).encode() + b"\n")
            told = process.stdout.read().strip().splitlines()
            status = process.wait()
            log.join(timeout=5)
    if status == 0:
        return
    if status > 0 and told:
        raise EncoderUnavailable(told[-1])
    how = f"with status {status}" if status > 0 else f"by {_signal_name(-status)}"
    ended = f"the process that built the engine and compared it was ended {how}."
    if -status in _CRASHES:
        raise MakingCrashed(ended)
    raise EncoderUnavailable(f"{ended} It is tried again at the next start.")


def _pass_on(lines: IO[str]) -> None:
    for line in lines:
        if line.strip():
            logger.info("%s", line.rstrip())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def make(
    words: dict[str, str],
    engines_at: "Callable[[Path, Precision, int], TensorRtEngines]",
) -> None:
    """Make the engine, in the separate process. Raises as `TensorRtEngines.load_or_build` does."""
    checkpoint = read_checkpoint(words["checkpoint"])
    image_input = checkpoint.preprocessing.image_input
    engines = engines_at(
        Path(words["engine"]), Precision(words["precision"]), int(words["largest_batch"])
    )

    def export(directory: Path) -> Path:
        path = directory / "image_tower.onnx"
        export_image_tower(checkpoint, path, precision=engines.precision, takes_levels=True)
        return path

    def expected() -> Sequence[Embedding]:
        if words["expected"]:
            return [Embedding.from_encoder(row) for row in np.load(words["expected"])]
        return reference_embeddings(checkpoint, picture_samples(image_input))

    engines.load_or_build(
        checkpoint.fingerprint, export=export, image_input=image_input, expected=expected
    ).close()


def main(engines_at: "Callable[[Path, Precision, int], TensorRtEngines] | None" = None) -> int:
    """Run the separate process; returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if hasattr(os, "nice"):
        os.nice(_POLITENESS)
    words = json.loads(sys.stdin.readline())
    end_with_the_parent()
    if engines_at is None:
        from adapters.encoders.tensorrt.engines import TensorRtEngines

        engines_at = TensorRtEngines
    try:
        make(words, engines_at)
    except (EncoderUnavailable, InvalidCheckpoint, EncoderLost) as failure:
        print(" ".join(str(failure).split()))  # noqa: T201 - read by the process that waits
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Skip TensorRT's and CUDA's work at exit, which may crash the process.
    os._exit(status)
