"""The engine of a checkpoint on this machine: found, or exported, built, judged and kept."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapters.encoders.cuda import Cuda, Gpu, NoGpu, OutOfDeviceMemory
from adapters.encoders.precision import Precision
from adapters.encoders.tensorrt.building import build_engine
from adapters.encoders.tensorrt.engine_file import (
    BatchRange,
    EngineIdentity,
    EngineUnusable,
    disown_engine,
    engine_built_once,
    read_engine,
)
from adapters.encoders.tensorrt.library import TensorRt, find_tensorrt
from adapters.encoders.tensorrt.runner import EngineRunner, TensorRtRunner
from adapters.export.image_tower_file import EXPORTABLE, check_exported_from, export_image_tower
from adapters.images.photos import samples
from adapters.models.checkpoint import Checkpoint
from application.ports import EncoderUnavailable
from domain.embedding import Embedding, smallest_cosine
from domain.limits import SMALLEST_COSINE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Installation:
    """What engines are built and run by here."""

    tensorrt: TensorRt
    gpu: Gpu


def find_installation() -> Installation:
    """TensorRT and the GPU of this machine.

    Raises:
        EncoderUnavailable: one of them is missing; says which.
    """
    try:
        gpu = Cuda().gpu()
    except NoGpu as reason:
        raise EncoderUnavailable(
            f"TensorRT needs an NVIDIA GPU, and CUDA finds none that it can use ({reason})."
        ) from reason
    return Installation(find_tensorrt(), gpu)


class Builder(Protocol):
    """As `build_engine`."""

    def __call__(
        self,
        tensorrt: TensorRt,
        onnx_file: Path,
        engine: Path,
        *,
        batch: BatchRange,
        timing_cache: Path | None,
    ) -> None:
        """Build an engine for this machine's GPU."""


def open_engine(tensorrt: TensorRt, data: bytes) -> EngineRunner:
    """Load an engine onto the GPU. Raises as `TensorRtRunner` says."""
    return TensorRtRunner(tensorrt, data, cuda=Cuda())


@dataclass(frozen=True, slots=True)
class TensorRtEngines:
    """Engines of one precision at one path.

    Attributes:
        path: of the engine; its sidecar and lock lie beside it.
        precision: what it computes in.
        largest_batch: images per call that a new engine is built for.
        find: finds what engines are built and run by; replaced in tests, as are the others.
        build: builds one.
        run: loads one.
    """

    path: Path
    precision: Precision
    largest_batch: int
    find: Callable[[], Installation] = find_installation
    build: Builder = build_engine
    run: Callable[[TensorRt, bytes], EngineRunner] = open_engine

    def check_possible(self) -> Installation:
        """What engines would be built and run by.

        Raises:
            EncoderUnavailable: there can be no engine here; says why.
        """
        if self.precision not in EXPORTABLE:
            raise EncoderUnavailable(
                f"CLIP_PRECISION={self.precision} is not for TensorRT; "
                f"it computes in {' or '.join(EXPORTABLE)}."
            )
        return self.find()

    def load(self, fingerprint: str) -> EngineRunner:
        """The engine that is there, loaded.

        Args:
            fingerprint: of the checkpoint it must be of.

        Raises:
            EngineUnusable: there is none that may be used; says why.
            EncoderUnavailable: there can be none here, or it does not fit into memory.
        """
        here = self.check_possible()
        record, data = read_engine(self.path, self._identity(fingerprint, here))
        if record.smallest_cosine is None:
            raise EngineUnusable(f"{self.path} was never compared with PyTorch.")
        return self._open(here, data)

    def make(
        self,
        checkpoint: Checkpoint,
        expected: Sequence[Embedding],
        *,
        exported: Path | None = None,
    ) -> EngineRunner:
        """The engine, loaded; built now unless it is there. Takes seconds to minutes.

        Args:
            checkpoint: what to build it from.
            expected: what PyTorch makes of `adapters.images.photos.samples`.
            exported: the checkpoint's image tower in this precision, if it was exported already.

        Raises:
            EncoderUnavailable: it cannot be built, or disagrees with PyTorch; says why.
            InvalidCheckpoint: it cannot be exported, or ``exported`` is another's.
        """
        here = self.check_possible()
        if exported is not None:
            check_exported_from(checkpoint, exported)
        wanted = self._identity(checkpoint.fingerprint, here)

        def build(target: Path) -> BatchRange:
            batch = BatchRange.up_to(self.largest_batch)
            timing_cache = self.path.with_name(f"{self.path.name}.timing")
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnx-") as scratch:
                onnx_file = exported
                if onnx_file is None:
                    onnx_file = Path(scratch) / "image_tower.onnx"
                    export_image_tower(checkpoint, onnx_file, precision=self.precision)
                self.build(here.tensorrt, onnx_file, target, batch=batch, timing_cache=timing_cache)
            return batch

        def built() -> EngineRunner:
            engine_built_once(
                self.path,
                wanted,
                build=build,
                judge=lambda data: self._judge(here, data, expected),
            )
            return self.load(checkpoint.fingerprint)

        try:
            try:
                return built()
            except EngineUnusable as unusable:
                logger.info("building the engine anew: %s", unusable)
                disown_engine(self.path)
                return built()
        except EngineUnusable as unusable:
            raise EncoderUnavailable(str(unusable)) from unusable
        except OSError as failure:
            raise EncoderUnavailable(
                f"CLIP_ENGINE_PATH={self.path} cannot be written ({failure.strerror})."
            ) from failure

    def _judge(self, here: Installation, data: bytes, expected: Sequence[Embedding]) -> float:
        """Run an engine on the samples.

        Raises:
            EncoderUnavailable: its embeddings differ too much.
        """
        runner = self._open(here, data)
        rows = [runner.run(pixels[None])[0] for pixels in samples()]
        cosine = smallest_cosine([Embedding.from_encoder(row) for row in rows], expected)
        if not cosine > SMALLEST_COSINE:
            raise EncoderUnavailable(
                f"the engine built from this checkpoint disagrees with PyTorch: cosine "
                f"{cosine:.4f}, more than {SMALLEST_COSINE} is needed."
            )
        logger.info("the engine agrees with PyTorch: cosine at least %.5f", cosine)
        return cosine

    def _open(self, here: Installation, data: bytes) -> EngineRunner:
        try:
            return self.run(here.tensorrt, data)
        except OutOfDeviceMemory as shortage:
            raise EncoderUnavailable(
                f"the engine does not fit into the memory of {here.gpu.name}: {shortage}."
            ) from shortage

    def _identity(self, fingerprint: str, here: Installation) -> EngineIdentity:
        return EngineIdentity(
            fingerprint=fingerprint,
            precision=str(self.precision),
            tensorrt=here.tensorrt.identity,
            architecture=here.gpu.architecture,
        )
