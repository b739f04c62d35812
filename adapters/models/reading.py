"""Reads any kind of checkpoint that ``CLIP_MODEL_PATH`` may name."""

from pathlib import Path
from typing import Final

from adapters.models import hub, hugging_face, open_clip_layout
from adapters.models.bundle import DESCRIPTION, is_bundle, read_bundle
from adapters.models.checkpoint import Checkpoint, Described
from adapters.models.checkpoint_files import InvalidCheckpoint, unreadable
from adapters.models.open_clip_tags import Tag, find_tag
from adapters.models.preprocessing import Preprocessing

DEMO: Final = "builtin:demo"
"""The embedded demo model; served only when requested by this name."""

DEMO_DIRECTORY: Final = Path(__file__).parent / "demo" / "checkpoint"

_POSSIBLE: Final = (
    "CLIP_MODEL_PATH may be a name on the Hugging Face hub such as "
    "openai/clip-vit-large-patch14, a directory in Hugging Face's or OpenCLIP's layout, a bundle, "
    f"an OpenCLIP name:tag such as ViT-L-14:openai, or, to try the service, {DEMO}."
)


def check_dimension(dimension: int, *, promised: int | None, source: str) -> None:
    """Refuse a checkpoint whose embeddings do not have the promised length, if one is promised.

    Raises:
        InvalidCheckpoint: says both lengths.
    """
    if promised not in (None, dimension):
        raise InvalidCheckpoint(
            f"{source} makes embeddings of {dimension} numbers, but this service promises "
            f"{promised}. To serve this checkpoint, unset CLIP_EMBEDDING_DIMENSION or set "
            f"CLIP_EMBEDDING_DIMENSION={dimension}."
        )


def directory_of(source: str) -> Path:
    """The checkpoint's path if ``source`` names a directory."""
    return DEMO_DIRECTORY if source == DEMO else Path(source)


def fetched(
    source: str, *, promised: int | None = None, download: hub.Download | None = None
) -> str:
    """The checkpoint's place: ``source`` itself, or the download of a name on the hub.

    Args:
        source: the value of ``CLIP_MODEL_PATH``.
        promised: how many numbers its embeddings must have; None: any. This, and whether it can be
            served at all, is checked before gigabytes of weights are downloaded.
        download: receives the progress.

    Raises:
        InvalidCheckpoint: it is not on the hub, cannot be downloaded, or cannot be served.
    """
    tag = _tag(source)
    if tag is None and not hub.is_hub_name(source):
        return source

    def check(directory: Path) -> None:
        dimension = _described(source, directory).embedding_dimension
        check_dimension(dimension, promised=promised, source=source)

    if tag is not None:
        hub.fetch(tag.hub, layout=open_clip_layout, check=check, download=download)
        return source
    return str(hub.fetch(source, check=check, download=download))


def preprocessing_of(source: str) -> Preprocessing:
    """The preprocessing of a checkpoint or bundle; no weights are read.

    Raises:
        InvalidCheckpoint: as `read_checkpoint` says.
    """
    if (tag := _tag(source)) is not None:
        return _described(source, hub.fetch(tag.hub, layout=open_clip_layout)).preprocessing
    directory = directory_of(fetched(source))
    if is_bundle(directory):
        return read_bundle(directory).preprocessing
    if any((directory / layout.CONFIG).is_file() for layout in (open_clip_layout, hugging_face)):
        return _described(source, directory).preprocessing
    return read_checkpoint(source).preprocessing  # raises the reason, or lets OpenCLIP find it


def _described(source: str, directory: Path) -> Described:
    """Everything except the weights of ``source``, whose small files are in the directory."""
    if (tag := _tag(source)) is not None:
        return open_clip_layout.describe_tag(tag, directory, origin=source)
    if _is_in_open_clips_layout(directory):
        return open_clip_layout.describe(directory)
    return hugging_face.describe(directory)


def read_checkpoint(source: str) -> Checkpoint:
    """Read a checkpoint.

    Args:
        source: a name on the hub, a directory in Hugging Face's or OpenCLIP's layout, an OpenCLIP
            ``name:tag``, or ``builtin:demo``.

    Raises:
        InvalidCheckpoint: missing, damaged or not servable; says which and what to do.
    """
    if source == DEMO:
        return open_clip_layout.read_open_clip(DEMO_DIRECTORY, model=DEMO)
    if (tag := _tag(source)) is not None:
        directory = hub.fetch(tag.hub, layout=open_clip_layout)
        return open_clip_layout.read_tag(source, tag, directory)
    directory = Path(fetched(source))
    try:
        if _is_in_open_clips_layout(directory):
            return open_clip_layout.read_open_clip(directory)
        if (directory / hugging_face.CONFIG).is_file():
            return hugging_face.read_hugging_face(directory)
        if directory.is_dir():
            # `is_file` is False for everything in a directory that may not be entered.
            raise _without_checkpoint(directory, [entry.name for entry in directory.iterdir()])
        if directory.exists():
            raise InvalidCheckpoint(
                f"{source} is a file; CLIP_MODEL_PATH must name the directory that holds the "
                f"checkpoint: {directory.absolute().parent}"
            )
    except OSError as failure:
        raise unreadable(directory, failure) from failure
    if open_clip_layout.is_open_clip_name(source):
        return open_clip_layout.read_by_open_clip(source)
    raise InvalidCheckpoint(f"{source} does not exist. {_POSSIBLE}")


def _tag(source: str) -> Tag | None:
    """The OpenCLIP tag for ``source``, if it is available without OpenCLIP."""
    if not open_clip_layout.is_open_clip_name(source) or Path(source).exists():
        return None
    return find_tag(source)


def _is_in_open_clips_layout(directory: Path) -> bool:
    """Whether to read OpenCLIP's layout, if parts of both are present."""
    if not (directory / open_clip_layout.CONFIG).is_file():
        return False
    if any((directory / name).is_file() for name in open_clip_layout.WEIGHTS):
        return True
    # Other programs may have put only its small file into the hub's cache, beside the other
    # layout's.
    has_config = (directory / hugging_face.CONFIG).is_file()
    has_weights = any((directory / name).is_file() for name in hugging_face.WEIGHTS)
    return not (has_config and has_weights)


def _without_checkpoint(directory: Path, found: list[str]) -> InvalidCheckpoint:
    if DESCRIPTION in found:
        try:
            read_bundle(directory)
        except InvalidCheckpoint as unusable:
            return unusable
        return InvalidCheckpoint(
            f"{directory} is a bundle, which only the openvino encoder serves. PyTorch and "
            "TensorRT need the checkpoint that it was made from."
        )
    holds = f"it holds {', '.join(sorted(found)[:5])}" if found else "it is empty"
    return InvalidCheckpoint(
        f"{directory} holds no checkpoint: neither {hugging_face.CONFIG} (Hugging Face layout) "
        f"nor {open_clip_layout.CONFIG} (OpenCLIP layout) is there; {holds}."
    )
