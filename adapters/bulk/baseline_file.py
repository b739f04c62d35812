"""A baseline kept in a file: the JSON that ``POST /anomaly-score`` takes, with its model's name."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from application.bulk_ports import BulkFailure
from domain.embedding import Embedding

_MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class KeptBaseline:
    """What a scene usually looks like.

    Attributes:
        embedding: the mean direction of its frames.
        threshold: anomaly score above which a frame is unusual; None if none was chosen.
        fingerprint: of the model that made the embedding; None if the file does not say.
    """

    embedding: Embedding
    threshold: float | None
    fingerprint: str | None


class _File(msgspec.Struct, omit_defaults=True):
    baseline_embedding: Annotated[list[float], msgspec.Meta(min_length=1, max_length=65_536)]
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    model_fingerprint: str | None = None


def read_baseline(path: Path) -> KeptBaseline:
    """Read a file that `write_baseline` or the page wrote.

    Raises:
        BulkFailure: it cannot be read or is no baseline.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as failure:
        raise BulkFailure(f"{path} cannot be read: {failure.strerror}.") from failure
    if len(data) > _MOST_BYTES:
        raise BulkFailure(f"{path} is no baseline: it has more than {_MOST_BYTES} bytes.")
    try:
        kept = msgspec.json.decode(data, type=_File)
    except msgspec.DecodeError as failure:
        raise BulkFailure(f"{path} is no baseline: {failure}.") from failure
    embedding = Embedding.from_numbers(
        kept.baseline_embedding, dimension=len(kept.baseline_embedding), name="baseline_embedding"
    )
    return KeptBaseline(embedding, kept.threshold, kept.model_fingerprint)


def write_baseline(path: Path, baseline: KeptBaseline) -> None:
    """Write the file in one step: a reader never sees half of it.

    Raises:
        BulkFailure: it cannot be written.
    """
    content = msgspec.json.encode(
        _File(
            baseline_embedding=[float(number) for number in baseline.embedding.vector],
            threshold=baseline.threshold,
            model_fingerprint=baseline.fingerprint,
        )
    )
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as failure:
        raise BulkFailure(f"{path} cannot be written: {failure.strerror}.") from failure
