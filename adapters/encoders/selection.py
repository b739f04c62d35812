"""Which encoder the settings ask for, and which one `auto` takes on this machine."""

import importlib.util
import logging
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from adapters.encoders.cuda import find_gpu
from adapters.encoders.fake import FakeEncoder
from adapters.encoders.precision import Precision
from adapters.encoders.tensorrt.backend import TensorRtBackend
from adapters.models.bundle_cache import bundle_of
from adapters.models.checkpoint import InvalidCheckpoint
from adapters.models.reading import check_dimension, read_checkpoint
from adapters.system.hardware import multiplies_bfloat16, nvidia_driver_present
from application.ports import Device, EncoderLoaderPort, EncoderPort, EncoderUnavailable

logger = logging.getLogger(__name__)


class EncoderChoice(StrEnum):
    """Encoders that can be asked for by name."""

    AUTO = "auto"
    TENSORRT = "tensorrt"
    TORCH = "torch"
    OPENVINO = "openvino"
    FAKE = "fake"


@dataclass(frozen=True, slots=True)
class EncoderSelection(EncoderLoaderPort):
    """Loads the chosen encoder.

    `auto` takes TensorRT where there is an engine that may be used, else PyTorch where there is
    CUDA, else OpenVINO, else PyTorch on the CPU. Runtimes are imported when they are first needed
    and not with this module, since that takes seconds and the server answers ``/health`` before.

    Attributes:
        choice: which encoder.
        checkpoint: what ``CLIP_MODEL_PATH`` names.
        embedding_dimension: floats per embedding that the service promises.
        precision: what the towers compute in; None leaves it to the encoder.
        openvino_device: OpenVINO's name of the device.
        openvino_streams: parts that OpenVINO computes a batch in side by side.
        cache: directory for bundles and compiled models; None where none can be written.
        tensorrt: loads or makes TensorRT's encoder; None where there is none.
    """

    choice: EncoderChoice
    checkpoint: str
    embedding_dimension: int
    precision: Precision | None = None
    openvino_device: str = "CPU"
    openvino_streams: int = 1
    cache: Path | None = None
    tensorrt: TensorRtBackend | None = None

    def probe_device(self) -> Device:
        """See `EncoderLoaderPort.probe_device`."""
        if self.choice is EncoderChoice.FAKE or not nvidia_driver_present():
            return Device(name="cpu", cuda_available=False)
        if _installed("torch"):
            from adapters.encoders.torch import encoder as torch_encoder

            return torch_encoder.probe_device()
        cuda = find_gpu() is not None
        return Device(name="cuda:0" if cuda else "cpu", cuda_available=cuda)

    def load(self) -> EncoderPort:
        """See `EncoderLoaderPort.load`."""
        try:
            match self.choice:
                case EncoderChoice.FAKE:
                    return FakeEncoder(embedding_dimension=self.embedding_dimension)
                case EncoderChoice.TENSORRT:
                    return self._load_tensorrt()
                case EncoderChoice.TORCH:
                    return self._load_torch()
                case EncoderChoice.OPENVINO:
                    return self._load_openvino()
                case EncoderChoice.AUTO:
                    return self._load_best()
        except InvalidCheckpoint as invalid:
            raise EncoderUnavailable(str(invalid)) from invalid

    def preferred(self) -> tuple[EncoderChoice, str]:
        """The encoder that `load` tries first, never `auto`, and why it does."""
        if self.choice is not EncoderChoice.AUTO:
            return self.choice, f"CLIP_ENCODER={self.choice} asks for it"
        cuda = self.probe_device().cuda_available
        if cuda and self.tensorrt is not None and self.tensorrt.upgrades:
            return EncoderChoice.TENSORRT, "there is CUDA here, and CLIP_USE_TENSORRT asks for it"
        if cuda and _installed("torch"):
            return EncoderChoice.TORCH, "PyTorch can use CUDA here"
        without = (
            "PyTorch, which could use CUDA, is not installed" if cuda else "there is no CUDA here"
        )
        if _installed("openvino"):
            return EncoderChoice.OPENVINO, f"{without}, and OpenVINO is installed"
        return EncoderChoice.TORCH, f"{without}, and OpenVINO is not installed"

    def _load_best(self) -> EncoderPort:
        first, _ = self.preferred()
        if first is EncoderChoice.TENSORRT and self.tensorrt is not None:
            try:
                return self.tensorrt.load()
            except EncoderUnavailable as unavailable:
                logger.info("not on TensorRT yet: %s", unavailable)
            except Exception:  # whatever CUDA and TensorRT raise must not stop PyTorch
                logger.exception("TensorRT's engine could not be loaded")
            first = EncoderChoice.TORCH if _installed("torch") else EncoderChoice.OPENVINO
        if first is EncoderChoice.TORCH or not _installed("openvino"):
            return self._load_torch()
        try:
            return self._load_openvino()
        except (InvalidCheckpoint, EncoderUnavailable) as unsuited:
            if not _installed("torch"):
                raise
            logger.warning("not on OpenVINO: %s Trying PyTorch.", unsuited)
            return self._load_torch()

    def _load_tensorrt(self) -> EncoderPort:
        if self.tensorrt is None:
            raise EncoderUnavailable("this process was composed without TensorRT.")
        return self.tensorrt.load_or_make()

    def _load_torch(self) -> EncoderPort:
        if not _installed("torch"):
            raise EncoderUnavailable(
                "the torch encoder needs PyTorch; install the extra 'torch', or set "
                "CLIP_ENCODER=openvino."
            )
        from adapters.encoders.torch.encoder import TorchEncoder

        device = self.probe_device()
        checkpoint = read_checkpoint(self.checkpoint)
        self._check_dimension(checkpoint.embedding_dimension)
        return TorchEncoder(checkpoint, device, precision=self.precision or _best_for_torch(device))

    def _load_openvino(self) -> EncoderPort:
        if not _installed("openvino"):
            raise EncoderUnavailable(
                "the openvino encoder needs OpenVINO; install the extra 'cpu', or set "
                "CLIP_ENCODER=torch."
            )
        from adapters.encoders.openvino.encoder import OpenVinoEncoder

        def loaded(cache: Path | None) -> EncoderPort:
            bundle = bundle_of(self.checkpoint, cache)
            self._check_dimension(bundle.embedding_dimension)
            return OpenVinoEncoder(
                bundle,
                device=self.openvino_device,
                precision=self.precision,
                streams=self.openvino_streams,
                cache=cache,
            )

        cache = _writable(self.cache)
        if cache is not None:
            try:
                return loaded(cache)
            except OSError as failure:
                logger.warning(
                    "CLIP_CACHE_DIR=%s cannot be used (%s): nothing is kept for the next start",
                    cache,
                    failure,
                )
        try:
            return loaded(None)
        except OSError as failure:
            raise EncoderUnavailable(
                f"what serves the model cannot be written, neither in CLIP_CACHE_DIR={self.cache} "
                f"nor in the temporary directory: {failure.strerror}. Make room, or serve a bundle "
                "made by: clip-server bundle"
            ) from failure

    def _check_dimension(self, dimension: int) -> None:
        check_dimension(dimension, promised=self.embedding_dimension, source=self.checkpoint)


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
