"""Reading weight files: safetensors by mapping, pickles only in PyTorch's restricted mode."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from adapters.checkpoints.checkpoint import InvalidCheckpoint
from adapters.checkpoints.tensors import STORABLE, LoadedTensor, StoredTensor, Tensor

_HEADER_LENGTH: Final = struct.Struct("<Q")
_LONGEST_HEADER: Final = 100_000_000
_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8}


def first_existing(directory: Path, names: tuple[str, ...]) -> Path:
    """The first of ``names`` that lies in the directory; put the preferred one first.

    Raises:
        InvalidCheckpoint: none does.
    """
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise InvalidCheckpoint(f"{directory} holds no weights: none of {', '.join(names)} is there.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a weights file.

    Raises:
        InvalidCheckpoint: damaged, or a pickle that holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        return dict(_map_safetensors(path))
    return _load_pickle(path)


def _map_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Where each tensor lies; no weight is read.

    The format (huggingface/safetensors, README): eight bytes with the header's length, the header
    as JSON, then the tensors' bytes, whose offsets count from the header's end.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = _HEADER_LENGTH.unpack(file.read(_HEADER_LENGTH.size))
            if length > min(_LONGEST_HEADER, size):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        start = _HEADER_LENGTH.size + length
        return {
            name: _stored(path, start, size, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as damaged:
        raise InvalidCheckpoint(f"{path} is damaged or truncated: {damaged}.") from damaged


def _stored(path: Path, start: int, size: int, entry: Mapping[str, Any]) -> StoredTensor:
    first, end = entry["data_offsets"]
    shape = tuple(int(side) for side in entry["shape"])
    kind = entry["dtype"]
    if kind not in STORABLE:
        raise ValueError(f"it holds a tensor of type {kind}; {', '.join(sorted(STORABLE))} can be")
    if not 0 <= first <= end <= size - start or end - first != math.prod(shape) * _BYTES[kind]:
        raise ValueError("a tensor reaches beyond its end")
    return StoredTensor(path, start + first, end - first, kind, shape)


def _load_pickle(path: Path) -> dict[str, Tensor]:
    try:
        import torch
    except ImportError:
        raise InvalidCheckpoint(
            f"{path} is a pickle, which only PyTorch can read, and PyTorch is not installed; "
            "install the extra 'torch' or convert the file to safetensors."
        ) from None
    try:
        # weights_only: a pickle can run any code when it is loaded; this refuses all but tensors.
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError) as damaged:
        raise InvalidCheckpoint(f"{path} is damaged or truncated: {damaged}") from damaged
    except Exception as refused:  # torch raises pickle's and its own errors here
        raise InvalidCheckpoint(
            f"{path} is not a plain file of tensors and was not loaded ({type(refused).__name__})."
        ) from refused
    if isinstance(stored, Mapping) and isinstance(stored.get("state_dict"), Mapping):
        stored = stored["state_dict"]
    if not isinstance(stored, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in stored.items()
    ):
        raise InvalidCheckpoint(f"{path} holds something other than named tensors.")
    return {
        name.removeprefix("module."): LoadedTensor(tensor.float().numpy())
        for name, tensor in stored.items()
    }
