"""Which TensorRT is installed: TensorRT itself, or TensorRT for RTX."""

import importlib
import importlib.util
import os
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from adapters.system.installation import install_command
from application.ports import EncoderUnavailable

_TENSORRT: Final = "tensorrt"
_TENSORRT_RTX: Final = "tensorrt_rtx"
_OLDEST: Final = {_TENSORRT: (10, 12), _TENSORRT_RTX: (1, 3)}
"""Versions before these lack strongly typed networks or calls that are made here."""


@dataclass(frozen=True, slots=True)
class TensorRt:
    """An installed TensorRT.

    Attributes:
        name: of its module, ``tensorrt`` or ``tensorrt_rtx``.
        version: as the module has it; engines of another version are never loaded.
        module: the module; the two have the same interface.
    """

    name: str
    version: str
    module: ModuleType

    @property
    def for_rtx(self) -> bool:
        """Whether it is TensorRT for RTX, which builds without a GPU."""
        return self.name == _TENSORRT_RTX

    @property
    def identity(self) -> str:
        """Name and version, as engines are labelled with."""
        return f"{self.name} {self.version}"


def is_installed() -> bool:
    """Whether there is a TensorRT to import; nothing is imported."""
    return any(importlib.util.find_spec(name) for name in _OLDEST)


def find_tensorrt() -> TensorRt:
    """The installed TensorRT; where both are, TensorRT itself, which knows every GPU.

    Raises:
        EncoderUnavailable: none is installed, or it is broken or too old; says what to do.
    """
    for name, oldest in _OLDEST.items():
        if importlib.util.find_spec(name) is None:
            continue
        if name == _TENSORRT_RTX:
            # Polygraphy reads this when it is first imported, and takes the other one otherwise.
            os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
        try:
            module = importlib.import_module(name)
            version = str(module.__version__)
        except Exception as broken:  # shared libraries that are missing raise whatever they like
            raise EncoderUnavailable(f"{name} is installed but broken: {broken}") from broken
        if _numbers(version) < oldest:
            raise EncoderUnavailable(
                f"{name} {version} is too old; {'.'.join(map(str, oldest))} or newer is needed."
            )
        return TensorRt(name, version, module)
    raise EncoderUnavailable(
        f"TensorRT is not installed. Run: {install_command('tensorrt')} (or, for TensorRT for RTX, "
        "with the extra 'tensorrt-rtx')"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
