"""Baselines kept in a file: the JSON that ``POST /anomaly-score`` takes, with the model's name."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from application.bulk_ports import BulkFailure
from domain.embedding import Embedding
from domain.watching import KeptBaseline

_MOST_BYTES = 4 * 1024 * 1024


class _File(msgspec.Struct, omit_defaults=True):
    baseline_embedding: Annotated[list[float], msgspec.Meta(min_length=1, max_length=65_536)]
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    model_fingerprint: str | None = None
    brightness: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


_Several = Annotated[list[_File], msgspec.Meta(min_length=1, max_length=2)]


def read_baselines(path: Path) -> list[KeptBaseline]:
    """Read a file that `write_baselines` or the page wrote: one baseline, or one for each light.

    Raises:
        BulkFailure: it cannot be read or is not a baseline.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as failure:
        raise BulkFailure(f"{path} cannot be read: {failure.strerror}.") from failure
    if len(data) > _MOST_BYTES:
        raise BulkFailure(f"{path} is not a baseline: it has more than {_MOST_BYTES} bytes.")
    try:
        found = msgspec.json.decode(data, type=_File | _Several)
    except msgspec.DecodeError as failure:
        raise BulkFailure(f"{path} is not a baseline: {failure}.") from failure
    return [
        KeptBaseline(
            embedding=Embedding.from_numbers(
                kept.baseline_embedding,
                dimension=len(kept.baseline_embedding),
                name="baseline_embedding",
            ),
            threshold=kept.threshold,
            fingerprint=kept.model_fingerprint,
            brightness=kept.brightness,
        )
        for kept in ([found] if isinstance(found, _File) else found)
    ]


def write_baselines(path: Path, baselines: Sequence[KeptBaseline]) -> None:
    """Write the file in one step: a reader never sees half of it.

    Raises:
        BulkFailure: it cannot be written.
    """
    files = [
        _File(
            baseline_embedding=[float(number) for number in baseline.embedding.vector],
            threshold=baseline.threshold,
            model_fingerprint=baseline.fingerprint,
            brightness=baseline.brightness,
        )
        for baseline in baselines
    ]
    content = msgspec.json.encode(files[0] if len(files) == 1 else files)
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as failure:
        raise BulkFailure(f"{path} cannot be written: {failure.strerror}.") from failure
