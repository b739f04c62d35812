"""An embedding in fewer bytes, by fixed rules that are the same for every vector and request.

Cohere documents the ranges of its types, and that ``binary`` packs eight numbers into the bits of
one. It does not document how it scales ``int8``. Here 127 stands for 1, which no number of a unit
vector exceeds.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from domain.embedding import Embedding

_INT8_SCALE: Final = 127.0
_UNSIGNED_OFFSET: Final = 128


def _base64(embedding: Embedding) -> str:
    """The float32 numbers, little-endian, as base64."""
    return base64.b64encode(embedding.vector.astype("<f4").tobytes()).decode("ascii")


def _int8(embedding: Embedding) -> NDArray[np.int16]:
    """int16 ``[d]``, each in -127 to 127."""
    scaled = np.rint(embedding.vector * _INT8_SCALE)
    made: NDArray[np.int16] = np.clip(scaled, -_INT8_SCALE, _INT8_SCALE).astype(np.int16)
    return made


def _bits(embedding: Embedding) -> NDArray[np.int16]:
    """int16 ``[d / 8]``, each in 0 to 255: a bit for each number above zero, the first highest."""
    return np.packbits(embedding.vector > 0).astype(np.int16)


QUANTISED: Final[Mapping[str, Callable[[Embedding], list[float] | str]]] = {
    "float": lambda embedding: embedding.vector.tolist(),
    "int8": lambda embedding: _int8(embedding).tolist(),
    "uint8": lambda embedding: (_int8(embedding) + _UNSIGNED_OFFSET).tolist(),
    "binary": lambda embedding: (_bits(embedding) - _UNSIGNED_OFFSET).tolist(),
    "ubinary": lambda embedding: _bits(embedding).tolist(),
    "base64": _base64,
}
"""Converts an embedding to the type of this name."""
