"""One way in for every kind of checkpoint that ``CLIP_MODEL_PATH`` may name."""

from pathlib import Path
from typing import Final

from adapters.models import hugging_face, open_clip_layout
from adapters.models.checkpoint import Checkpoint, InvalidCheckpoint

DEMO: Final = "builtin:demo"
"""The embedded demo model; served only when it is asked for by this name."""

DEMO_DIRECTORY: Final = Path(__file__).parent / "demo" / "checkpoint"


def check_dimension(dimension: int, *, promised: int, source: str) -> None:
    """Refuse a checkpoint whose embeddings are not as long as the service promises.

    Raises:
        InvalidCheckpoint: says both lengths.
    """
    if dimension != promised:
        raise InvalidCheckpoint(
            f"{source} makes embeddings of {dimension} numbers, but this service "
            f"promises {promised} (CLIP_EMBEDDING_DIMENSION)."
        )


def read_checkpoint(source: str) -> Checkpoint:
    """Read a checkpoint.

    Args:
        source: a directory in Hugging Face's or OpenCLIP's layout, an OpenCLIP ``name:tag``, or
            ``builtin:demo``.

    Raises:
        InvalidCheckpoint: missing, damaged or not servable; says which and what to do.
    """
    if source == DEMO:
        return open_clip_layout.read_open_clip(DEMO_DIRECTORY, model=DEMO)
    directory = Path(source)
    if (directory / open_clip_layout.CONFIG).is_file():
        return open_clip_layout.read_open_clip(directory)
    if (directory / hugging_face.CONFIG).is_file():
        return hugging_face.read_hugging_face(directory)
    if directory.is_dir():
        raise InvalidCheckpoint(
            f"{source} holds no checkpoint: neither {hugging_face.CONFIG} (Hugging Face layout) "
            f"nor {open_clip_layout.CONFIG} (OpenCLIP layout) is there."
        )
    if open_clip_layout.is_open_clip_name(source):
        return open_clip_layout.read_from_hub(source)
    raise InvalidCheckpoint(
        f"{source} does not exist. Put a CLIP ViT-L/14 checkpoint there, or set CLIP_MODEL_PATH to "
        f"a checkpoint directory, to an OpenCLIP name:tag such as ViT-L-14:openai, or, to try the "
        f"service, to {DEMO}."
    )
