"""Which encoder the settings ask for, and which one `auto` takes on this machine."""

import importlib.util
import logging
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from adapters.checkpoints.checkpoint import InvalidCheckpoint
from adapters.checkpoints.reading import DEMO, DEMO_DIRECTORY, read_checkpoint
from adapters.encoders.fake_encoder import FakeEncoder
from adapters.encoders.precision import Precision
from adapters.export.bundle import Bundle, is_bundle, read_bundle, write_bundle
from adapters.hardware import multiplies_bfloat16, nvidia_driver_present
from application.ports import Device, EncoderLoaderPort, EncoderPort, EncoderUnavailable

logger = logging.getLogger(__name__)


class EncoderChoice(StrEnum):
    """Encoders that can be asked for by name."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"
    FAKE = "fake"


@dataclass(frozen=True, slots=True)
class EncoderSelection(EncoderLoaderPort):
    """Loads the chosen encoder.

    `auto` takes PyTorch where there is CUDA, else OpenVINO, else PyTorch on the CPU. Runtimes are
    imported when they are first needed and not with this module, since that takes seconds and the
    server answers ``/health`` before.

    Attributes:
        choice: which encoder.
        checkpoint: what ``CLIP_MODEL_PATH`` names.
        embedding_dimension: floats per embedding that the service promises.
        precision: what the towers compute in; None leaves it to the encoder.
        openvino_device: OpenVINO's name of the device.
        openvino_streams: parts that OpenVINO computes a batch in side by side.
        cache: directory for bundles and compiled models; None where none can be written.
        use_tensorrt: whether TensorRT is wanted where it can run.
    """

    choice: EncoderChoice
    checkpoint: str
    embedding_dimension: int
    precision: Precision | None = None
    openvino_device: str = "CPU"
    openvino_streams: int = 1
    cache: Path | None = None
    use_tensorrt: bool = False

    def probe_device(self) -> Device:
        """See `EncoderLoaderPort.probe_device`."""
        if self.choice is EncoderChoice.FAKE or not (
            nvidia_driver_present() and _installed("torch")
        ):
            return Device(name="cpu", cuda_available=False)
        from adapters.encoders import torch_encoder

        return torch_encoder.probe_device()

    def load(self) -> EncoderPort:
        """See `EncoderLoaderPort.load`."""
        try:
            match self.choice:
                case EncoderChoice.FAKE:
                    return FakeEncoder(embedding_dimension=self.embedding_dimension)
                case EncoderChoice.TORCH:
                    return self._load_torch()
                case EncoderChoice.OPENVINO:
                    return self._load_openvino()
                case EncoderChoice.AUTO:
                    return self._load_best()
        except InvalidCheckpoint as invalid:
            raise EncoderUnavailable(str(invalid)) from invalid

    def _load_best(self) -> EncoderPort:
        if self.probe_device().cuda_available or not _installed("openvino"):
            return self._load_torch()
        try:
            return self._load_openvino()
        except (InvalidCheckpoint, EncoderUnavailable) as unsuited:
            if not _installed("torch"):
                raise
            logger.warning("not on OpenVINO: %s Trying PyTorch.", unsuited)
            return self._load_torch()

    def _load_torch(self) -> EncoderPort:
        if not _installed("torch"):
            raise EncoderUnavailable(
                "the torch encoder needs PyTorch; install the extra 'torch', or set "
                "CLIP_ENCODER=openvino."
            )
        from adapters.encoders.torch_encoder import TorchEncoder

        device = self.probe_device()
        if device.cuda_available and self.use_tensorrt:
            logger.warning("CLIP_USE_TENSORRT: there is no TensorRT encoder yet; using PyTorch")
        checkpoint = read_checkpoint(self.checkpoint)
        self._check_dimension(checkpoint.embedding_dimension)
        return TorchEncoder(checkpoint, device, precision=self.precision or _best_for_torch(device))

    def _load_openvino(self) -> EncoderPort:
        if not _installed("openvino"):
            raise EncoderUnavailable(
                "the openvino encoder needs OpenVINO; install the extra 'cpu', or set "
                "CLIP_ENCODER=torch."
            )
        from adapters.encoders.openvino_encoder import OpenVinoEncoder

        cache = _writable(self.cache)
        bundle = self._bundle(cache)
        self._check_dimension(bundle.embedding_dimension)
        return OpenVinoEncoder(
            bundle,
            device=self.openvino_device,
            precision=self.precision,
            streams=self.openvino_streams,
            cache=cache,
        )

    def _bundle(self, cache: Path | None) -> Bundle:
        """The checkpoint as a bundle: its own, one made before, or one made now."""
        directory = DEMO_DIRECTORY if self.checkpoint == DEMO else Path(self.checkpoint)
        if is_bundle(directory):
            return read_bundle(directory)
        checkpoint = read_checkpoint(self.checkpoint)
        root = cache or Path(tempfile.mkdtemp(prefix="clip-bundles-"))
        made = root / "bundles" / checkpoint.fingerprint
        if is_bundle(made):
            return read_bundle(made)
        logger.info("making a bundle of %s in %s", self.checkpoint, made)
        return write_bundle(checkpoint, made, link=True)

    def _check_dimension(self, dimension: int) -> None:
        if dimension != self.embedding_dimension:
            raise InvalidCheckpoint(
                f"{self.checkpoint} makes embeddings of {dimension} numbers, but this service "
                f"promises {self.embedding_dimension} (CLIP_EMBEDDING_DIMENSION)."
            )


def _best_for_torch(device: Device) -> Precision:
    """The fastest precision that needs no calibration."""
    if device.cuda_available:
        return Precision.FP16
    return Precision.BF16 if multiplies_bfloat16() else Precision.FP32


def _writable(directory: Path | None) -> Path | None:
    """The directory, made if need be; None where nothing can be written."""
    if directory is None:
        return None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError as failure:
        logger.warning(
            "CLIP_CACHE_DIR=%s cannot be written (%s): nothing is kept for the next start",
            directory,
            failure.strerror,
        )
        return None


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
