"""The engine of a checkpoint on this machine: found, or built, compared with PyTorch and kept."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

from adapters.artifacts.store import reason_of
from adapters.encoders.cuda import Cuda, Gpu, NoGpu, OutOfDeviceMemory
from adapters.encoders.tensorrt.building import Progress, build_engine
from adapters.encoders.tensorrt.engine_file import (
    BatchRange,
    EngineIdentity,
    EngineRecord,
    EngineUnusable,
    get_or_build_engine,
    read_engine,
)
from adapters.encoders.tensorrt.library import TensorRt, find_tensorrt
from adapters.encoders.tensorrt.runner import EngineRunner, TensorRtRunner
from adapters.export.image_tower_file import EXPORTABLE, check_image_tower
from adapters.images.photos import samples
from adapters.models.precision import Precision
from application.ports import EncoderUnavailable, ImageInput
from domain.embedding import Embedding, agrees, smallest_cosine
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


Export: TypeAlias = Callable[[Path], Path]
"""Gives the exported image tower that an engine is built from; may write it to a directory."""


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
        path: of the engine; its sidecar is beside it.
        precision: what it computes in.
        largest_batch: images per call that a new engine is built for.
        find: finds what engines are built and run by; tests pass another, as for the next two.
        build: builds an engine.
        run: loads an engine.
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
                f"CLIP_PRECISION={self.precision} is not possible with TensorRT; "
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
        return self._loaded(here, *read_engine(self.path, self._identity(fingerprint, here)))

    def load_or_build(
        self,
        fingerprint: str,
        *,
        export: Export,
        image_input: ImageInput,
        expected: Callable[[], Sequence[Embedding]],
    ) -> EngineRunner:
        """The engine, loaded; built now unless it is there. Takes seconds to minutes.

        Args:
            fingerprint: of the checkpoint.
            export: gives its image tower in this precision.
            image_input: what that takes.
            expected: gives what PyTorch makes of `adapters.images.photos.samples`.

        Raises:
            EncoderUnavailable: it cannot be built, or disagrees with PyTorch; says why.
            InvalidCheckpoint: the image tower cannot be exported.
        """
        here = self.check_possible()

        def build(target: Path) -> BatchRange:
            batch = BatchRange.up_to(self.largest_batch)
            timing_cache = self.path.with_name(f"{self.path.name}.timing")
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnx-") as scratch:
                onnx_file = export(Path(scratch))
                self.build(here.tensorrt, onnx_file, target, batch=batch, timing_cache=timing_cache)
            return batch

        try:
            return get_or_build_engine(
                self.path,
                self._identity(fingerprint, here),
                build=build,
                compare=lambda data: self._compare(here, data, image_input, expected()),
                load=partial(self._loaded, here),
            )
        except EngineUnusable as unusable:
            raise EncoderUnavailable(str(unusable)) from unusable
        except OSError as failure:
            raise EncoderUnavailable(
                f"CLIP_ENGINE_PATH={self.path} cannot be written: {reason_of(failure)}."
            ) from failure

    def _loaded(self, here: Installation, record: EngineRecord, data: bytes) -> EngineRunner:
        if record.smallest_cosine is None:
            raise EngineUnusable(f"{self.path} was never compared with PyTorch.")
        return self._open(here, data)

    def _compare(
        self,
        here: Installation,
        data: bytes,
        image_input: ImageInput,
        expected: Sequence[Embedding],
    ) -> float:
        """Run an engine on the samples.

        Raises:
            EncoderUnavailable: its embeddings differ too much.
        """
        runner = self._open(here, data)
        rows = [runner.run(pixels[None])[0] for pixels in samples(image_input)]
        made = [Embedding.from_encoder(row) for row in rows]
        cosine = smallest_cosine(made, expected)
        if not agrees(made, expected):
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


def build_ahead_of_time(
    exported: Path,
    engine: Path,
    *,
    architecture: str,
    largest_batch: int,
    progress: Progress = logger.info,
) -> EngineRecord:
    """Build an engine for another machine's GPU, which only TensorRT for RTX can.

    It is compared with PyTorch on the machine where it is first served.

    Args:
        exported: an image tower; its metadata name its checkpoint and precision.
        engine: where the engine goes; one that is there and the same is left as it is.
        architecture: compute capability of the GPUs it is for, such as ``8.9``.
        largest_batch: images per call that it is made for.
        progress: told what is done.

    Raises:
        EncoderUnavailable: TensorRT is missing or refuses.
        InvalidCheckpoint: ``exported`` is not an image tower.
        OSError: the engine cannot be written.
    """
    tensorrt = find_tensorrt()
    if not tensorrt.for_rtx:
        raise EncoderUnavailable(
            f"{tensorrt.identity} builds only for the GPU of the machine it runs on. TensorRT for "
            "RTX builds for others; in a virtual environment of its own, install the extra "
            "'tensorrt-rtx'."
        )
    metadata = check_image_tower(exported)
    wanted = EngineIdentity(
        fingerprint=metadata.get("fingerprint", ""),
        precision=metadata.get("precision", ""),
        tensorrt=tensorrt.identity,
        architecture=architecture,
    )

    def build(target: Path) -> BatchRange:
        batch = BatchRange.up_to(largest_batch)
        build_engine(
            tensorrt, exported, target, batch=batch, architecture=architecture, progress=progress
        )
        return batch

    return get_or_build_engine(
        engine,
        wanted,
        build=build,
        compare=lambda _: None,
        load=lambda record, _: record,
    )
