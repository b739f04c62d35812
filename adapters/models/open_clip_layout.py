"""Checkpoints in OpenCLIP's layout, from a directory or from the hub by ``name:tag``."""

import re
from pathlib import Path
from typing import Any, Final

from adapters.images.preprocessing import MEAN, STD
from adapters.models.checkpoint import (
    Checkpoint,
    InvalidCheckpoint,
    architecture_name,
    check_servable,
    read_description,
)
from adapters.models.tensors import SparseRows, StoredTensor, Tensor
from adapters.models.tokenizer import VOCABULARY_SIZE
from adapters.models.weights_files import first_existing, read_weights

CONFIG: Final = "open_clip_config.json"
_WEIGHTS: Final = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_TOKEN_TABLE: Final = "token_embedding.weight"  # noqa: S105 a tensor, no password
_TOKEN_ROWS: Final = "token_embedding.rows"  # noqa: S105


def read_open_clip(directory: Path, *, model: str | None = None) -> Checkpoint:
    """Read a directory with ``open_clip_config.json`` and ``open_clip_model.safetensors``.

    One extension: with a tensor ``token_embedding.rows`` (int, ``[n]``) the token table holds only
    those n rows of the full one, and every other row is zero. It keeps a model that was trained
    on few words small.

    Args:
        directory: where the files lie.
        model: the name to show; from the architecture if None.

    Raises:
        InvalidCheckpoint: damaged, or one this service cannot serve.
    """
    path = directory / CONFIG
    try:
        config = read_description(path)
        architecture = config["model_cfg"]
        preprocessing = config.get("preprocess_cfg", {})
        check_servable(architecture, origin=str(directory))
    except (KeyError, TypeError, AttributeError) as incomplete:
        raise InvalidCheckpoint(f"{path} has no complete model_cfg.") from incomplete
    _check_preprocessing(preprocessing, origin=str(path))
    weights = _with_full_token_table(read_weights(first_existing(directory, _WEIGHTS)))
    return Checkpoint(model or architecture_name(architecture), architecture, weights)


def is_open_clip_name(source: str) -> bool:
    """Whether ``source`` has the form of a ``name:tag``, such as ``ViT-L-14:openai``."""
    return re.fullmatch(r"[\w.-]+:[\w.-]+", source) is not None


def read_from_hub(source: str) -> Checkpoint:
    """Download (or take from the cache under ``HF_HOME``) an OpenCLIP ``name:tag`` and read it.

    Raises:
        InvalidCheckpoint: unknown tag, no network, or one this service cannot serve.
    """
    try:
        import open_clip
    except ImportError:
        raise InvalidCheckpoint(
            f"{source} can only be had through OpenCLIP, which is not installed; "
            "install the extra 'torch' or put a checkpoint in a directory."
        ) from None
    name, _, tag = source.partition(":")
    if name not in open_clip.list_models():
        raise InvalidCheckpoint(f"OpenCLIP knows no model {name!r}.")
    pretrained = open_clip.get_pretrained_cfg(name, tag)
    if not pretrained:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise InvalidCheckpoint(f"OpenCLIP knows no tag {tag!r} for {name}; it knows {known}.")
    architecture = dict(open_clip.get_model_config(name))
    # OpenAI's weights want quick-GELU; the tag knows, the plain model name does not.
    architecture["quick_gelu"] = bool(
        pretrained.get("quick_gelu", architecture.get("quick_gelu", False))
    )
    check_servable(architecture, origin=source)
    _check_preprocessing(pretrained, origin=source)
    try:
        path = Path(open_clip.download_pretrained(pretrained))
    except Exception as failure:  # whatever the hub client and the network raise
        raise InvalidCheckpoint(
            f"{source} could not be downloaded from the model hub ({type(failure).__name__}). "
            "Without network, put a checkpoint in a directory and set CLIP_MODEL_PATH to it."
        ) from failure
    return Checkpoint(source, architecture, read_weights(path))


def _check_preprocessing(config: dict[str, Any], *, origin: str) -> None:
    """Refuse a checkpoint that was trained on images prepared in another way."""
    for key, ours in (("mean", MEAN), ("std", STD)):
        theirs = config.get(key)
        if theirs is not None and not _close(theirs, ours):
            raise InvalidCheckpoint(
                f"{origin}: images are normalised with {key} {theirs}; "
                f"this service uses CLIP's {list(ours)}."
            )
    for key, needed in (("interpolation", "bicubic"), ("resize_mode", "shortest")):
        if config.get(key, needed) != needed:
            raise InvalidCheckpoint(
                f"{origin}: images are prepared with {key} {config[key]!r}; "
                f"this service uses {needed!r}."
            )


def _close(theirs: Any, ours: tuple[float, ...]) -> bool:
    return len(theirs) == len(ours) and all(
        abs(a - b) < 1e-4 for a, b in zip(theirs, ours, strict=True)
    )


def _with_full_token_table(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    rows = weights.pop(_TOKEN_ROWS, None)
    if not isinstance(rows, StoredTensor):
        return weights
    return {**weights, _TOKEN_TABLE: SparseRows(weights[_TOKEN_TABLE], rows, VOCABULARY_SIZE)}
