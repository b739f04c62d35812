"""Builds an engine from an exported image tower, with Polygraphy."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from adapters.encoders.tensorrt.engine_file import BatchRange
from adapters.encoders.tensorrt.library import TensorRt, messages_of
from adapters.export.image_tower_file import image_side
from adapters.export.towers import IMAGE_INPUT
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.system.installation import install_command
from application.ports import EncoderUnavailable

logger = logging.getLogger(__name__)

WORKSPACE_BYTES: Final = 2 * 1024**3
"""Device memory that a layer may use for itself; a limit, not a reservation."""

Progress = Callable[[str], None]
"""Is called with a text that says what the builder is doing."""


def build_engine(
    tensorrt: TensorRt,
    onnx_file: Path,
    engine: Path,
    *,
    batch: BatchRange,
    architecture: str | None = None,
    fused_attention: bool = True,
    workspace_bytes: int = WORKSPACE_BYTES,
    timing_cache: Path | None = None,
    progress: Progress = logger.info,
) -> None:
    """Build and write an engine; takes seconds to minutes.

    Args:
        tensorrt: builds the engine. TensorRT needs the GPU that the engine is for; TensorRT for RTX
            needs none.
        onnx_file: an exported image tower; its types are the engine's.
        engine: where to write it.
        batch: images per call.
        architecture: compute capability of a GPU in another machine, such as ``8.9``; only with
            TensorRT for RTX.
        fused_attention: whether TensorRT may use one kernel for a whole attention.
        workspace_bytes: device memory that a layer may use.
        timing_cache: where TensorRT keeps its measurements, so that the next build is faster.
            TensorRT for RTX measures nothing, and with a cache it would look for a GPU.
        progress: told what is done.

    Raises:
        EncoderUnavailable: the builder refused; its own log says more.
    """
    try:
        # Imported here: it takes a second and is only needed to build.
        from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath, Profile
        from polygraphy.backend.trt import util as polygraphy_trt
        from polygraphy.exception import PolygraphyException
        from polygraphy.logger import G_LOGGER
    except ImportError as missing:
        raise EncoderUnavailable(
            f"building engines needs {missing.name}, which is not installed. "
            f"Run: {install_command('engine')}"
        ) from missing

    trt = tensorrt.module
    messages = messages_of(trt)
    messages.forget()
    G_LOGGER.module_severity = G_LOGGER.WARNING
    G_LOGGER.use_python_logging_system = True
    # TensorRT accepts one logger per process, and Polygraphy would make its own.
    polygraphy_trt.TRT_LOGGER = messages.logger
    try:
        side = image_side(onnx_file)
    except InvalidCheckpoint as invalid:
        raise EncoderUnavailable(
            f"{tensorrt.identity} could not build an engine: {invalid}"
        ) from invalid
    image = (3, side, side)
    profiles = [
        Profile().add(
            IMAGE_INPUT, min=(smallest, *image), opt=(optimal, *image), max=(largest, *image)
        )
        for smallest, optimal, largest in batch.profiles
    ]
    settings: dict[str, Any] = {
        "profiles": profiles,
        "memory_pool_limits": {trt.MemoryPoolType.WORKSPACE: workspace_bytes},
        "progress_monitor": _monitor(trt, progress),
    }
    # TensorRT 11 has only strongly typed networks, and may drop the flag for them.
    strongly_typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    try:
        parse = NetworkFromOnnxPath(str(onnx_file), strongly_typed=strongly_typed)

        def network() -> Any:
            parsed = parse()
            if not fused_attention:
                unfuse_attention(trt, parsed[1])
            return parsed

        config, saved = _config(tensorrt, settings, architecture, timing_cache)
        data = EngineBytesFromNetwork(
            network, lambda *built: _exact(trt, config(*built)), save_timing_cache=saved
        )()
    except (PolygraphyException, RuntimeError) as failure:
        raise EncoderUnavailable(
            f"{tensorrt.identity} could not build an engine from {onnx_file}: "
            f"{messages.errors or failure}"
        ) from failure
    with engine.open("wb") as file:
        file.write(data)


def _config(
    tensorrt: TensorRt, settings: dict[str, Any], architecture: str | None, cache: Path | None
) -> tuple[Any, str | None]:
    """Polygraphy's configuration, and where to save the timing cache."""
    if tensorrt.for_rtx:
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        if architecture is None:
            return CreateConfigRTX(use_gpu=True, **settings), None
        major, minor = architecture.split(".")
        return CreateConfigRTX(compute_capabilities=[(int(major), int(minor))], **settings), None
    from polygraphy.backend.trt import CreateConfig

    if architecture is not None:
        raise EncoderUnavailable(
            "TensorRT builds only for the GPU of the machine it runs on; "
            "TensorRT for RTX builds for others."
        )
    if cache is None:
        return CreateConfig(**settings), None
    known = {"load_timing_cache": str(cache)} if cache.is_file() else {}
    return CreateConfig(**known, **settings), str(cache)


def _exact(trt: Any, config: Any) -> Any:
    """The configuration with products of float32 in float32, not in 19-bit TF32 as by default."""
    config.clear_flag(trt.BuilderFlag.TF32)
    return config


def unfuse_attention(trt: Any, network: Any) -> int:
    """Put every softmax of a float16 network in float32, which rules out fused attention.

    On some cards and versions the fused kernel is wrong in float16 (TensorRT's issue 4837). Returns
    how many there were.
    """
    softmaxes = [
        layer
        for layer in (network.get_layer(place) for place in range(network.num_layers))
        if layer.type == trt.LayerType.SOFTMAX and layer.get_input(0).dtype == trt.float16
    ]
    for softmax in softmaxes:
        made = softmax.get_output(0)
        users = [
            (layer, place)
            for layer in (network.get_layer(number) for number in range(network.num_layers))
            for place in range(layer.num_inputs)
            if (taken := layer.get_input(place)) is not None and taken.name == made.name
        ]
        softmax.set_input(0, network.add_cast(softmax.get_input(0), trt.float32).get_output(0))
        back = network.add_cast(softmax.get_output(0), trt.float16).get_output(0)
        for layer, place in users:
            layer.set_input(place, back)
    return len(softmaxes)


def _monitor(trt: Any, progress: Progress) -> Any:
    """TensorRT's view of ``progress``: its outermost phases, and tenths of the long ones."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}
            self._outermost: set[str] = set()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._outermost.add(phase_name)
            elif parent_phase not in self._outermost:
                return
            self._steps[phase_name] = num_steps
            progress(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            steps = self._steps.get(phase_name, 0)
            if steps >= 20 and (step * 10) // steps != ((step + 1) * 10) // steps:
                progress(f"{phase_name}: {(step + 1) * 100 // steps} %")
            return True  # continue

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
