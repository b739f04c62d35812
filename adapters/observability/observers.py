"""Several observers behind one port."""

from collections.abc import Sequence

from application.ports import ObserverPort, Stage


class StagesOnly(ObserverPort):
    """Passes on what requests spend their time on; another process reports the rest."""

    def __init__(self, observer: ObserverPort) -> None:
        self._observer = observer

    def stage_passed(self, stage: Stage, started_s: float, ended_s: float) -> None:
        """See `ObserverPort.stage_passed`."""
        self._observer.stage_passed(stage, started_s, ended_s)


class EncoderEventsOnly(ObserverPort):
    """Passes on what happens to the encoder; other processes report the stages of requests."""

    def __init__(self, observer: ObserverPort) -> None:
        self._observer = observer

    def batch_encoded(self, images: int) -> None:
        """See `ObserverPort.batch_encoded`."""
        self._observer.batch_encoded(images)

    def encoder_suspected(self, cause: str) -> None:
        """See `ObserverPort.encoder_suspected`."""
        self._observer.encoder_suspected(cause)

    def encoder_reloaded(self, *, succeeded: bool) -> None:
        """See `ObserverPort.encoder_reloaded`."""
        self._observer.encoder_reloaded(succeeded=succeeded)

    def texts_looked_up(self, *, hits: int, misses: int) -> None:
        """See `ObserverPort.texts_looked_up`."""
        self._observer.texts_looked_up(hits=hits, misses=misses)


class Observers(ObserverPort):
    """Passes every event to each observer, in the order given."""

    def __init__(self, *observers: ObserverPort) -> None:
        self._observers: Sequence[ObserverPort] = observers

    def stage_passed(self, stage: Stage, started_s: float, ended_s: float) -> None:
        """See `ObserverPort.stage_passed`."""
        for observer in self._observers:
            observer.stage_passed(stage, started_s, ended_s)

    def batch_encoded(self, images: int) -> None:
        """See `ObserverPort.batch_encoded`."""
        for observer in self._observers:
            observer.batch_encoded(images)

    def encoder_suspected(self, cause: str) -> None:
        """See `ObserverPort.encoder_suspected`."""
        for observer in self._observers:
            observer.encoder_suspected(cause)

    def encoder_reloaded(self, *, succeeded: bool) -> None:
        """See `ObserverPort.encoder_reloaded`."""
        for observer in self._observers:
            observer.encoder_reloaded(succeeded=succeeded)

    def texts_looked_up(self, *, hits: int, misses: int) -> None:
        """See `ObserverPort.texts_looked_up`."""
        for observer in self._observers:
            observer.texts_looked_up(hits=hits, misses=misses)
