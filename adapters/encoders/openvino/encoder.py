"""Both towers on OpenVINO: a CPU, an integrated GPU or an NPU, without PyTorch."""

import hashlib
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.artifacts.checksums import record_checksums, what_changed_in
from adapters.artifacts.store import Store, Unusable, get_or_build
from adapters.encoders.openvino.quantization import int8_image_tower
from adapters.encoders.openvino.runtime import openvino
from adapters.images.preprocessing import as_pixels
from adapters.models.bundle import Bundle
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.encoder_description import encoder_description
from adapters.models.precision import Precision
from adapters.models.tokens import batches_by_length
from adapters.system.hardware import usable_cores
from adapters.system.memory import release_mapped, return_freed_memory
from application.ports import (
    Device,
    EncoderDescription,
    EncoderLost,
    EncoderPort,
    EncoderUnavailable,
    PixelBatch,
    RawEmbeddings,
    TokenCount,
)

logger = logging.getLogger(__name__)

_HINTS: Final = {Precision.FP32: "f32", Precision.FP16: "f16", Precision.BF16: "bf16"}


class OpenVinoEncoder(EncoderPort):
    """A bundle on OpenVINO."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "CPU",
        precision: Precision | None = None,
        streams: int = 1,
        store: Store | None = None,
        capabilities: Callable[[str], Collection[str]] | None = None,
    ) -> None:
        """Compile both towers.

        Args:
            bundle: graphs and weights.
            device: OpenVINO's name, such as ``CPU``, ``GPU`` or ``NPU``.
            precision: None takes bfloat16 if the device has it, else float32. With int8, the
                unquantised rest uses that too.
            streams: number of parts of a batch, each computed on its share of the cores. More
                streams encode more images per second, but take longer for a single one.
            store: where compiled and quantised models are kept for the next start; None keeps
                none.
            capabilities: a device's precisions, by OpenVINO's names; None asks OpenVINO.

        Raises:
            EncoderUnavailable: there is no such device, or it cannot run the towers.
            InvalidCheckpoint: the bundle's vocabulary is damaged, or its graph does not match its
                description.
            OSError: not even the temporary directory can be written.
        """
        self._bundle = bundle
        store = store or Store(None)
        core = openvino.Core()
        try:
            available = capabilities or (
                lambda name: core.get_property(name, "OPTIMIZATION_CAPABILITIES")
            )
            unquantised = _floating_point(available(device), device, precision)
            self._precision = precision or unquantised
            image_tower = bundle.image_tower
            if self._precision is Precision.INT8:
                image_tower = int8_image_tower(bundle, store)
            self._image_tower, self._text_tower = _compiled(
                core,
                (image_tower, bundle.text_tower),
                _Compilation(device, unquantised, streams),
                store=store,
                fingerprint=_fingerprint(bundle, self._precision),
            )
        except RuntimeError as failure:
            available_devices = ", ".join(core.available_devices) or "none"
            raise EncoderUnavailable(
                f"OpenVINO cannot run the model on CLIP_OPENVINO_DEVICE={device} "
                f"(available: {available_devices})."
            ) from failure
        side, wanted = self._image_tower.side, bundle.preprocessing.image_input.size
        if side != wanted:
            raise InvalidCheckpoint(
                f"the bundle {bundle.directory} says that images are {wanted} x {wanted} pixels "
                f"large, and its graph takes {side} x {side}."
            )
        self._tokenizer = bundle.tokenizer()
        self._description = encoder_description(
            bundle,
            backend="openvino",
            precision=str(self._precision),
            device=Device(name=device.lower(), cuda_available=False),
            fingerprint=_fingerprint(bundle, self._precision),
        )

    @property
    def description(self) -> EncoderDescription:
        """See `EncoderPort.description`."""
        return self._description

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`."""
        if len(batch) == 0:
            return self._none()
        return self._image_tower(as_pixels(batch))

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`."""
        if not texts:
            return self._none()
        tokens = self._tokenizer(texts)
        embeddings = np.empty((len(tokens), self._bundle.embedding_dimension), dtype=np.float32)
        for places, padded in batches_by_length(tokens, self._bundle.tokenization.padding):
            embeddings[places] = self._text_tower(padded)
        return embeddings

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """See `EncoderPort.count_tokens`."""
        return self._tokenizer.count(texts)

    def device_memory_used(self) -> int | None:
        """See `EncoderPort.device_memory_used`."""
        return None

    def _none(self) -> RawEmbeddings:
        return np.empty((0, self._bundle.embedding_dimension), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Compilation:
    """How graphs are compiled."""

    device: str
    precision: Precision
    streams: int

    @property
    def configuration(self) -> dict[str, Any]:
        """OpenVINO's properties."""
        configuration: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "NUM_STREAMS": self.streams,
        }
        if self.device == "CPU":
            configuration["INFERENCE_NUM_THREADS"] = usable_cores()
        return configuration


def _compiled(
    core: openvino.Core,
    graphs: Sequence[Path],
    how: _Compilation,
    *,
    store: Store,
    fingerprint: str,
) -> "list[_Tower]":
    """The compiled graphs, from the store if possible.

    OpenVINO trusts its cache: it finds models by their path, so it would use the models of another
    bundle at the same path, and it does not notice changed bytes. So each bundle and way of
    compiling has its own directory, which is checked before use.

    A compiled model repacks its weights, and also keeps the graph's own copy. From the cache, which
    only this server writes, that copy is memory-mapped, so that the system can reclaim its pages
    (see `_MappedFiles`). A bundle is read and never mapped.
    """

    def compile_with(cache: Path | None, *, mapped: bool = False) -> list[Any]:
        core.set_property({"ENABLE_MMAP": mapped, "CACHE_DIR": "" if cache is None else str(cache)})
        return [core.compile_model(str(graph), how.device, how.configuration) for graph in graphs]

    def towers_of(compiled: Sequence[Any], mapped: _MappedFiles | None = None) -> list[_Tower]:
        return [_Tower(each, how.streams, mapped) for each in compiled]

    origin = (
        fingerprint,
        openvino.__version__,
        str(graphs[0]),
        str(graphs[1].parent),
        how.device,
        how.precision,
        how.streams,
        usable_cores(),
    )
    digest = hashlib.sha256(repr(origin).encode()).hexdigest()[:16]
    if (place := store.place_of(f"compiled/{fingerprint}-{digest}")) is None:
        return towers_of(compile_with(None))
    built: list[Any] = []

    def build(directory: Path) -> None:
        built.extend(compile_with(directory))
        if len(list(directory.iterdir())) < len(graphs):
            # OpenVINO silently removes files that it could not write completely.
            _check_room(directory, sum(file.stat().st_size for file in graphs[0].parent.iterdir()))
            raise Unusable(f"OpenVINO keeps no compiled models for {how.device}.")
        record_checksums(directory)
        for file in directory.iterdir():
            file.chmod(0o400)  # a mapped file must not be changed

    try:
        kept = get_or_build(place, build=build, validate=_unchanged)
    except OSError as failure:
        store.give_up(failure)
        return towers_of(built or compile_with(None))
    except Unusable as reason:
        logger.info("nothing is kept for the next start: %s", reason)
        return towers_of(built or compile_with(None))
    if how.device != "CPU":  # other devices' use of mapped files was never measured
        return towers_of(built or compile_with(kept))
    built.clear()  # before loading the model the way the next start will
    mapped = _MappedFiles(kept)
    imported = compile_with(kept, mapped=True)
    if all(compiled.get_property("LOADED_FROM_CACHE") for compiled in imported):
        return towers_of(imported, mapped)
    # OpenVINO compares file times, and the graph's files may be newer than the compiled model.
    logger.warning("OpenVINO does not use the compiled models in %s; compiling again.", kept)
    shutil.rmtree(kept, ignore_errors=True)  # so that the next start makes them again
    del imported
    return towers_of(compile_with(None))


def _unchanged(directory: Path) -> Path:
    if (changed := what_changed_in(directory)) is not None:
        raise Unusable(changed)
    return directory


def _check_room(directory: Path, size: int) -> None:
    """Find out why a file could not be written: raises OSError if there is no room for it."""
    with tempfile.TemporaryFile(dir=directory) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(size, 1))


class _Tower:
    """A compiled graph, with one request for each stream."""

    def __init__(self, compiled: Any, streams: int, mapped: "_MappedFiles | None") -> None:
        """Make the requests.

        Args:
            compiled: OpenVINO's compiled model.
            streams: how many requests.
            mapped: the files that its constants are mapped from; None: not mapped.
        """
        self._mapped = mapped
        self._packed = False
        self._requests = [compiled.create_infer_request() for _ in range(streams)]
        shape = compiled.input(0).get_partial_shape()
        self.side = None if shape[-1].is_dynamic else shape[-1].get_length()
        """Image size in pixels; None for texts."""

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """``[n, ...]`` → float32 ``[n, dimension]``, n at least 1.

        Raises:
            EncoderLost: its mapped files were changed.
        """
        parts = np.array_split(inputs, min(len(self._requests), len(inputs)))
        running = list(zip(self._requests, parts, strict=False))
        for request, part in running:
            request.start_async([part], share_inputs=True)
        failures = [failure for request, _ in running if (failure := _failure_of(request))]
        if failures:
            raise failures[0]
        if self._mapped is not None:
            self._mapped.check()
            if not self._packed:  # the first call has packed them; the originals are not needed now
                self._mapped.release()
                self._packed = True
        # Copied here: a request reuses its output's memory in the next call.
        return np.concatenate([request.get_output_tensor().data for request, _ in running])


class _MappedFiles:
    """A compiled model's files, mapped into this process.

    If a file were overwritten in place, the few constants that are still read from it would change,
    and so would embeddings. So results are only returned if no file was written to. (Truncating one
    ends the process, and the next start compiles again.)
    """

    def __init__(self, directory: Path) -> None:
        """Record the files' state; they may be moved or removed after that."""
        self._directory = directory
        self._files = {
            os.open(file, os.O_RDONLY): _written(file.stat()) for file in directory.glob("*.blob")
        }
        for descriptor in self._files:
            weakref.finalize(self, os.close, descriptor)

    def check(self) -> None:
        """Check that they are unchanged.

        Raises:
            EncoderLost: one was written to.
        """
        if any(_written(os.fstat(file)) != before for file, before in self._files.items()):
            raise EncoderLost(
                f"the compiled model in {self._directory} was overwritten while it was served; "
                "a restart compiles it again"
            )

    def release(self) -> None:
        """Release the pages that packing needed; pages that are read again come back."""
        release_mapped(self._directory)
        return_freed_memory()


def _written(state: os.stat_result) -> tuple[int, int]:
    """A file's modification time and size, which change with every write."""
    return state.st_mtime_ns, state.st_size


def _failure_of(request: Any) -> RuntimeError | None:
    """Wait for a request to end; its failure is returned, so that the others can be awaited too."""
    try:
        request.wait()
    except RuntimeError as failure:
        return failure
    return None


def _fingerprint(bundle: Bundle, precision: Precision) -> str:
    # int8 moves embeddings by up to 0.01 in cosine; a database should not mix them with others.
    return f"{bundle.fingerprint}-int8" if precision is Precision.INT8 else bundle.fingerprint


def _floating_point(
    capabilities: Collection[str], device: str, asked: Precision | None
) -> Precision:
    """The precision of the towers' parts that are not quantised.

    Args:
        capabilities: the device's precisions, by OpenVINO's names.
        device: its name.
        asked: the setting.

    Raises:
        EncoderUnavailable: the device does not support the requested precision; OpenVINO would
            silently use another type.
    """
    if asked is None or asked is Precision.INT8:
        return Precision.BF16 if "BF16" in capabilities else Precision.FP32
    if asked.upper() not in capabilities:
        raise EncoderUnavailable(
            f"CLIP_PRECISION={asked} is not possible on CLIP_OPENVINO_DEVICE={device}; "
            f"it supports {', '.join(sorted(capabilities))}."
        )
    return asked
