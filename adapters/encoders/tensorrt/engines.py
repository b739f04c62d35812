"""The engine of a checkpoint on this machine: found, or built, compared with PyTorch and kept."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from adapters.artifacts.store import reason_of
from adapters.encoders.cuda import Cuda, Gpu, NoGpu, OutOfDeviceMemory
from adapters.encoders.tensorrt.attempts import CRASHES_ALLOWED, attempt
from adapters.encoders.tensorrt.building import Progress, build_engine
from adapters.encoders.tensorrt.engine_file import (
    ANY,
    BatchRange,
    EngineIdentity,
    EngineRecord,
    EngineRefused,
    EngineUnusable,
    Judgement,
    disown,
    get_or_build_engine,
    read_engine,
)
from adapters.encoders.tensorrt.judging import KEPT, Disagreement, judge
from adapters.encoders.tensorrt.library import TensorRt, find_tensorrt
from adapters.encoders.tensorrt.runner import EngineRunner, TensorRtRunner
from adapters.export.graph import OPSET
from adapters.export.image_tower_file import EXPORTABLE, check_image_tower
from adapters.images.photos import picture_samples
from adapters.models.precision import Precision
from application.ports import EncoderLost, EncoderUnavailable, ImageInput
from domain.embedding import Embedding
from domain.errors import EncoderFault

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
        fused_attention: bool,
        timing_cache: Path | None,
    ) -> None:
        """Build an engine for this machine's GPU."""


def open_engine(tensorrt: TensorRt, data: bytes, runtime_cache: Path) -> EngineRunner:
    """Load an engine onto the GPU. Arguments and errors as `TensorRtRunner` has them."""
    return TensorRtRunner(tensorrt, data, cuda=Cuda(), runtime_cache=runtime_cache)


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
    run: Callable[[TensorRt, bytes, Path], EngineRunner] = open_engine

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

    def load(self, fingerprint: str, image_input: ImageInput) -> EngineRunner:
        """The engine that is there, loaded and seen to agree with PyTorch still.

        One that ended the process twice in a row meanwhile, as a crash does, is disowned.

        Args:
            fingerprint: of the checkpoint it must be of.
            image_input: what its image tower takes.

        Raises:
            EngineUnusable: there is none that may be used; says why.
            EncoderUnavailable: there can be none here, or it does not fit into memory.
            EncoderLost: the device failed; the engine is disowned.
        """
        here = self.check_possible()
        wanted = self._identity(fingerprint, here)
        record, data = read_engine(self.path, wanted)
        with attempt(self.path, wanted) as ended:
            if ended > CRASHES_ALLOWED:
                reason = (
                    f"the process ended {ended} times in a row while the engine was loaded and "
                    "first used, without saying why: it crashed or was killed."
                )
                self._disown(wanted, reason)
                raise EngineRefused(reason)
            if ended:
                logger.warning("the process ended while the engine was last loaded; trying again")
                # What TensorRT for RTX compiled is made again: it may be what it crashed on.
                self._kernels.unlink(missing_ok=True)
            return self._proven(here, image_input, record, data)

    def disown(self, fingerprint: str, reason: str) -> None:
        """Have no engine of this checkpoint used or built again, until something changes."""
        self._disown(self._identity(fingerprint, self.check_possible()), reason)

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
            expected: gives what PyTorch makes of `picture_samples`.

        Raises:
            EncoderUnavailable: it cannot be built, or disagrees with PyTorch; says why.
            InvalidCheckpoint: the image tower cannot be exported.
            EncoderLost: the device failed while the engine was compared; it is disowned.
        """
        here = self.check_possible()
        wanted = self._identity(fingerprint, here)

        def make(target: Path) -> EngineRecord:
            return self._make(
                here, wanted, target, export=export, image_input=image_input, expected=expected()
            )

        def judged(record: EngineRecord, data: bytes) -> EngineRecord:
            return replace(
                record, judgement=self._judged(here, record, data, image_input, expected())
            )

        try:
            return get_or_build_engine(
                self.path,
                wanted,
                make=make,
                judge=judged,
                load=partial(self._proven, here, image_input),
            )
        except EngineRefused as refused:
            raise EncoderUnavailable(str(refused)) from refused
        except (Disagreement, EncoderFault, EngineUnusable) as failure:
            reason = _reason(failure)
            self._disown(wanted, reason)
            raise EncoderUnavailable(reason) from failure
        except EncoderLost as lost:
            self._disown(wanted, _reason(lost))
            raise
        except OSError as failure:
            raise EncoderUnavailable(
                f"CLIP_ENGINE_PATH={self.path} cannot be written: {reason_of(failure)}."
            ) from failure

    def _make(
        self,
        here: Installation,
        wanted: EngineIdentity,
        target: Path,
        *,
        export: Export,
        image_input: ImageInput,
        expected: Sequence[Embedding],
    ) -> EngineRecord:
        """Build an engine that agrees with PyTorch: with fused attention or, if need be, without.

        Raises:
            Disagreement: none does.
            EncoderFault: a call of it failed.
            EncoderLost: the device failed.
        """
        timing_cache = self.path.with_name(f"{self.path.name}.timing")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnx-") as scratch:
            onnx_file = export(Path(scratch))
            for fused in (True, False):
                self.build(
                    here.tensorrt,
                    onnx_file,
                    target,
                    batch=BatchRange(self.largest_batch),
                    fused_attention=fused,
                    timing_cache=timing_cache,
                )
                record = EngineRecord(wanted, fused, None)
                try:
                    judgement = self._judged(
                        here, record, target.read_bytes(), image_input, expected
                    )
                except (Disagreement, EncoderFault) as failure:
                    # Attention is fused in float16 only.
                    if not fused or self.precision is not Precision.FP16:
                        raise
                    logger.warning("building again without fused attention: %s", _reason(failure))
                else:
                    return replace(record, judgement=judgement)
        raise AssertionError("one of the two was returned or raised")

    def _judged(
        self,
        here: Installation,
        record: EngineRecord,
        data: bytes,
        image_input: ImageInput,
        expected: Sequence[Embedding],
    ) -> Judgement:
        pixels = picture_samples(image_input)
        with closing(self._open(here, data)) as runner:
            try:
                cosine = judge(runner, record.batch, pixels, expected)
            except OutOfDeviceMemory as shortage:
                raise self._no_room(here, shortage) from None
        logger.info("the engine agrees with PyTorch: cosine at least %.5f", cosine)
        return Judgement(cosine, np.stack([each.vector for each in expected[:KEPT]]))

    def _proven(
        self, here: Installation, image_input: ImageInput, record: EngineRecord, data: bytes
    ) -> EngineRunner:
        """The engine, loaded, if it computes what it did when it was compared.

        Raises:
            EngineUnusable: it was never compared, or is disowned now.
        """
        judgement = record.judgement
        if judgement is None:
            raise EngineUnusable(f"{self.path} was never compared with PyTorch.")
        runner = self._open(here, data)
        try:
            kept = [Embedding.from_encoder(row) for row in judgement.expected]
            judge(runner, record.batch, picture_samples(image_input)[: len(kept)], kept)
        except OutOfDeviceMemory as shortage:
            runner.close()
            raise self._no_room(here, shortage) from None
        except (Disagreement, EncoderFault, EncoderLost) as failure:
            runner.close()
            reason = _reason(failure)
            self._disown(replace(record.identity, largest_batch=self.largest_batch), reason)
            if isinstance(failure, EncoderLost):
                raise
            raise EngineRefused(reason) from failure
        except BaseException:
            runner.close()
            raise
        runner.keep()
        return runner

    def _open(self, here: Installation, data: bytes) -> EngineRunner:
        try:
            return self.run(here.tensorrt, data, self._kernels)
        except OutOfDeviceMemory as shortage:
            raise self._no_room(here, shortage) from None

    @property
    def _kernels(self) -> Path:
        """Where TensorRT for RTX keeps what it compiles at run time."""
        return self.path.with_name(f"{self.path.name}.kernels")

    def _no_room(self, here: Installation, shortage: OutOfDeviceMemory) -> EncoderUnavailable:
        return EncoderUnavailable(
            f"the engine does not fit into the memory of {here.gpu.name}: {shortage}."
        )

    def _disown(self, identity: EngineIdentity, reason: str) -> None:
        logger.error("no engine is used: %s", reason)
        try:
            disown(self.path, identity, reason)
        except OSError as failure:
            logger.warning("%s cannot be written: %s", self.path.parent, reason_of(failure))

    def _identity(self, fingerprint: str, here: Installation) -> EngineIdentity:
        gpu, rtx = here.gpu, here.tensorrt.for_rtx
        return EngineIdentity(
            fingerprint=fingerprint,
            precision=str(self.precision),
            tensorrt=here.tensorrt.identity,
            architecture=gpu.architecture,
            card=ANY if rtx else f"{gpu.name}, {gpu.multiprocessors} multiprocessors",
            driver=ANY if rtx else gpu.driver,
            opset=OPSET,
            largest_batch=self.largest_batch,
        )


def _reason(failure: Exception) -> str:
    """Why an engine is not used, as a sentence."""
    if isinstance(failure, Disagreement):
        return f"the engine built from this checkpoint disagrees with PyTorch: {failure}."
    told = failure.detail if isinstance(failure, EncoderFault) else str(failure)
    if isinstance(failure, EngineUnusable):
        return told
    return f"the engine built from this checkpoint failed: {told.rstrip('.')}."


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
        card=ANY,
        driver=ANY,
        opset=OPSET,
        largest_batch=largest_batch,
    )

    def make(target: Path) -> EngineRecord:
        batch = BatchRange(largest_batch)
        build_engine(
            tensorrt, exported, target, batch=batch, architecture=architecture, progress=progress
        )
        return EngineRecord(wanted, fused_attention=True, judgement=None)

    return get_or_build_engine(
        engine,
        wanted,
        make=make,
        judge=lambda record, _: record,
        load=lambda record, _: record,
    )
