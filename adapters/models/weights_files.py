"""Weights files: memory-maps safetensors, and reads pickles only in PyTorch's restricted mode."""

import json
import math
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.models.checkpoint_files import InvalidCheckpoint, check_not_a_pointer, unreadable
from adapters.models.tensors import STORABLE, LoadedTensor, StoredTensor, Tensor
from adapters.system.installation import install_command

if TYPE_CHECKING:
    import torch

_HEADER_LENGTH: Final = struct.Struct("<Q")
_LONGEST_HEADER: Final = 2 * 1024 * 1024
"""Most bytes of a header. The format allows 100 MB, which would take gigabytes in Python; CLIP's
have 0.2 MB."""

_LONGEST_POINTER: Final = 1024
"""Most bytes of a Git LFS pointer, by its specification."""

_MOST_SIDES: Final = 8
_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8}

_DAMAGED: Final = (
    *(ValueError, KeyError, TypeError, AttributeError, struct.error),
    *(RecursionError, OverflowError),  # endless brackets, or a side of Infinity
)
"""Errors from reading the header of a damaged file."""


def first_existing(directory: Path, names: tuple[str, ...]) -> Path:
    """The first of ``names``, in order of preference, that is in the directory.

    Raises:
        InvalidCheckpoint: none of them is there.
    """
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise InvalidCheckpoint(f"{directory} holds no weights: none of {', '.join(names)} is there.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a weights file.

    Raises:
        InvalidCheckpoint: it cannot be read, is damaged, or is a pickle that holds something other
            than tensors.
    """
    try:
        with path.open("rb") as file:
            check_not_a_pointer(path, file.read(_LONGEST_POINTER))
    except OSError as failure:
        raise unreadable(path, failure) from failure
    if path.suffix == ".safetensors":
        return dict(_map_safetensors(path))
    return _load_pickle(path)


def _map_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Each tensor's place in the file; no weight is read.

    The format (huggingface/safetensors, README): eight bytes with the header's length, the header
    as JSON, then the tensors' bytes, whose offsets count from the header's end.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = _HEADER_LENGTH.unpack(file.read(_HEADER_LENGTH.size))
            if length > size:
                raise ValueError("its header is longer than the file")
            if length > _LONGEST_HEADER:
                raise ValueError(f"its header has {length} bytes, more than {_LONGEST_HEADER}")
            header = json.loads(file.read(length), object_pairs_hook=_once_each)
        start = _HEADER_LENGTH.size + length
        tensors = {
            name: _stored(path, start, size, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
        _check_apart(tensors.values())
    except OSError as failure:
        raise unreadable(path, failure) from failure
    except _DAMAGED as damaged:
        raise InvalidCheckpoint(f"{path} is damaged or truncated: {damaged}.") from damaged
    return tensors


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("its header has a name twice")
    return entries


def _check_apart(tensors: Iterable[StoredTensor]) -> None:
    """Refuse overlapping tensors: with them, a small file could contain any number of tensors."""
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise ValueError("two of its tensors overlap")
        end = tensor.offset + tensor.length


def _stored(path: Path, start: int, size: int, entry: Mapping[str, Any]) -> StoredTensor:
    first, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if len(shape) > _MOST_SIDES or not all(
        type(side) is int and 0 < side <= size for side in shape
    ):
        raise ValueError("a tensor has an impossible shape")
    if type(first) is not int or type(end) is not int:
        raise ValueError("a tensor has offsets that are not whole numbers")
    kind = entry["dtype"]
    if kind not in STORABLE:
        raise ValueError(
            f"it holds a tensor of type {kind}; {', '.join(sorted(STORABLE))} can be read"
        )
    if not 0 <= first <= end <= size - start or end - first != math.prod(shape) * _BYTES[kind]:
        raise ValueError("a tensor reaches beyond the end of the file")
    return StoredTensor(path, start + first, end - first, kind, shape)


def _load_pickle(path: Path) -> dict[str, Tensor]:
    try:
        import torch  # an extra, and slow to import
    except ImportError:
        raise InvalidCheckpoint(
            f"{path} is a pickle, which only PyTorch can read, and PyTorch is not installed. "
            f"Convert the file to safetensors, or run: {install_command('torch')}"
        ) from None
    try:
        _check_plainly_stored(path)
        # weights_only: a pickle can run any code when loaded; this refuses everything but tensors.
        # Since it is passed explicitly, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD cannot turn it off.
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile) as damaged:
        raise InvalidCheckpoint(f"{path} is damaged or truncated: {damaged}") from damaged
    except InvalidCheckpoint:
        raise
    except Exception as refused:  # torch raises its own errors and pickle's here
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
    # Views may repeat one stored number many times; each copy would be written out in float32.
    if sum(tensor.numel() for tensor in stored.values()) > path.stat().st_size:
        raise InvalidCheckpoint(f"{path} holds tensors of more numbers than it has bytes.")
    try:
        return {
            name.removeprefix("module."): LoadedTensor(_in_float32(tensor))
            for name, tensor in stored.items()
        }
    except (RuntimeError, TypeError, ValueError) as unusual:  # sparse, quantised or empty
        raise InvalidCheckpoint(f"{path} holds tensors that are not plain: {unusual}") from unusual


def _in_float32(tensor: "torch.Tensor") -> NDArray[np.float32]:
    if tensor.is_complex():
        raise ValueError("complex numbers")
    values: NDArray[np.float32] = tensor.detach().float().numpy()
    return values


def _check_plainly_stored(path: Path) -> None:
    """Refuse an archive that unpacks to more than its size; PyTorch never compresses."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise InvalidCheckpoint(f"{path} is a compressed archive and was not loaded.")
