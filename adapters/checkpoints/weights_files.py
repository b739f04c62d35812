"""Reading weight files: safetensors, and pickles only in torch's restricted mode."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from adapters.checkpoints.checkpoint import InvalidCheckpoint


def first_existing(directory: Path, names: tuple[str, ...]) -> Path:
    """The first of ``names`` that lies in the directory; put the preferred one first.

    Raises:
        InvalidCheckpoint: none does.
    """
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise InvalidCheckpoint(f"{directory} holds no weights: none of {', '.join(names)} is there.")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a weights file, on the CPU.

    Raises:
        InvalidCheckpoint: damaged, or a pickle that holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights_only: a pickle can run any code when it is loaded; this refuses all but tensors.
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, RuntimeError) as damaged:
        raise InvalidCheckpoint(f"{path} is damaged or truncated: {damaged}") from damaged
    except Exception as refused:  # torch raises pickle's and its own errors here
        raise InvalidCheckpoint(
            f"{path} is not a plain file of tensors and was not loaded ({type(refused).__name__})."
        ) from refused
    if isinstance(stored, Mapping) and isinstance(stored.get("state_dict"), Mapping):
        stored = stored["state_dict"]
    if not _is_state_dict(stored):
        raise InvalidCheckpoint(f"{path} holds something other than named tensors.")
    return {name.removeprefix("module."): tensor for name, tensor in stored.items()}


def _is_state_dict(stored: Any) -> bool:
    return isinstance(stored, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in stored.items()
    )
