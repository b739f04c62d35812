"""TensorRT for one checkpoint: an existing engine, or one built while another encoder serves.

Joins the engine, which is an image tower, with another runtime's text tower. What it needs is
imported when it is first used: it takes seconds to import, and is often not installed.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapters.artifacts.store import Store, reason_of
from adapters.encoders.cuda import CALLS_AT_ONCE, ProcessMemory
from adapters.encoders.engine_making import Commission, MakingCrashed, make_in_a_process
from adapters.encoders.tensorrt import library
from adapters.images.photos import picture_samples
from adapters.models.checkpoint import Checkpoint
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.encoder_description import encoder_description
from adapters.models.hub import Download
from adapters.models.precision import Precision
from adapters.models.reading import check_dimension, fetched, read_checkpoint
from adapters.system.hardware import nvidia_driver_present
from adapters.system.installation import install_command, is_installed
from application.ports import (
    Device,
    EncoderDescription,
    EncoderPort,
    EncoderUnavailable,
    EncoderUpgradePort,
    HardwareMissing,
    ImageInput,
    PixelBatch,
    TextTower,
)
from domain.embedding import Embedding

if TYPE_CHECKING:
    from adapters.encoders.tensorrt.engines import TensorRtEngines
    from adapters.encoders.tensorrt.runner import EngineRunner

logger = logging.getLogger(__name__)

_CUDA: Final = Device(name="cuda:0", cuda_available=True)

DEFAULT_DIRECTORY: Final = Path("/models/clip-vit-l")
"""The default directory of the engine, if it can be written."""


def _writable(directory: Path) -> bool:
    return os.access(directory, os.W_OK)


def engines_at(path: Path, precision: Precision, largest_batch: int) -> "TensorRtEngines":
    """The engines of this machine.

    Raises:
        EncoderUnavailable: engines are not possible; says why.
    """
    if not nvidia_driver_present():
        raise HardwareMissing("TensorRT needs an NVIDIA GPU, and there is none here.")
    if not library.is_installed():
        library.find_tensorrt()  # raises, and says what to install
    try:
        # Imported here, like everything in this module that uses TensorRT or PyTorch: they take
        # seconds to import, and may not be installed.
        from adapters.encoders.tensorrt.engines import TensorRtEngines
    except ImportError as missing:
        raise EncoderUnavailable(
            f"TensorRT is installed, but {missing.name} is not. Run: {install_command('engine')}"
        ) from missing
    return TensorRtEngines(path, precision, largest_batch)


@dataclass(frozen=True, slots=True)
class TensorRtBackend(EncoderUpgradePort):
    """Loads or builds TensorRT's encoder.

    Attributes:
        checkpoint: the value of ``CLIP_MODEL_PATH``.
        embedding_dimension: floats per embedding that the service promises; None: the model's.
        upgrades: whether it will take over from another encoder.
        engine_path: of the engine; None takes ``default_directory``, or the cache if that does not
            exist or cannot be written.
        precision: of the image tower; None takes fp16.
        largest_batch: most images per call of a new engine.
        cache: directory for bundles and engines; None if none can be written.
        default_directory: as `DEFAULT_DIRECTORY`.
        writable: whether files can be written in a directory.
        device: where the engine and PyTorch's text tower run; tests replace this and the next ones.
        engines_at: the engines of this machine.
        make: makes an engine in a separate process.
        download: the download progress of a model on the hub.
    """

    checkpoint: str
    embedding_dimension: int | None = None
    upgrades: bool = False
    engine_path: Path | None = None
    precision: Precision | None = None
    largest_batch: int = 8
    cache: Path | None = None
    default_directory: Path = DEFAULT_DIRECTORY
    writable: Callable[[Path], bool] = _writable
    device: Device = _CUDA
    engines_at: Callable[[Path, Precision, int], "TensorRtEngines"] = engines_at
    make: Callable[[Commission, Sequence[Embedding] | None], None] = make_in_a_process
    download: Download = field(default_factory=Download)

    def wanted(self, serving: EncoderDescription) -> bool:
        """See `EncoderUpgradePort.wanted`."""
        if not self.upgrades or serving.backend == "tensorrt":
            return False
        self._engines("").check_possible()
        return True

    def samples(self, image_input: ImageInput) -> PixelBatch:
        """See `EncoderUpgradePort.samples`."""
        return picture_samples(image_input)

    def build(self, serving: EncoderPort, expected: Sequence[Embedding]) -> EncoderPort:
        """See `EncoderUpgradePort.build`."""
        checkpoint = self._read()
        engines = self._engines(checkpoint.fingerprint)
        runner = self._load_or_build(checkpoint, engines, expected)
        return self._encoder(checkpoint, engines, runner, serving.text_tower)

    def load(self) -> EncoderPort:
        """The encoder on the existing engine.

        Raises:
            EncoderUnavailable: there is no usable engine, or it cannot run here.
        """
        checkpoint, engines = self._possible()
        from adapters.encoders.tensorrt.engine_file import EngineUnusable

        try:
            runner = engines.load(checkpoint.fingerprint, checkpoint.preprocessing.image_input)
        except EngineUnusable as unusable:
            raise EncoderUnavailable(str(unusable)) from unusable
        return self._encoder(checkpoint, engines, runner, self._text_tower(checkpoint))

    def load_or_make(self) -> EncoderPort:
        """The encoder, on an engine that is built now if there is none. May take minutes.

        Raises:
            EncoderUnavailable: it cannot be made; says why.
        """
        checkpoint, engines = self._possible()
        runner = self._load_or_build(checkpoint, engines, None)
        return self._encoder(checkpoint, engines, runner, self._text_tower(checkpoint))

    def _load_or_build(
        self,
        checkpoint: Checkpoint,
        engines: "TensorRtEngines",
        expected: Sequence[Embedding] | None,
    ) -> "EngineRunner":
        """The loaded engine; if it does not exist, a separate process makes it.

        Args:
            checkpoint: the engine's checkpoint.
            engines: those of this machine.
            expected: PyTorch's embeddings of the samples; None: that process computes them.
        """
        from adapters.encoders.tensorrt.engine_file import EngineRefused, EngineUnusable

        image_input = checkpoint.preprocessing.image_input
        try:
            return engines.load(checkpoint.fingerprint, image_input)
        except EngineRefused as refused:
            raise EncoderUnavailable(str(refused)) from refused
        except EngineUnusable as unusable:
            logger.info("making a TensorRT engine: %s", unusable)
        commission = Commission(
            self._fetched(), engines.path, engines.precision, engines.largest_batch
        )
        try:
            self.make(commission, expected)
        except MakingCrashed as crash:
            engines.disown(checkpoint.fingerprint, str(crash))
            raise EncoderUnavailable(str(crash)) from crash
        except OSError as failure:
            raise EncoderUnavailable(
                f"the process that builds engines cannot be started: {reason_of(failure)}"
            ) from failure
        try:
            return engines.load(checkpoint.fingerprint, image_input)
        except EngineUnusable as unusable:
            raise EncoderUnavailable(str(unusable)) from unusable

    def _possible(self) -> "tuple[Checkpoint, TensorRtEngines]":
        """The checkpoint and its engines; refuses before gigabytes of weights are hashed."""
        self._engines("").check_possible()
        checkpoint = self._read()
        return checkpoint, self._engines(checkpoint.fingerprint)

    def _read(self) -> Checkpoint:
        try:
            checkpoint = read_checkpoint(self._fetched())
            check_dimension(
                checkpoint.embedding_dimension,
                promised=self.embedding_dimension,
                source=self.checkpoint,
            )
        except InvalidCheckpoint as invalid:
            raise EncoderUnavailable(str(invalid)) from invalid
        return checkpoint

    def _engines(self, fingerprint: str) -> "TensorRtEngines":
        precision = self.precision or Precision.FP16
        return self.engines_at(self._path(fingerprint, precision), precision, self.largest_batch)

    def _path(self, fingerprint: str, precision: Precision) -> Path:
        if self.engine_path is not None:
            return self.engine_path
        default = self.default_directory / f"vision_encoder_{precision}.engine"
        if self.cache is None:
            return default
        if self.default_directory.is_dir():
            # Models are often mounted read-only; an engine that was put there is used.
            if self.writable(self.default_directory):
                return default
            from adapters.encoders.tensorrt.engine_file import describes

            if describes(default, fingerprint=fingerprint, precision=str(precision)):
                return default
        return self.cache / "engines" / f"{fingerprint}-{precision}.engine"

    def _fetched(self) -> str:
        return fetched(self.checkpoint, promised=self.embedding_dimension, download=self.download)

    def _text_tower(self, checkpoint: Checkpoint) -> TextTower:
        """The text tower on PyTorch, or on ONNX Runtime if PyTorch is not installed."""
        if is_installed("torch"):
            from adapters.encoders.torch.encoder import build_text_tower

            precision = self.precision or Precision.FP16
            return build_text_tower(checkpoint, self.device, precision=precision)
        try:
            from adapters.encoders.onnxruntime.towers import OnnxTextTower
            from adapters.export.bundles import bundle_of

            return OnnxTextTower(bundle_of(self._fetched(), Store(self.cache)))
        except ImportError as missing:
            raise EncoderUnavailable(
                f"without PyTorch the text tower needs {missing.name}, which is not installed. "
                f"Run: {install_command('engine')}"
            ) from missing
        except (InvalidCheckpoint, OSError) as failure:
            raise EncoderUnavailable(
                f"without PyTorch the text tower needs a bundle: {failure}"
            ) from failure

    def _encoder(
        self,
        checkpoint: Checkpoint,
        engines: "TensorRtEngines",
        runner: "EngineRunner",
        text_tower: TextTower,
    ) -> EncoderPort:
        from adapters.encoders.tensorrt.encoder import TensorRtEncoder

        description = encoder_description(
            checkpoint,
            backend="tensorrt",
            precision=str(engines.precision),
            device=self.device,
            engine_path=str(engines.path),
            concurrent_calls=CALLS_AT_ONCE,
        )
        memory = ProcessMemory(engines.find().gpu)
        return TensorRtEncoder(runner, text_tower, description, memory_used=memory.used)
