"""Embeds more images than one machine can: a Ray Data job that writes a folder of Parquet files.

Reading and decoding run as tasks on any processor, the model in one actor for each accelerator; Ray
streams the images from the tasks to the actors. Every node must see the files and the output under
the same path.
"""

import asyncio
import functools
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow
import pyarrow.parquet
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

from adapters.bulk.local_files import LocalImageFiles
from adapters.bulk.table_formats import parquet_schema
from adapters.images.decoding_workers import DecodingWorkers, workers_possible
from adapters.images.pillow_preparation import PillowImagePreparation
from adapters.ray.bulk_output import BulkOutput, count_rows
from application.bulk_ports import BulkFailure, ImageFile, error_of
from application.model.states import grant
from application.ports import EncoderDescription, EncoderPort, ImageInput, ImagePreparationPort
from domain.embedding import Embedding
from domain.errors import EncoderFault, InvalidInput
from entrypoints.container import Container
from entrypoints.settings import Settings

_PREPARED_AT_A_TIME: Final = 32
"""Images that one task reads and decodes (150 KB each as pixels)."""

_ROWS_OF_A_FILE: Final = 256
"""Images that are processed together and written to one file; lost if a node dies."""

_LISTED_AT_A_TIME: Final = 100_000
"""File names in one file of the listing."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What the job may use.

    Attributes:
        encoders: actors that hold a model, at most.
        gpus: GPUs for each of them.
        cpus: processors for each of them.
    """

    encoders: float = 1
    gpus: float = 0
    cpus: float = 1


def embed_on_ray(
    paths: Sequence[str], output: Path, *, settings: Settings, resources: Resources
) -> int:
    """Run the job on the cluster that Ray is connected to.

    Args:
        paths: files, folders and patterns, or one Parquet file or folder with a column ``path``
            and, unless the images are to be read from there, a column ``image`` of their bytes.
        output: a folder; rows have the columns that ``clip-server embed`` writes.
        settings: of the model.
        resources: what the job may use.

    Returns:
        Rows in the output.

    Raises:
        BulkFailure: the output is complete already or of another model, or there are no images.
    """
    run = BulkOutput(output)
    describe = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(_describe)
    model: EncoderDescription = ray.get(describe.remote(settings))
    run.begin(model)
    listing = _parquet_input(paths) or str(_listed(paths, run.folder / "listing"))

    context = DataContext.get_current()
    # The newer reader starts 32 actors for the footers of the listing's few files.
    context.use_datasource_v2 = False
    context.checkpoint_config = CheckpointConfig(
        id_column="path",
        checkpoint_path=str(run.folder / "done"),
        delete_checkpoint_on_success=False,  # deleted only once the run is complete
    )
    (
        ray.data.read_parquet(listing, columns=_columns(listing))
        .repartition(target_num_rows_per_block=_ROWS_OF_A_FILE)
        .map_batches(
            _Prepare(settings.max_decoded_pixels, model.image_input), batch_size=_PREPARED_AT_A_TIME
        )
        .map_batches(
            _Encode,
            fn_constructor_args=(settings, model.fingerprint),
            batch_size=_PREPARED_AT_A_TIME,
            compute=ActorPoolStrategy(min_size=1, max_size=int(resources.encoders)),
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
        )
        .write_parquet(str(output))
    )
    return run.complete(count_rows(Path(listing)))


@functools.cache
def _preparation(max_pixels: int) -> tuple[ImagePreparationPort, asyncio.Runner]:
    """One decoding worker for each of Ray's processes, and its event loop; both end with it.

    A picture that crashes the decoder gets an error in its row, and the job continues.
    """
    if workers_possible():
        return DecodingWorkers(1, max_pixels=max_pixels), asyncio.Runner()
    return PillowImagePreparation(max_pixels=max_pixels), asyncio.Runner()


class _Prepare:
    """Read and decode: from paths, or the images' bytes, to eight-bit pixels."""

    def __init__(self, max_pixels: int, image_input: ImageInput) -> None:
        self._max_pixels = max_pixels
        self._image_input = image_input

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        port, runner = _preparation(self._max_pixels)
        count, side = len(batch["path"]), self._image_input.size
        levels = np.zeros((count, 3, side, side), dtype=np.uint8)
        errors = np.full(count, "", dtype=object)
        images = batch.get("image", [None] * count)
        for place, (path, image) in enumerate(zip(batch["path"], images, strict=True)):
            try:
                data = _read(str(path)) if image is None else bytes(image)
                levels[place] = runner.run(port.prepare(data, self._image_input))
            except (InvalidInput, OSError) as failure:
                errors[place] = error_of(failure)
        return {"path": batch["path"], "levels": levels, "error": errors}


class _Encode:
    """The model on one accelerator: from pixels to rows of the output."""

    def __init__(self, settings: Settings, fingerprint: str) -> None:
        self._encoder = _loaded(settings)
        self._max_batch = settings.max_batch
        if self._encoder.description.fingerprint != fingerprint:
            raise BulkFailure(
                f"this node's model has fingerprint {self._encoder.description.fingerprint} and "
                f"not {fingerprint}: all nodes need the same checkpoint."
            )

    def __call__(self, batch: dict[str, Any]) -> pyarrow.Table:
        errors: list[str | None] = [str(error) or None for error in batch["error"]]
        vectors: list[Any] = [None] * len(errors)
        fit = [place for place, error in enumerate(errors) if error is None]
        for start in range(0, len(fit), self._max_batch):
            places = fit[start : start + self._max_batch]
            rows = self._encoder.encode_images(batch["levels"][places])
            for place, row in zip(places, rows, strict=True):
                try:
                    vectors[place] = Embedding.from_encoder(row).vector
                except EncoderFault as fault:
                    errors[place] = error_of(fault)
        description = self._encoder.description
        return pyarrow.table(
            {
                "path": [str(path) for path in batch["path"]],
                "embedding": vectors,
                "error": errors,
                "model_fingerprint": [description.fingerprint] * len(errors),
            },
            schema=parquet_schema(description.fingerprint, description.embedding_dimension),
        )


def _loaded(settings: Settings) -> EncoderPort:
    model = Container(settings=settings).model()
    asyncio.run(model.load())
    return grant(model.state).encoder


def _describe(settings: Settings) -> EncoderDescription:
    return _loaded(settings).description


def _read(path: str) -> bytes:
    return LocalImageFiles([]).read(ImageFile(path, 0, 0))


def _parquet_input(paths: Sequence[str]) -> str | None:
    """The Parquet file or folder named by ``paths``; None if it is something else."""
    if len(paths) != 1:
        return None
    path = Path(paths[0])
    if path.suffix == ".parquet" or any(path.glob("*.parquet")):
        return str(path.absolute())
    return None


def _columns(listing: str) -> list[str]:
    schema = pyarrow.parquet.ParquetDataset(listing).schema
    if "path" not in schema.names:
        raise BulkFailure(f"{listing} has no column path.")
    return [name for name in ("path", "image") if name in schema.names]


def _listed(paths: Sequence[str], folder: Path) -> Path:
    """All names, sorted and unique, as Parquet: Ray can skip finished ones only in this form."""
    names = sorted({file.path for file in LocalImageFiles(paths).listing()})
    if not names:
        raise BulkFailure("there is no image in the given paths.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, part in enumerate(_parts(names)):
        table = pyarrow.table({"path": [os.path.abspath(name) for name in part]})
        pyarrow.parquet.write_table(table, folder / f"{number:06}.parquet")
    return folder


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _LISTED_AT_A_TIME):
        yield names[start : start + _LISTED_AT_A_TIME]
