"""Files of weights: where each tensor lies, inside of the file; or the error."""

import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.tensors import StoredTensor
from adapters.models.weights_files import read_weights

_FILE: Final = Path(tempfile.mkdtemp()) / "model.safetensors"


def run(data: bytes) -> None:
    _FILE.write_bytes(data)
    try:
        tensors = read_weights(_FILE)
    except InvalidCheckpoint:
        return
    for tensor in tensors.values():
        assert isinstance(tensor, StoredTensor)
        assert 0 <= tensor.offset <= tensor.offset + tensor.length <= len(data)


def seeds() -> Iterator[bytes]:
    def file(header: Any, weights: bytes = b"") -> bytes:
        packed = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(packed)) + packed + weights

    tensor = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    yield file({"a": tensor, "__metadata__": {"format": "pt"}}, bytes(16))
    yield file({"a": tensor | {"dtype": "BF16", "data_offsets": [0, 8]}}, bytes(8))
    yield file({"a": tensor | {"shape": [-2, -2]}}, bytes(16))
    yield file({"a": tensor | {"shape": [float("inf")]}}, bytes(16))
    yield file(b"[" * 10_000)
    yield struct.pack("<Q", 2**63)
