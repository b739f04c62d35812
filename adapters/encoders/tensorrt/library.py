"""Finds the installed TensorRT: TensorRT itself, or TensorRT for RTX."""

import importlib
import importlib.util
import logging
import os
import re
from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from adapters.system.installation import install_command
from application.ports import EncoderUnavailable

logger = logging.getLogger(__name__)

_TENSORRT: Final = "tensorrt"
_TENSORRT_RTX: Final = "tensorrt_rtx"
_OLDEST: Final = {_TENSORRT: (10, 13), _TENSORRT_RTX: (1, 3)}
"""Older versions lack calls that are used here, or call into Python without its lock."""


@dataclass(frozen=True, slots=True)
class TensorRt:
    """An installed TensorRT.

    Attributes:
        name: of its module, ``tensorrt`` or ``tensorrt_rtx``.
        version: the module's; engines of another version are never loaded.
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
        """Name and version, to label engines with."""
        return f"{self.name} {self.version}"


class Messages:
    """TensorRT's messages: passed to the log, and the last errors kept as reasons.

    TensorRT itself keeps one logger for the whole process, so there is only one of these for each
    module.
    """

    def __init__(self, trt: Any) -> None:
        severity = trt.ILogger.Severity
        levels = {
            severity.INTERNAL_ERROR: logging.ERROR,
            severity.ERROR: logging.ERROR,
            severity.WARNING: logging.WARNING,
            severity.INFO: logging.DEBUG,
            severity.VERBOSE: logging.DEBUG,
        }
        self._errors: deque[str] = deque(maxlen=8)
        errors = self._errors

        class Log(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                level = levels.get(severity, logging.DEBUG)
                if level == logging.ERROR:
                    errors.append(msg)
                # Called for every tactic tried, many thousands of times.
                if level > logging.DEBUG or logger.isEnabledFor(logging.DEBUG):
                    logger.log(level, "TensorRT: %s", msg)

        self.logger = Log()
        """The logger for TensorRT; must outlive all objects made with it."""

    def forget(self) -> None:
        """Forget the errors so far, before a call whose errors matter."""
        self._errors.clear()

    @property
    def errors(self) -> str:
        """The errors since then, the first one first."""
        return "; ".join(self._errors)

    @property
    def tell_of_memory(self) -> bool:
        """Whether one of them says that memory ran out."""
        text = self.errors.lower().replace(" ", "")
        return any(sign in text for sign in _OUT_OF_MEMORY)


_OUT_OF_MEMORY: Final = ("outofmemory", "out_of_memory", "memoryallocation", "allocationfailed")
"""TensorRT's, CUDA's and cuDNN's words for it, without spaces and in lower case."""

_messages: dict[ModuleType, Messages] = {}


def messages_of(trt: ModuleType) -> Messages:
    """The messages of a TensorRT, the same object for each call with one module."""
    if trt not in _messages:
        _messages[trt] = Messages(trt)
    return _messages[trt]


def is_installed() -> bool:
    """Whether a TensorRT can be imported; nothing is imported."""
    return any(importlib.util.find_spec(name) for name in _OLDEST)


def find_tensorrt() -> TensorRt:
    """The installed TensorRT; if both are installed, TensorRT itself, which supports every GPU.

    Raises:
        EncoderUnavailable: none is installed, or it is broken or too old; says what to do.
    """
    for name, oldest in _OLDEST.items():
        if importlib.util.find_spec(name) is None:
            continue
        if name == _TENSORRT_RTX:
            # Polygraphy reads this at its first import; otherwise it uses the other one.
            os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
        try:
            module = importlib.import_module(name)
            version = str(module.__version__)
        except Exception as broken:  # missing shared libraries raise all kinds of errors
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
