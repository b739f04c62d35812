"""Finds the fastest runtime on this processor by measuring while the server is idle."""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from adapters.artifacts.store import reason_of
from adapters.encoders.kept_choice import can_keep, keep_choice, kept_choice
from adapters.encoders.measuring import (
    BUSY,
    POLITE,
    TEXTS,
    Candidate,
    Figures,
    MeasuringStopped,
    Order,
    considered_by_auto,
    fastest_runtime,
    measure,
)
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.images.photos import samples
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.reading import fetched, read_checkpoint
from adapters.system.hardware import memory
from application.ports import (
    EncoderDescription,
    EncoderMeasurementPort,
    EncoderPort,
    EncoderUnavailable,
    ImageInput,
    PixelBatch,
)
from domain.embedding import Embedding

logger = logging.getLogger(__name__)

_GIB: Final = 1024**3

_COPIES: Final = 3
"""There must be free memory for this many copies of the weights in float32: a runtime needs them
while it loads and converts the weights, beside the serving encoder."""

_LIBRARY_BYTES: Final = 512 * 1024**2
"""Memory that a runtime needs with any model."""


_TRIES: Final = 5
"""How often to try on a busy machine."""


def available_memory() -> int | None:
    """Free memory in bytes; None if the system does not report it."""
    return None if (found := memory()) is None else found.available


@dataclass(slots=True)
class MeasuredUpgrade(EncoderMeasurementPort):
    """Measures the candidates of ``CLIP_ENCODER=auto``, and loads the fastest.

    Attributes:
        selection: loaded the serving encoder.
        largest_batch: images in a full batch.
        available: returns the free memory in bytes; None: unknown. Tests replace it.
        measure_one: measures a candidate in its own process. Tests replace it.
    """

    selection: EncoderSelection
    largest_batch: int = 8
    available: Callable[[], int | None] = available_memory
    measure_one: Callable[[Order, threading.Event], Figures] = lambda order, stop: measure(
        order, stop=stop
    )
    _measured: dict[Candidate, Figures | None] = field(default_factory=dict)
    _busy: int = 0
    _settled: bool = False

    def wanted(self, serving: EncoderDescription) -> bool:
        """See `EncoderUpgradePort.wanted`: true if there is a choice and no result is kept yet."""
        selection = self.selection
        if self._settled or selection.choice is not EncoderChoice.AUTO or selection.cache is None:
            return False
        considered = considered_by_auto(selection)
        # If the serving encoder is not the first one, the first cannot serve this model.
        if len(considered) < 2 or considered[0].encoder != serving.backend:
            return False
        precision = considered[0].precision
        if kept_choice(selection.cache, selection.checkpoint, precision) is not None:
            return False
        try:
            self._check_memory()
        except InvalidCheckpoint:
            return False  # a bundle, which only OpenVINO can serve
        except EncoderUnavailable as unavailable:
            logger.info("not measuring which encoder is the fastest here: %s", unavailable)
            return False
        return can_keep(selection.cache)

    def samples(self, image_input: ImageInput) -> PixelBatch:
        """See `EncoderUpgradePort.samples`."""
        return samples(image_input)

    def texts(self) -> Sequence[str]:
        """See `EncoderUpgradePort.texts`."""
        return TEXTS

    def measure(self, serving: EncoderDescription, stop: threading.Event) -> bool | None:
        """See `EncoderMeasurementPort.measure`."""
        considered = considered_by_auto(self.selection)
        for candidate in considered:
            if candidate in self._measured:
                continue
            try:
                figures = self._figures(candidate, stop)
            except MeasuringStopped:
                return None
            except EncoderUnavailable as unavailable:
                logger.warning("%s cannot be measured: %s", candidate.name, unavailable)
                figures = None
            if figures is not None and figures.waited > BUSY:
                self._wait_for_the_others(figures.waited)
                return None
            self._measured[candidate] = figures
        measured = {each: found for each, found in self._measured.items() if found is not None}
        return fastest_runtime(considered, measured, self.largest_batch) != serving.backend

    def build(self, serving: EncoderPort, expected: Sequence[Embedding]) -> EncoderPort:
        """See `EncoderUpgradePort.build`."""
        self._check_memory()  # there may be less now than before
        backend = serving.description.backend
        faster = next(
            each for each in considered_by_auto(self.selection) if each.encoder != backend
        )
        return replace(self.selection, choice=faster.encoder, precision=faster.precision).load()

    def keep(self, encoder: EncoderDescription) -> None:
        """See `EncoderMeasurementPort.keep`."""
        self._settled = True
        selection, precision = self.selection, self.selection.processor_precision
        assert selection.cache is not None  # without a cache nothing is measured
        try:
            keep_choice(selection.cache, selection.checkpoint, precision, encoder.backend)
        except OSError as failure:
            logger.warning(
                "the fastest encoder cannot be saved, so it is measured again at the next start: "
                "%s",
                reason_of(failure),
            )
            return
        logger.info(
            "CLIP_ENCODER=auto uses %s in %s from now on; to measure again, run: clip-server "
            "doctor --measure",
            encoder.backend,
            encoder.precision,
        )

    def _check_memory(self) -> None:
        """Check that there is enough memory for a second encoder.

        Without it, the server would be killed for lack of memory, and again after each restart.

        Raises:
            EncoderUnavailable: there is too little memory.
            InvalidCheckpoint: see `_bytes_of_weights`.
        """
        needed = _COPIES * _bytes_of_weights(self.selection.checkpoint) + _LIBRARY_BYTES
        available = self.available()
        if available is not None and available < needed:
            raise EncoderUnavailable(
                f"loading another one needs {needed / _GIB:.1f} GiB of memory, but only "
                f"{available / _GIB:.1f} GiB are free. Free some memory and run: clip-server "
                "doctor --measure"
            )

    def _wait_for_the_others(self, waited: float) -> None:
        self._busy += 1
        if self._busy == _TRIES:
            self._settled = True
            raise EncoderUnavailable(
                "other programs keep the cores too busy to measure which encoder is the fastest. "
                "When the machine is idle, run: clip-server doctor --measure"
            )
        logger.info(
            "measurement discarded: other programs used the cores for %.0f %% of the time",
            100 * waited,
        )

    def _figures(self, candidate: Candidate, stop: threading.Event) -> Figures:
        logger.info("measuring %s while the server is idle", candidate.name)
        sizes = tuple(dict.fromkeys((1, self.largest_batch)))
        order = Order(
            candidate, self.selection.checkpoint, str(self.selection.cache), sizes, POLITE
        )
        figures = self.measure_one(order, stop)
        rates = (f"{rate:.3g} with {size} at once" for size, rate in figures.per_second.items())
        logger.info("%s, images a second: %s", candidate.name, ", ".join(rates))
        return figures


def _bytes_of_weights(source: str) -> int:
    """The size of the weights in float32. Reads only the headers of the files.

    Raises:
        InvalidCheckpoint: it is not a checkpoint with its own weights.
    """
    weights = read_checkpoint(fetched(source)).weights
    return 4 * sum(math.prod(tensor.shape) for tensor in weights.values())
