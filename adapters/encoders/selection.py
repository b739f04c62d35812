"""Loads the encoder from the settings, and chooses one for `auto`."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from adapters.artifacts.store import Store, reason_of
from adapters.encoders.fake import FakeEncoder
from adapters.encoders.gpu import GpuProbe
from adapters.encoders.kept_choice import kept_choice
from adapters.encoders.tensorrt_backend import TensorRtBackend
from adapters.export.bundles import bundle_of
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.hub import Download
from adapters.models.precision import Precision
from adapters.models.reading import check_dimension, fetched, read_checkpoint
from adapters.system.hardware import multiplies_bfloat16, multiplies_int8
from adapters.system.installation import install_command, is_installed
from application.ports import (
    Device,
    EncoderLoaderPort,
    EncoderLost,
    EncoderPort,
    EncoderUnavailable,
)
from domain.limits import EMBEDDING_DIMENSION

logger = logging.getLogger(__name__)


class EncoderChoice(StrEnum):
    """The values of ``CLIP_ENCODER``."""

    AUTO = "auto"
    TENSORRT = "tensorrt"
    TORCH = "torch"
    OPENVINO = "openvino"
    FAKE = "fake"


@dataclass(frozen=True, slots=True)
class EncoderSelection(EncoderLoaderPort):
    """Loads the chosen encoder.

    `auto` chooses TensorRT if there is a usable engine, else PyTorch if there is CUDA, else
    OpenVINO, else PyTorch on the CPU. PyTorch comes before OpenVINO if it was measured to be
    clearly faster (by `clip-server doctor --measure`, or by the server while it was idle). Runtimes
    are imported when first needed, not with this module: importing one takes seconds, and the
    server should respond to ``/health`` before that.

    Attributes:
        choice: which encoder.
        checkpoint: the value of ``CLIP_MODEL_PATH``.
        embedding_dimension: floats per embedding that the service promises; None: the model's.
        precision: the type that the towers compute in; None: the encoder chooses.
        openvino_device: OpenVINO's name for the device.
        openvino_streams: parts of a batch that OpenVINO computes in parallel.
        cache: directory for bundles and compiled models; None if none can be written.
        tensorrt: loads or builds TensorRT's encoder; None without TensorRT.
        download: progress of a download from the hub.
        int8_is_faster: whether int8 is worth it on this processor.
        torch_compiles: whether PyTorch compiles its blocks on CUDA and captures CUDA graphs.
        require_gpu: whether to refuse an encoder that does not run on an NVIDIA GPU.
        probe_gpu: looks for an NVIDIA GPU; tests replace it.
    """

    choice: EncoderChoice
    checkpoint: str
    embedding_dimension: int | None = None
    precision: Precision | None = None
    openvino_device: str = "CPU"
    openvino_streams: int = 1
    cache: Path | None = None
    tensorrt: TensorRtBackend | None = None
    download: Download = field(default_factory=Download)
    int8_is_faster: Callable[[], bool] = multiplies_int8
    torch_compiles: bool = True
    require_gpu: bool = False
    probe_gpu: Callable[[], Device] = field(default_factory=GpuProbe)

    def probe_device(self) -> Device:
        """See `EncoderLoaderPort.probe_device`."""
        if self.choice is EncoderChoice.FAKE:
            return Device(name="cpu", cuda_available=False)
        # With CLIP_ENCODER=openvino, the GPU is not wanted.
        return replace(self.probe_gpu(), gpu_wanted=self.choice is not EncoderChoice.OPENVINO)

    def load(self) -> EncoderPort:
        """See `EncoderLoaderPort.load`."""
        if self.require_gpu and not (device := self.probe_device()).cuda_available:
            reason = device.gpu_problem or "There is no NVIDIA driver here."
            raise EncoderUnavailable(f"CLIP_REQUIRE_GPU=true, and no GPU can be used. {reason}")
        encoder = self._load()
        if self.require_gpu and not encoder.description.device.cuda_available:
            raise EncoderUnavailable(
                f"CLIP_REQUIRE_GPU=true, and {encoder.description.backend} would not use the GPU. "
                f"Set CLIP_ENCODER=auto, and run: {install_command('torch')}"
            )
        return encoder

    def _load(self) -> EncoderPort:
        try:
            match self.choice:
                case EncoderChoice.FAKE:
                    dimension = self.embedding_dimension or EMBEDDING_DIMENSION
                    return FakeEncoder(embedding_dimension=dimension)
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

    def progress(self) -> str | None:
        """See `EncoderLoaderPort.progress`."""
        return self.download.text

    def preferred(self) -> tuple[EncoderChoice, str]:
        """See `EncoderLoaderPort.preferred`; never `auto`."""
        if self.choice is not EncoderChoice.AUTO:
            return self.choice, f"set by CLIP_ENCODER={self.choice}"
        cuda = self.probe_device().cuda_available
        if cuda and self.tensorrt is not None and self.tensorrt.upgrades:
            return EncoderChoice.TENSORRT, "there is CUDA here, and CLIP_USE_TENSORRT is true"
        if cuda and is_installed("torch"):
            return EncoderChoice.TORCH, "PyTorch can use CUDA here"
        without = (
            "PyTorch, which could use CUDA, is not installed" if cuda else "there is no CUDA here"
        )
        if is_installed("openvino"):
            kept = kept_choice(self.cache, self.checkpoint, self.processor_precision)
            # It was measured on the processor, so it says nothing about another device.
            on_processor = self.openvino_device == "CPU"
            if kept == EncoderChoice.TORCH and on_processor and self._torch_is_possible:
                return EncoderChoice.TORCH, f"{without}, and it was measured to be the fastest"
            return EncoderChoice.OPENVINO, f"{without}, and OpenVINO is installed"
        return EncoderChoice.TORCH, f"{without}, and OpenVINO is not installed"

    @property
    def processor_precision(self) -> Precision:
        """The type that an encoder on the processor computes in."""
        return self.precision or _best_for_processor()

    def _load_best(self) -> EncoderPort:
        if not (is_installed("openvino") or is_installed("torch")):
            raise EncoderUnavailable(
                "neither OpenVINO nor PyTorch is installed; one of them is needed. "
                f"Run: {install_command('cpu')}"
            )
        first, _ = self.preferred()
        if first is EncoderChoice.TENSORRT and self.tensorrt is not None:
            try:
                return self.tensorrt.load()
            except EncoderUnavailable as unavailable:
                logger.info("not on TensorRT yet: %s", unavailable)
            except EncoderLost:
                raise  # PyTorch would fail on this device too, until the process is restarted
            except Exception:  # any error of CUDA or TensorRT: PyTorch may still work
                logger.exception("TensorRT's engine could not be loaded")
            first = EncoderChoice.TORCH if is_installed("torch") else EncoderChoice.OPENVINO
        if first is EncoderChoice.TORCH or not is_installed("openvino"):
            return self._load_torch()
        try:
            return self._load_openvino()
        except (InvalidCheckpoint, EncoderUnavailable) as unsuited:
            if not self._torch_is_possible:
                raise
            logger.warning("not on OpenVINO: %s Trying PyTorch.", unsuited)
            return self._load_torch()

    @property
    def _torch_is_possible(self) -> bool:
        """Whether PyTorch can replace OpenVINO; only OpenVINO computes in int8."""
        return is_installed("torch") and self.precision is not Precision.INT8

    def _load_tensorrt(self) -> EncoderPort:
        if self.tensorrt is None:
            raise EncoderUnavailable("this process was composed without TensorRT.")
        return self.tensorrt.load_or_make()

    def _load_torch(self) -> EncoderPort:
        if not is_installed("torch"):
            raise EncoderUnavailable(self._missing("torch", "PyTorch", other="openvino"))
        # Imported here: PyTorch takes seconds to import, and may not be installed.
        from adapters.encoders.torch.encoder import TorchEncoder

        device = self.probe_device()
        checkpoint = read_checkpoint(self._fetched())
        self._check_dimension(checkpoint.embedding_dimension)
        return TorchEncoder(
            checkpoint,
            device,
            precision=self.precision or _best_for_torch(device),
            compiles=self.torch_compiles and device.cuda_available and not self._tensorrt_follows,
        )

    @property
    def _tensorrt_follows(self) -> bool:
        """Whether PyTorch serves only until an engine is ready; then it should start quickly."""
        wanted = self.tensorrt is not None and self.tensorrt.upgrades
        return wanted and (is_installed("tensorrt") or is_installed("tensorrt_rtx"))

    def _load_openvino(self) -> EncoderPort:
        if not is_installed("openvino"):
            raise EncoderUnavailable(self._missing("cpu", "OpenVINO", other="torch"))
        if (
            self.precision is Precision.INT8
            and self.openvino_device == "CPU"
            and not self.int8_is_faster()
        ):
            raise EncoderUnavailable(
                "CLIP_PRECISION=int8 is refused on this processor: it has no int8 instructions "
                "(AVX-VNNI, AVX512-VNNI or AMX), so int8 would be less exact and no faster. Set "
                "CLIP_PRECISION=auto."
            )
        # Imported here: OpenVINO takes a second to import, and may not be installed.
        from adapters.encoders.openvino.encoder import OpenVinoEncoder

        store = Store(self.cache)
        try:
            bundle = bundle_of(self._fetched(), store)
            self._check_dimension(bundle.embedding_dimension)
            return OpenVinoEncoder(
                bundle,
                device=self.openvino_device,
                precision=self.precision,
                streams=self.openvino_streams,
                store=store,
            )
        except OSError as failure:
            raise EncoderUnavailable(
                "the model's converted files can be written neither to "
                f"CLIP_CACHE_DIR={self.cache} nor to the temporary directory: "
                f"{reason_of(failure)}. Free some space, or serve a bundle made by: clip-server "
                "bundle"
            ) from failure

    def _fetched(self) -> str:
        return fetched(self.checkpoint, promised=self.embedding_dimension, download=self.download)

    def _missing(self, extra: str, name: str, *, other: str) -> str:
        """What to do if a runtime is not installed; suggests another one if it is installed."""
        alternative = f", or set CLIP_ENCODER={other}" if is_installed(other) else ""
        return (
            f"CLIP_ENCODER={self.choice} needs {name}, which is not installed. "
            f"Run: {install_command(extra)}{alternative}"
        )

    def _check_dimension(self, dimension: int) -> None:
        check_dimension(dimension, promised=self.embedding_dimension, source=self.checkpoint)


def _best_for_torch(device: Device) -> Precision:
    """The fastest precision that needs no calibration."""
    return Precision.FP16 if device.cuda_available else _best_for_processor()


def _best_for_processor() -> Precision:
    return Precision.BF16 if multiplies_bfloat16() else Precision.FP32
