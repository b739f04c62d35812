"""Engines built for another machine's GPU, which only TensorRT for RTX can."""

from pathlib import Path

from adapters.encoders.tensorrt.building import Progress, build_engine, logger
from adapters.encoders.tensorrt.engine_file import (
    BatchRange,
    EngineIdentity,
    EngineRecord,
    engine_built_once,
)
from adapters.encoders.tensorrt.library import find_tensorrt
from adapters.export.image_tower_file import check_image_tower
from application.ports import EncoderUnavailable


def build_ahead_of_time(
    exported: Path,
    engine: Path,
    *,
    architecture: str,
    largest_batch: int,
    progress: Progress = logger.info,
) -> EngineRecord:
    """Build an engine without a GPU; it is compared with PyTorch where it is first served.

    Args:
        exported: an image tower; its metadata say of which checkpoint and in which precision.
        engine: where to; one that is there and the same is left as it is.
        architecture: compute capability of the GPUs it is for, such as ``8.9``.
        largest_batch: images per call that it is made for.
        progress: told what is done.

    Raises:
        EncoderUnavailable: TensorRT is missing or refuses.
        InvalidCheckpoint: ``exported`` is no image tower.
        OSError: the engine cannot be written.
    """
    tensorrt = find_tensorrt()
    if not tensorrt.for_rtx:
        raise EncoderUnavailable(
            f"{tensorrt.identity} builds only for the GPU of the machine it runs on; for others "
            "install the extra 'tensorrt-rtx' in an environment of its own."
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

    return engine_built_once(engine, wanted, build=build, judge=lambda _: None)
