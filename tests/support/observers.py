"""The fake of the observer port."""

import contextvars

from application.ports import ObserverPort, Stage

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="nobody")
"""Which request's context something is said in."""


class RecordingObserver(ObserverPort):
    """Keeps what it is told, with the request in whose context it was."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, Stage]] = []
        self.times: list[tuple[float, float]] = []
        self.batches: list[tuple[str, int]] = []
        self.lookups: list[tuple[int, int]] = []
        self.faults_and_reloads: list[str] = []

    def stage_passed(self, stage: Stage, started_s: float, ended_s: float) -> None:
        self.stages.append((REQUEST.get(), stage))
        self.times.append((started_s, ended_s))

    def batch_encoded(self, images: int) -> None:
        self.batches.append((REQUEST.get(), images))

    def texts_looked_up(self, *, hits: int, misses: int) -> None:
        self.lookups.append((hits, misses))

    def encoder_suspected(self, cause: str) -> None:
        self.faults_and_reloads.append(cause)

    def encoder_reloaded(self, *, succeeded: bool) -> None:
        self.faults_and_reloads.append("loaded" if succeeded else "not loaded")
