"""Both towers on OpenVINO: a CPU, an integrated GPU or an NPU, without PyTorch."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.artifacts.scratch import scratch_directory
from adapters.encoders.openvino.compiled_models import compiled_models
from adapters.encoders.openvino.quantization import int8_image_tower
from adapters.encoders.openvino.runtime import openvino
from adapters.encoders.precision import Precision
from adapters.models.bundle import Bundle
from adapters.models.tokenizer import batches_by_length
from adapters.system.hardware import usable_cores
from application.ports import (
    Device,
    EncoderDescription,
    EncoderPort,
    EncoderUnavailable,
    PixelBatch,
    RawEmbeddings,
)

logger = logging.getLogger(__name__)


_HINTS: Final = {Precision.FP32: "f32", Precision.FP16: "f16", Precision.BF16: "bf16"}


class OpenVinoEncoder(EncoderPort):
    """A bundle on OpenVINO."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "CPU",
        precision: Precision | None = None,
        streams: int = 1,
        cache: Path | None = None,
    ) -> None:
        """Compile both towers.

        Args:
            bundle: graphs and weights.
            device: OpenVINO's name, such as ``CPU``, ``GPU`` or ``NPU``.
            precision: None takes bfloat16 where the device has it, else float32. What int8 leaves
                unquantised is computed in that too.
            streams: parts that a batch is cut into, each computed on its share of the cores. More
                of them do more images a second and take longer for a single one.
            cache: directory where compiled and quantised models are kept for the next start; None
                keeps none.

        Raises:
            EncoderUnavailable: there is no such device, or it cannot run the towers.
            InvalidCheckpoint: the bundle's vocabulary is not CLIP's.
            OSError: the cache cannot be written.
        """
        self._bundle = bundle
        core = openvino.Core()
        # Read and not mapped: a file that is overwritten or cut short while it serves would change
        # embeddings or end the process.
        core.set_property({"ENABLE_MMAP": False})
        try:
            unquantised = _floating_point(core, device, precision)
            self._precision = precision or unquantised
            image_tower = bundle.image_tower
            if self._precision is Precision.INT8:
                image_tower = int8_image_tower(bundle, cache or scratch_directory())
            origin = (
                _fingerprint(bundle, self._precision),
                openvino.__version__,
                str(image_tower),
                str(bundle.directory),
                device,
                self._precision,
                streams,
                usable_cores(),
            )
            with compiled_models(cache, *origin) as compiled:
                if compiled is not None:
                    core.set_property({"CACHE_DIR": str(compiled)})
                self._image_tower = _Tower(core, image_tower, device, unquantised, streams)
                self._text_tower = _Tower(core, bundle.text_tower, device, unquantised, streams)
        except RuntimeError as failure:
            available = ", ".join(core.available_devices) or "none"
            raise EncoderUnavailable(
                f"OpenVINO cannot run the model on CLIP_OPENVINO_DEVICE={device} "
                f"(available: {available})."
            ) from failure
        self._tokenizer = bundle.tokenizer()
        self._description = EncoderDescription(
            model=bundle.model,
            fingerprint=_fingerprint(bundle, self._precision),
            backend="openvino",
            precision=str(self._precision),
            device=Device(name=device.lower(), cuda_available=False),
            embedding_dimension=bundle.embedding_dimension,
            logit_scale=bundle.logit_scale,
        )

    @property
    def description(self) -> EncoderDescription:
        """See `EncoderPort.description`."""
        return self._description

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`."""
        if len(batch) == 0:
            return self._none()
        return self._image_tower(batch)

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
        if not texts:
            return self._none()
        tokens = self._tokenizer(texts)
        embeddings = np.empty((len(tokens), self._bundle.embedding_dimension), dtype=np.float32)
        for places, padded in batches_by_length(tokens):
            embeddings[places] = self._text_tower(padded)
        return embeddings

    def device_memory_used(self) -> int | None:
        """See `EncoderPort.device_memory_used`."""
        return None

    def _none(self) -> RawEmbeddings:
        return np.empty((0, self._bundle.embedding_dimension), dtype=np.float32)


class _Tower:
    """A compiled graph, with one request to it for each stream."""

    def __init__(
        self, core: openvino.Core, graph: Path, device: str, precision: Precision, streams: int
    ) -> None:
        configuration: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": streams,
        }
        if device == "CPU":
            configuration["INFERENCE_NUM_THREADS"] = usable_cores()
        compiled = core.compile_model(str(graph), device, configuration)
        self._requests = [compiled.create_infer_request() for _ in range(streams)]

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """``[n, ...]`` → float32 ``[n, dimension]``, n at least 1."""
        parts = np.array_split(inputs, min(len(self._requests), len(inputs)))
        running = list(zip(self._requests, parts, strict=False))
        for request, part in running:
            request.start_async([part], share_inputs=True)
        failures = [failure for request, _ in running if (failure := _failure_of(request))]
        if failures:
            raise failures[0]
        # Copied here: a request reuses its output's memory in the next call.
        return np.concatenate([request.get_output_tensor().data for request, _ in running])


def _failure_of(request: Any) -> RuntimeError | None:
    """Wait for a request's end. Not raised, so that no other is left running behind the caller."""
    try:
        request.wait()
    except RuntimeError as failure:
        return failure
    return None


def _fingerprint(bundle: Bundle, precision: Precision) -> str:
    # int8 moves embeddings by up to 0.01 in cosine; a database should not mix them with others.
    return f"{bundle.fingerprint}-int8" if precision is Precision.INT8 else bundle.fingerprint


def _floating_point(core: openvino.Core, device: str, asked: Precision | None) -> Precision:
    """What the towers compute in where they are not quantised.

    Raises:
        EncoderUnavailable: the device has not what was asked for; OpenVINO would silently take
            another.
    """
    capabilities: list[str] = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if asked is None or asked is Precision.INT8:
        return Precision.BF16 if "BF16" in capabilities else Precision.FP32
    if asked.upper() not in capabilities:
        raise EncoderUnavailable(
            f"CLIP_PRECISION={asked} is not possible on CLIP_OPENVINO_DEVICE={device}; "
            f"it can do {', '.join(sorted(capabilities))}."
        )
    return asked
