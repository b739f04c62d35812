"""The process's log: one JSON object per line, or text for people."""

import logging
import re
import sys
from enum import StrEnum
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


def _without_colours(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    line.pop("color_message", None)  # uvicorn's copy of the message, for terminals
    return line


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that end a line or control a terminal."""


def _on_one_line(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Escape control characters, so that text from a client cannot fake a log line.

    Tracebacks are added later.
    """
    for name, value in line.items():
        if isinstance(value, str) and _CONTROL.search(value):
            line[name] = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], value)
    return line


_ABOUT_EACH_LINE: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,  # the request's id, bound by the HTTP entrypoint
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    _without_colours,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


class LogLevel(StrEnum):
    """Severity of a line; the names are those of `logging`."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """The format of the log's lines."""

    JSON = "json"
    TEXT = "text"


def configure_logging(log_format: LogFormat | None, level: LogLevel) -> None:
    """Send the log of all modules, including those of libraries, to standard error.

    Args:
        log_format: None means text on a terminal, else JSON.
        level: less severe lines are dropped.
    """
    handler = logging.StreamHandler(sys.stderr)
    terminal = sys.stderr.isatty()
    if log_format is LogFormat.TEXT or (log_format is None and terminal):
        render: list[Processor] = [
            _on_one_line,
            structlog.dev.ConsoleRenderer(
                colors=terminal,
                # The default shows local variables, and so data from clients.
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    else:
        render = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    handler.setFormatter(
        # Modules log with the standard library, since the inner layers may import nothing else.
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_ABOUT_EACH_LINE,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # A line for each HTTP request of a download adds nothing to the download's own lines.
    logging.getLogger("httpx2").setLevel(max(logging.WARNING, logging.root.level))


def _json(line: Any, **_: Any) -> str:
    return msgspec.json.encode(line, enc_hook=repr).decode()
