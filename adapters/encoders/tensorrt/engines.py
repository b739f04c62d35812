"""Finds a checkpoint's engine here, or builds one, compares it with PyTorch and keeps it."""

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
    """The runtime and GPU that build and run engines here."""

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
"""Provides the exported image tower to build an engine from; may write it to a directory."""


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
        largest_batch: most images per call of a new engine.
        find: finds the runtime and GPU; tests replace this and the next two.
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
        """The runtime and GPU that would build and run engines.

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
        """The existing engine, loaded and checked to still agree with PyTorch.

        An engine that ended the process twice in a row, as a crash does, is disowned.

        Args:
            fingerprint: of its checkpoint.
            image_input: how pictures are prepared for its image tower.

        Raises:
            EngineUnusable: there is no usable engine; says why.
            EncoderUnavailable: engines are not possible here, or it does not fit into memory.
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
                # TensorRT for RTX compiles its kernels again: they may have caused the crash.
                self._kernels.unlink(missing_ok=True)
            return self._proven(here, image_input, record, data)

    def disown(self, fingerprint: str, reason: str) -> None:
        """Disown the checkpoint's engine: it is not used or built until something changes."""
        self._disown(self._identity(fingerprint, self.check_possible()), reason)

    def load_or_build(
        self,
        fingerprint: str,
        *,
        export: Export,
        image_input: ImageInput,
        expected: Callable[[], Sequence[Embedding]],
    ) -> EngineRunner:
        """The loaded engine; it is built now if it does not exist. Takes seconds to minutes.

        Args:
            fingerprint: of the checkpoint.
            export: provides its image tower in this precision.
            image_input: how pictures are prepared for it.
            expected: provides PyTorch's embeddings of `picture_samples`.

        Raises:
            EncoderUnavailable: it cannot be built, or disagrees with PyTorch; says why.
            InvalidCheckpoint: the image tower cannot be exported.
            EncoderLost: the device failed during the comparison; the engine is disowned.
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
        """Build an engine that agrees with PyTorch: with fused attention or, if necessary, without.

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
        """The loaded engine, if its results are still those of the comparison.

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
        """TensorRT for RTX's cache of kernels compiled at run time."""
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
    """Build an engine for another machine's GPU; only TensorRT for RTX can do this.

    It is compared with PyTorch on the machine where it is first served.

    Args:
        exported: an image tower; its metadata name its checkpoint and precision.
        engine: where the engine goes; an identical existing one is left unchanged.
        architecture: compute capability of the GPUs it is for, such as ``8.9``.
        largest_batch: images per call that it is made for.
        progress: is told what is being done.

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
