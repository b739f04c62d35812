"""What one request spent its time on, for its line in the request log."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeAlias

from application.ports import ObserverPort, Stage

SecondsByStage: TypeAlias = dict[Stage, float]

_OF_THIS_REQUEST: Final[ContextVar[SecondsByStage | None]] = ContextVar("stages", default=None)


class StageTimes(ObserverPort):
    """Sums up the seconds of each stage for the request in whose context the stage ran."""

    @contextmanager
    def of_request(self) -> Iterator[SecondsByStage]:
        """Yield the sums for the stages that run in the block or in tasks that it starts."""
        seconds: SecondsByStage = {}
        token = _OF_THIS_REQUEST.set(seconds)
        try:
            yield seconds
        finally:
            _OF_THIS_REQUEST.reset(token)

    def stage_passed(self, stage: Stage, started_s: float, ended_s: float) -> None:
        """See `ObserverPort.stage_passed`."""
        if (seconds := _OF_THIS_REQUEST.get()) is not None:
            seconds[stage] = seconds.get(stage, 0.0) + ended_s - started_s
