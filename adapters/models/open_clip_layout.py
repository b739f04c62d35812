"""Checkpoints in OpenCLIP's layout, from a directory or from the hub by ``name:tag``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from adapters.models.checkpoint import (
    Checkpoint,
    InvalidCheckpoint,
    architecture_name,
    check_servable,
    read_description,
)
from adapters.models.preprocessing import Preprocessing, UnservedPreprocessing, from_open_clip
from adapters.models.tensors import SparseRows, StoredTensor, Tensor
from adapters.models.tokenizer import VOCABULARY_SIZE
from adapters.models.weights_files import first_existing, read_weights
from adapters.system.installation import install_command

CONFIG: Final = "open_clip_config.json"
DESCRIPTIONS: Final = (CONFIG,)
WEIGHTS: Final = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_TOKEN_TABLE: Final = "token_embedding.weight"  # noqa: S105 a tensor, no password
_TOKEN_ROWS: Final = "token_embedding.rows"  # noqa: S105


def read_open_clip(directory: Path, *, model: str | None = None) -> Checkpoint:
    """Read a directory with ``open_clip_config.json`` and ``open_clip_model.safetensors``.

    One extension: with a tensor ``token_embedding.rows`` (int, ``[n]``) the token table holds only
    those n rows of the full one, and every other row is zero. That keeps a model small that was
    trained on few words.

    Args:
        directory: where the files are.
        model: the name to show; from the architecture if None.

    Raises:
        InvalidCheckpoint: damaged, or one that this service cannot serve.
    """
    architecture, preprocessing = describe(directory)
    weights = _with_full_token_table(read_weights(first_existing(directory, WEIGHTS)))
    name = model or architecture_name(architecture)
    return Checkpoint(name, architecture, weights, preprocessing)


def describe(directory: Path) -> tuple[Mapping[str, Any], Preprocessing]:
    """Architecture and preprocessing, from the small file alone.

    Raises:
        InvalidCheckpoint: it is incomplete, or one that this service cannot serve.
    """
    path = directory / CONFIG
    try:
        config = read_description(path)
        architecture = config["model_cfg"]
        described = config.get("preprocess_cfg") or {}
        check_servable(architecture, origin=str(directory))
    except (KeyError, TypeError, AttributeError) as incomplete:
        raise InvalidCheckpoint(f"{path} has no complete model_cfg.") from incomplete
    return architecture, _preprocessing(described, origin=str(path))


def is_open_clip_name(source: str) -> bool:
    """Whether ``source`` has the form of a ``name:tag``, such as ``ViT-L-14:openai``."""
    return re.fullmatch(r"[\w.-]+:[\w.-]+", source) is not None


def read_from_hub(source: str) -> Checkpoint:
    """Download an OpenCLIP ``name:tag``, or take it from the cache under ``HF_HOME``, and read it.

    Raises:
        InvalidCheckpoint: unknown tag, no network, or one that this service cannot serve.
    """
    try:
        import open_clip  # an extra, and slow to import, as it imports PyTorch
    except ImportError:
        raise InvalidCheckpoint(
            f"{source} is downloaded by OpenCLIP, which is not installed. Set CLIP_MODEL_PATH to "
            f"a checkpoint directory, or run: {install_command('torch')}"
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
    preprocessing = _preprocessing(pretrained, origin=source)
    try:
        path = Path(open_clip.download_pretrained(pretrained))
    except Exception as failure:  # whatever the hub client and the network raise
        raise InvalidCheckpoint(
            f"{source} could not be downloaded from the model hub ({type(failure).__name__}). "
            "Without network, put a checkpoint in a directory and set CLIP_MODEL_PATH to it."
        ) from failure
    return Checkpoint(source, architecture, read_weights(path), preprocessing)


def _preprocessing(config: Any, *, origin: str) -> Preprocessing:
    if not isinstance(config, Mapping):
        raise InvalidCheckpoint(f"{origin} has no complete preprocess_cfg.")
    try:
        return from_open_clip(config)
    except UnservedPreprocessing as unserved:
        raise InvalidCheckpoint(f"{origin}: {unserved}.") from unserved


def _with_full_token_table(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    rows = weights.pop(_TOKEN_ROWS, None)
    if not isinstance(rows, StoredTensor):
        return weights
    return {**weights, _TOKEN_TABLE: SparseRows(weights[_TOKEN_TABLE], rows, VOCABULARY_SIZE)}
