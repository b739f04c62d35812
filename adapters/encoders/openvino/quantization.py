"""The image tower in int8: quantised by NNCF from a bundle, and compared with fp32 before use.

That takes several times the model's memory, and happens in a process of its own, so that the server
does not keep it. Run as a module, this file is that process: it reads the bundle's directory and
the graph's path from its arguments, and prints an `_Outcome`.
"""

import errno
import logging
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from adapters.artifacts.checksums import record_checksums, what_changed_in
from adapters.artifacts.store import Store, Unusable, reason_of
from adapters.encoders.openvino.runtime import openvino
from adapters.images.photos import crops_of
from adapters.models.bundle import Bundle, read_bundle
from adapters.system.installation import install_command, is_installed
from adapters.system.parent import end_with_the_parent
from application.ports import EncoderUnavailable, PixelBatch
from domain.embedding import Embedding, agrees, smallest_cosine
from domain.errors import EncoderFault
from domain.limits import SMALLEST_COSINE

logger = logging.getLogger(__name__)

_CALIBRATION: Final = ("cat", "coffee", "rocket", "grass", "gravel")
_INDEPENDENT: Final = ("astronaut", "photographer")
_GRAPH: Final = "image_tower_int8.xml"
_FORMAT: Final = 3
"""Raised whenever the way of quantising changes."""
_SHOWN_BYTES: Final = 4000
"""Of what the process printed, if it failed."""


def int8_image_tower(bundle: Bundle, store: Store) -> Path:
    """The quantised image tower, from the store or made now.

    Weights and activations are quantised with NNCF's transformer settings, calibrated on crops of
    five photos that come with this package. Takes about a minute for ViT-L/14.

    Args:
        bundle: what to quantise.
        store: keeps the results.

    Returns:
        An OpenVINO graph with the inputs and outputs of the bundle's own.

    Raises:
        EncoderUnavailable: NNCF is not installed, or int8 would change the embeddings too much.
        OSError: neither the store nor the temporary directory can be written.
    """
    return store.get_or_build(
        f"int8/{bundle.fingerprint}-{_FORMAT}", build=partial(_build, bundle), validate=_graph_in
    )


def _graph_in(directory: Path) -> Path:
    if (changed := what_changed_in(directory)) is not None:
        raise Unusable(changed)
    return directory / _GRAPH


class _Outcome(msgspec.Struct):
    """What the quantising process prints last.

    Attributes:
        smallest: the smallest cosine with fp32; None if there is no graph.
        refused: why int8 cannot be used.
        not_written: why the graph could not be written.
    """

    smallest: float | None = None
    refused: str | None = None
    not_written: str | None = None


def _build(bundle: Bundle, directory: Path) -> None:
    if not is_installed("nncf"):
        raise EncoderUnavailable(
            f"CLIP_PRECISION=int8 needs NNCF, which is not installed. Run: "
            f"{install_command('int8')}"
        )
    logger.info("quantising the image tower to int8; this takes about a minute, once")
    outcome = _quantise_elsewhere(bundle, directory / _GRAPH)
    if outcome.refused is not None:
        raise EncoderUnavailable(outcome.refused)
    if outcome.not_written is not None:
        raise OSError(errno.EIO, outcome.not_written)
    logger.info(
        "int8 against fp32 on photos not used in calibration: cosine >= %.4f", outcome.smallest
    )
    record_checksums(directory)


def _quantise_elsewhere(bundle: Bundle, target: Path) -> _Outcome:
    """Quantise in a process of its own.

    Raises:
        EncoderUnavailable: it ended without an outcome, perhaps because memory ran out.
        OSError: it cannot be started.
    """
    with subprocess.Popen(  # noqa: S603 our own module
        [
            *(sys.executable, "-m", "adapters.encoders.openvino.quantization"),
            *(str(bundle.directory), str(target)),
        ],
        stdin=subprocess.PIPE,  # closed when this process ends, so that the child ends too
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
    if process.returncode == 0:
        return msgspec.json.decode(printed.splitlines()[-1], type=_Outcome)
    logger.error("quantising failed:\n%s", printed[-_SHOWN_BYTES:].decode(errors="replace"))
    raise EncoderUnavailable(
        f"CLIP_PRECISION=int8 is not possible: the process that quantises ended with status "
        f"{process.returncode}; the log has what it printed. Use bf16 or fp32."
    )


def _main(directory: str, target: str) -> None:
    end_with_the_parent()
    try:
        outcome = _Outcome(smallest=_quantise(read_bundle(Path(directory)), Path(target)))
    except EncoderUnavailable as refused:
        outcome = _Outcome(refused=str(refused))
    except OSError as failure:
        outcome = _Outcome(not_written=reason_of(failure))
    sys.stdout.write(f"\n{msgspec.json.encode(outcome).decode()}\n")


def _quantise(bundle: Bundle, target: Path) -> float:
    """Write the quantised graph; returns the smallest cosine with fp32."""
    # After OpenVINO, so that NNCF, which also sends usage reports, finds telemetry disabled.
    import nncf
    from openvino.passes import ConstantFolding, Manager

    model = openvino.Core().read_model(str(bundle.image_tower))
    # NNCF only accepts constants as weights, and these are behind slices and transpositions.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    seen = bundle.preprocessing.image_input
    crops = [pixels[np.newaxis] for name in _CALIBRATION for pixels in crops_of(name, seen)]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(crops),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(crops),
    )
    independent = np.stack([pixels for name in _INDEPENDENT for pixels in crops_of(name, seen)])
    try:
        exact, made = _embeddings_of_both(bundle.image_tower, quantised, independent)
    except EncoderFault as fault:
        raise EncoderUnavailable(
            f"CLIP_PRECISION=int8 does not work for this checkpoint: {fault.detail}. "
            "Use bf16 or fp32."
        ) from fault
    smallest = smallest_cosine(exact, made)
    if not agrees(exact, made):
        raise EncoderUnavailable(
            f"CLIP_PRECISION=int8 would change this checkpoint's embeddings too much: cosine "
            f"{smallest:.4f} against fp32, more than {SMALLEST_COSINE} is needed. "
            "Use bf16 or fp32."
        )
    try:
        openvino.save_model(quantised, str(target))
    except RuntimeError as failure:  # it says "cannot open" or "cannot write", whatever the cause
        reason = "OpenVINO could not write the int8 graph"
        raise OSError(errno.EIO, reason, str(target)) from failure
    return smallest


def _embeddings_of_both(
    reference: Path, candidate: object, batch: PixelBatch
) -> tuple[list[Embedding], list[Embedding]]:
    """Each tower's embedding of each image.

    Raises:
        EncoderFault: one of them makes a vector that is zero or not finite.
    """
    core = openvino.Core()
    exact = core.compile_model(str(reference), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    tried = core.compile_model(candidate, "CPU")

    def embeddings(model: Any) -> list[Embedding]:
        return [Embedding.from_encoder(model([pixels[np.newaxis]])[0][0]) for pixels in batch]

    return embeddings(exact), embeddings(tried)


if __name__ == "__main__":
    _main(*sys.argv[1:])
