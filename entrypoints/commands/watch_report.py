"""The output of ``clip-server watch``."""

import json
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

import click

from adapters.watching.records import as_record
from application.watch_ports import WatchedFrame, WatchReporterPort
from entrypoints.commands.terminal import as_json, shown

_STATE_EACH_S: Final = 60.0
_SHOWN_EACH_S: Final = 0.2
"""How often a terminal's line of progress changes."""

_REPEATED_AFTER_S: Final = 60.0
"""Seconds until the same problem of the same source is reported again."""


@dataclass(slots=True)
class _Tally:
    frames: int = 0
    skipped: int = 0
    alarms: int = 0
    errors: int = 0
    last: WatchedFrame | None = None


class WatchReport(WatchReporterPort):
    """Alarms and JSON lines go to standard output, progress and problems to standard error.

    On a terminal, progress is one line that changes; in a log, a line each minute.
    """

    def __init__(self, *, json_wanted: bool, output: Path | None) -> None:
        """Set the outputs.

        Args:
            json_wanted: a JSON line for each frame on standard output.
            output: a file to append these lines to.
        """
        self._json_wanted = json_wanted
        self._output = output
        self._file: TextIO | None = None
        self._tallies: dict[str, _Tally] = {}
        self._on_terminal = sys.stderr.isatty()
        self._reported_s = time.monotonic()
        self._said: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()  # sources report problems from their threads

    def __enter__(self) -> Self:
        if self._output is not None:
            try:
                self._file = self._output.open("a", encoding="utf-8", buffering=1)
            except OSError as failure:
                raise click.UsageError(
                    f"{self._output} cannot be written: {failure.strerror}."
                ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._clear()
        for line in self._state():
            click.echo(line, err=True)
        if self._file is not None:
            self._file.close()

    def frame(self, frame: WatchedFrame) -> None:
        """See `WatchReporterPort.frame`."""
        with self._lock:
            self._count(frame)
            record = as_record(frame)
            if self._json_wanted:
                click.echo(as_json(record))
            elif frame.alarm:
                self._clear()
                click.secho(_alarm_line(frame), bold=True)
            if self._file is not None:
                self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            if frame.error is not None and not self._json_wanted:
                self._clear()
                click.echo(f"{shown(frame.path or frame.source)}: {frame.error}", err=True)
            self._progress()

    def trouble(self, source: str, what: str) -> None:
        """See `WatchReporterPort.trouble`."""
        with self._lock:
            now_s = time.monotonic()
            # If only the length of the next pause changed, there is nothing new to report.
            kind = (source, what.rsplit(" in ", 1)[0])
            if now_s < self._said.get(kind, -_REPEATED_AFTER_S) + _REPEATED_AFTER_S:
                return
            self._said = {
                each: at_s for each, at_s in self._said.items() if at_s + _REPEATED_AFTER_S > now_s
            } | {kind: now_s}
            self._clear()
            click.echo(f"{shown(source)}: {what}", err=True)

    def _count(self, frame: WatchedFrame) -> None:
        tally = self._tallies.setdefault(frame.source, _Tally())
        tally.frames += 1
        tally.skipped += frame.skipped
        tally.alarms += frame.alarm
        tally.errors += frame.error is not None
        tally.last = frame

    def _progress(self) -> None:
        now_s = time.monotonic()
        if now_s < self._reported_s + (_SHOWN_EACH_S if self._on_terminal else _STATE_EACH_S):
            return
        self._reported_s = now_s
        if not self._on_terminal:
            for line in self._state():
                click.echo(line, err=True)
        elif not (self._json_wanted and sys.stdout.isatty()):
            click.echo(f"\r\x1b[K{'  '.join(self._state())}"[:500], nl=False, err=True)

    def _state(self) -> list[str]:
        return [_state_line(source, tally) for source, tally in self._tallies.items()]

    def _clear(self) -> None:
        if self._on_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)  # clears the line


def _state_line(source: str, tally: _Tally) -> str:
    said = [f"{tally.frames} frames"]
    last = tally.last
    if last is not None and last.anomaly_score is not None and last.threshold is not None:
        said.append(f"score {last.anomaly_score:.3f} of {last.threshold:.3f}")
    elif last is not None and last.learned is not None:
        built = last.threshold is not None
        said.append(
            f"baseline built, threshold {last.threshold:.3f}" if built else "building the baseline"
        )
    said.append(f"{tally.alarms} alarms")
    said += [f"{tally.skipped} skipped"] if tally.skipped else []
    said += [f"{tally.errors} without a score"] if tally.errors else []
    return f"{shown(source)}: {', '.join(said)}"


def _alarm_line(frame: WatchedFrame) -> str:
    local = frame.time.astimezone()
    parts = [
        local.strftime("%Y-%m-%d %H:%M:%S"),
        shown(frame.path or frame.source),
        f"ALARM: score {frame.anomaly_score:.3f} is above {frame.threshold:.3f}",
    ]
    if frame.scores:
        label, score = max(frame.scores.items(), key=lambda pair: pair[1])
        parts.append(f"{shown(label)} {score:.0%}")
    if frame.nearest is not None:
        parts.append(f"most like {shown(frame.nearest[0])} ({frame.nearest[1]:.2f})")
    return "  ".join(parts)
