"""Checkpoints in OpenCLIP's layout, from a directory or from the hub by ``name:tag``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from adapters.models import tokenization
from adapters.models.architecture import (
    CLIPS_VOCABULARY,
    Family,
    check_servable,
    family_of,
    image_size_of,
    normalised,
)
from adapters.models.checkpoint import Checkpoint, Described, check_size
from adapters.models.checkpoint_files import InvalidCheckpoint, read_description
from adapters.models.open_clip_tags import Tag
from adapters.models.preprocessing import Preprocessing, UnservedPreprocessing, from_open_clip
from adapters.models.tensors import SparseRows, StoredTensor, Tensor, reshaped
from adapters.models.tokenization import Tokenization
from adapters.models.tokens import AS_NEEDED, Padding
from adapters.models.weights_files import first_existing, read_weights
from adapters.system.installation import install_command
from domain.limits import CONTEXT_LENGTH

CONFIG: Final = "open_clip_config.json"
WEIGHTS: Final = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_SCALARS: Final = frozenset({"logit_scale", "logit_bias"})
_POSITIONS: Final = "text.transformer.embeddings.position_ids"
_TOKEN_TABLE: Final = "token_embedding.weight"  # noqa: S105 a tensor, no password
_TOKEN_ROWS: Final = "token_embedding.rows"  # noqa: S105


def read_open_clip(directory: Path, *, model: str | None = None) -> Checkpoint:
    """Read a directory with ``open_clip_config.json`` and ``open_clip_model.safetensors``.

    One extension: with a tensor ``token_embedding.rows`` (int, ``[n]``) the token table holds only
    those n rows of the full one, and every other row is zero. This keeps a model small if it was
    trained on few words.

    Args:
        directory: contains the files.
        model: the name to show; from the architecture if None.

    Raises:
        InvalidCheckpoint: damaged, or one that this service cannot serve.
    """
    return _read(describe(directory), first_existing(directory, WEIGHTS), model=model)


def describe(directory: Path) -> Described:
    """Everything except the weights, read from only the small files.

    Raises:
        InvalidCheckpoint: it is incomplete, or one that this service cannot serve.
    """
    path = directory / CONFIG
    try:
        config = read_description(path)
        stated = config["model_cfg"]
        preprocess_cfg = config.get("preprocess_cfg") or {}
        architecture = normalised(stated)
        check_servable(architecture, origin=str(directory))
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as incomplete:
        raise InvalidCheckpoint(f"{path} has no complete model_cfg.") from incomplete
    return Described(
        architecture,
        _preprocessing(preprocess_cfg, architecture, origin=str(path)),
        _tokenization(directory, stated["text_cfg"], architecture),
    )


def small_files(directory: Path) -> tuple[str, ...]:
    """The further small files that are needed, once the configuration is there."""
    try:
        text = read_description(directory / CONFIG)["model_cfg"]["text_cfg"]
        own = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    except (KeyError, TypeError, AttributeError):
        return ()  # `describe` says what is wrong
    return (tokenization.FILE, tokenization.CONFIG) if own else ()


def is_open_clip_name(source: str) -> bool:
    """Whether ``source`` has the form of a ``name:tag``, such as ``ViT-L-14:openai``."""
    return re.fullmatch(r"[\w.-]+:[\w.-]+", source) is not None


def describe_tag(tag: Tag, directory: Path, *, origin: str) -> Described:
    """Everything except the weights of a tag.

    Args:
        tag: its entry in the table.
        directory: the small files from the hub; not read if the tag contains everything.
        origin: its name, for messages.

    Raises:
        InvalidCheckpoint: as `describe` says.
    """
    if tag.architecture is None:
        return describe(directory)
    architecture = normalised(tag.architecture)
    check_servable(architecture, origin=origin)
    return Described(
        architecture,
        _preprocessing(tag.preprocess, architecture, origin=origin),
        _tokenization(directory, architecture["text_cfg"], architecture),
    )


def read_tag(source: str, tag: Tag, directory: Path) -> Checkpoint:
    """Read a ``name:tag`` whose files were fetched from the hub.

    Raises:
        InvalidCheckpoint: as `read_open_clip` says.
    """
    described = describe_tag(tag, directory, origin=source)
    return _read(described, first_existing(directory, WEIGHTS), model=source)


def read_by_open_clip(source: str) -> Checkpoint:
    """Let OpenCLIP download a ``name:tag``, or take it from its cache, and read it.

    For tags that `open_clip_tags` does not know: other architectures, and weights that are not on
    the hub.

    Raises:
        InvalidCheckpoint: unknown tag, no network, or one that this service cannot serve.
    """
    try:
        import open_clip  # an extra, and slow to import because it imports PyTorch
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
    # OpenAI's weights need quick-GELU; the tag says so, but the model name does not.
    architecture["quick_gelu"] = bool(
        pretrained.get("quick_gelu", architecture.get("quick_gelu", False))
    )
    architecture = normalised(architecture)
    check_servable(architecture, origin=source)
    preprocessing = _preprocessing(pretrained, architecture, origin=source)
    try:
        path = Path(open_clip.download_pretrained(pretrained))
    except Exception as failure:  # any error of the hub client and the network
        raise InvalidCheckpoint(
            f"{source} could not be downloaded from the model hub ({type(failure).__name__}). "
            "Without network, put a checkpoint in a directory and set CLIP_MODEL_PATH to it."
        ) from failure
    tokens = _tokenization(path.parent, architecture["text_cfg"], architecture)
    return _read(Described(architecture, preprocessing, tokens), path, model=source)


def _read(described: Described, weights: Path, *, model: str | None) -> Checkpoint:
    stored = _weights(read_weights(weights), described.architecture)
    return described.with_weights(stored, model=model)


def _preprocessing(config: Any, architecture: Mapping[str, Any], *, origin: str) -> Preprocessing:
    if not isinstance(config, Mapping):
        raise InvalidCheckpoint(f"{origin} has no complete preprocess_cfg.")
    try:
        preprocessing = from_open_clip(config, image_size_of(architecture))
    except UnservedPreprocessing as unserved:
        raise InvalidCheckpoint(f"{origin}: {unserved}.") from unserved
    check_size(preprocessing, architecture, origin=origin)
    return preprocessing


def _tokenization(
    directory: Path, text_cfg: Mapping[str, Any], architecture: Mapping[str, Any]
) -> Tokenization:
    length = int(text_cfg.get("context_length", CONTEXT_LENGTH))
    family = family_of(architecture)
    if text_cfg.get("hf_tokenizer_name") or text_cfg.get("hf_model_name"):
        return tokenization.from_open_clip(
            directory, text_cfg, context_length=length, is_masked=family is Family.XLM_ROBERTA
        )
    # Other kinds of towers may see the tokens after the end of a text.
    padding = AS_NEEDED if family is Family.CLIP else Padding(length=length)
    return Tokenization(length, padding=padding)


def _weights(stored: dict[str, Tensor], architecture: Mapping[str, Any]) -> dict[str, Tensor]:
    """OpenCLIP's state dict with the shapes that all layouts agree on."""
    weights = _with_full_token_table(stored)
    if family_of(architecture) is Family.SIGLIP:
        weights |= {name: reshaped(weights[name]) for name in _SCALARS & set(weights)}
    # Written by older versions of transformers; contains 0, 1, 2, …
    weights.pop(_POSITIONS, None)
    return weights


def _with_full_token_table(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    rows = weights.pop(_TOKEN_ROWS, None)
    if not isinstance(rows, StoredTensor):
        return weights
    return {**weights, _TOKEN_TABLE: SparseRows(weights[_TOKEN_TABLE], rows, CLIPS_VOCABULARY)}
