"""The composition root: every object of the service is created and wired here, nowhere else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from dependency_injector import containers, providers

from adapters.bulk.index_files import open_index
from adapters.bulk.journal import JournalledEmbeddings
from adapters.bulk.local_files import LocalImageFiles
from adapters.encoders.measured_upgrade import MeasuredUpgrade
from adapters.encoders.selection import EncoderSelection
from adapters.encoders.tensorrt_backend import TensorRtBackend
from adapters.images.decoding_workers import DecodingWorkers, workers_possible
from adapters.images.pillow_preparation import PillowImagePreparation
from adapters.models.hub import Download
from adapters.observability.observers import Observers
from adapters.observability.prometheus_metrics import PrometheusMetrics
from adapters.observability.stage_times import StageTimes
from adapters.observability.trace_export import start_tracing
from adapters.system.clock import SystemClock
from adapters.system.hardware import usable_cores
from adapters.system.memory import SystemMemory
from application.inference.admission import Admission
from application.inference.batcher import Batcher
from application.inference.inference import ImageEmbeddings, ImagePreparation, Inference
from application.inference.text_cache import TextEmbeddings
from application.model.supervisor import Supervisor
from application.ports import ALONE
from application.use_cases.anomaly import ScoreAnomaly
from application.use_cases.baseline import BuildBaseline
from application.use_cases.bulk import EmbedInBulk
from application.use_cases.calibrate import MeasureExamples
from application.use_cases.classify import ClassifyImage
from application.use_cases.compare import CompareSightings, CompareTexts
from application.use_cases.embed import EmbedImage, EmbedImages, EmbedInputs, EmbedTexts
from application.use_cases.health import ReportHealth, ReportLoad
from application.use_cases.search import SearchIndex
from entrypoints.settings import Settings

if TYPE_CHECKING:
    from litestar.types import ASGIApp


_CLIENTS_KEPT: Final = 256
"""Number of clients whose use cases are cached, at a few hundred bytes each."""


def _share_of_cores(processes: int) -> int:
    return max(1, usable_cores() // processes)


class Container(containers.DeclarativeContainer):
    """Needs ``settings``; override a port's provider to swap the adapter behind it."""

    settings = providers.Dependency(instance_of=Settings)

    # Ports
    download = providers.Singleton(Download)
    tensorrt = providers.Singleton(
        TensorRtBackend,
        checkpoint=settings.provided.model_path,
        embedding_dimension=settings.provided.embedding_dimension,
        upgrades=settings.provided.upgrades_to_tensorrt,
        engine_path=settings.provided.engine_path,
        precision=settings.provided.precision,
        largest_batch=settings.provided.max_batch,
        cache=settings.provided.cache,
        download=download,
    )
    encoder_loader = providers.Singleton(
        EncoderSelection,
        choice=settings.provided.encoder,
        checkpoint=settings.provided.model_path,
        embedding_dimension=settings.provided.embedding_dimension,
        precision=settings.provided.precision,
        openvino_device=settings.provided.openvino_device,
        openvino_streams=settings.provided.openvino_streams,
        cache=settings.provided.cache,
        tensorrt=tensorrt,
        download=download,
        torch_compiles=settings.provided.torch_compiles,
        require_gpu=settings.provided.require_gpu,
    )
    measured_upgrade = providers.Singleton(
        MeasuredUpgrade,
        selection=encoder_loader,
        largest_batch=settings.provided.max_batch,
    )
    # See `measure_encoders`.
    measurement: providers.Provider[MeasuredUpgrade | None] = providers.Object(None)
    # The processes that serve HTTP on this machine share its cores.
    sharing_processes = providers.Object(1)
    decoders = providers.Callable(_share_of_cores, sharing_processes)
    in_process_preparation = providers.Singleton(
        PillowImagePreparation, max_pixels=settings.provided.max_decoded_pixels
    )
    image_preparation_port = (
        providers.Singleton(
            DecodingWorkers,
            workers=decoders,
            max_pixels=settings.provided.max_decoded_pixels,
        )
        if workers_possible()
        else in_process_preparation
    )
    metrics = providers.Singleton(PrometheusMetrics)
    stage_times = providers.Singleton(StageTimes)
    tracing = providers.Singleton(
        start_tracing, wanted=settings.provided.traces, protocol=settings.provided.otlp_protocol
    )
    observer = providers.Singleton(Observers, metrics, stage_times, tracing)
    clock = providers.Singleton(SystemClock)
    memory = providers.Singleton(SystemMemory)
    image_files = providers.Factory(LocalImageFiles)
    embeddings_file = providers.Factory(JournalledEmbeddings)
    index_file = providers.Factory(open_index)

    places = providers.Object(ALONE)
    cached_texts = settings.provided.text_cache_size
    concurrent_calls = providers.Object(1)  # calls that the encoder behind the port accepts at once
    call_timeout_s = settings.provided.encode_timeout_s

    # Application services
    admission = providers.Singleton(
        Admission, capacity=settings.provided.max_requests, places=places
    )
    model = providers.Singleton(
        Supervisor,
        loader=encoder_loader,
        memory=memory,
        clock=clock,
        upgrade=tensorrt,
        measurement=measurement,
        observer=observer,
        concurrent_calls=concurrent_calls,
        call_timeout_s=call_timeout_s,
        idle_s=settings.provided.idle_unload_s,
    )
    supervise = providers.Callable(Supervisor.run, model)
    ready_to_listen = providers.Callable(asyncio.sleep, 0)  # at once; requests get 503 until loaded
    images = providers.Singleton(
        ImagePreparation, port=image_preparation_port, at_once=decoders, observer=observer
    )
    batcher = providers.Singleton(
        Batcher, model=model, max_batch=settings.provided.max_batch, observer=observer
    )
    many_images = providers.Singleton(
        ImageEmbeddings, images=images, batcher=batcher, group=settings.provided.max_batch
    )
    texts = providers.Singleton(
        TextEmbeddings,
        batcher=batcher,
        capacity=cached_texts,
        observer=observer,
    )
    inference = providers.Singleton(
        Inference,
        admission=admission,
        model=model,
        images=images,
        batcher=batcher,
        many_images=many_images,
        texts=texts,
        promised_dimension=settings.provided.embedding_dimension,
    )

    # Use cases
    embed_image = providers.Factory(EmbedImage, inference=inference)
    score_anomaly = providers.Factory(ScoreAnomaly, inference=inference)
    classify_image = providers.Factory(ClassifyImage, inference=inference)
    compare_texts = providers.Factory(
        CompareTexts, inference=inference, max_texts=settings.provided.max_texts
    )
    embed_images = providers.Factory(EmbedImages, inference=inference)
    embed_texts = providers.Factory(
        EmbedTexts, inference=inference, max_texts=settings.provided.max_texts
    )
    embed_inputs = providers.Factory(EmbedInputs, inference=inference)
    compare_sightings = providers.Factory(CompareSightings, inference=inference)
    build_baseline = providers.Factory(BuildBaseline, inference=inference)
    embed_in_bulk = providers.Singleton(
        EmbedInBulk,
        model=model,
        images=images,
        batcher=batcher,
        max_batch=settings.provided.max_batch,
    )
    search_index = providers.Singleton(SearchIndex, inference=inference)
    measure_examples = providers.Singleton(MeasureExamples, inference=inference)
    report_health = providers.Singleton(
        ReportHealth,
        model=model,
        admission=admission,
        promised_dimension=settings.provided.embedding_dimension,
    )
    report_load = providers.Singleton(ReportLoad, admission=admission, batcher=batcher, texts=texts)


def http_service(container: Container) -> "ASGIApp":
    """The HTTP service as an ASGI application; the model loads after the start."""
    # Imported here: commands that do not serve HTTP start faster without the framework.
    from entrypoints.http.app import Parts, create_app
    from entrypoints.http.routes.endpoint import UseCases

    settings, model = container.settings(), container.model()

    def fingerprint() -> str | None:
        return None if model.description is None else model.description.fingerprint

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        container.images().start()
        tasks = [asyncio.create_task(container.supervise())]
        if settings.watchdog is not None:
            health = container.report_health()
            tasks.append(asyncio.create_task(settings.watchdog.tell(lambda: health().alive)))
        try:
            await container.ready_to_listen()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await close_threads(container)
            await asyncio.to_thread(container.tracing().close)

    @lru_cache(maxsize=_CLIENTS_KEPT)
    def use_for(client: str) -> UseCases:
        inference = container.inference().asked_by(client)
        return UseCases(
            embed_image=container.embed_image(inference=inference),
            score_anomaly=container.score_anomaly(inference=inference),
            classify_image=container.classify_image(inference=inference),
            compare_texts=container.compare_texts(inference=inference),
            embed_images=container.embed_images(inference=inference),
            embed_texts=container.embed_texts(inference=inference),
            embed_inputs=container.embed_inputs(inference=inference),
            compare_sightings=container.compare_sightings(inference=inference),
            build_baseline=container.build_baseline(inference=inference),
            report_health=container.report_health(),
            ensemble_by_default=settings.use_ensemble,
            checks_openai_texts=settings.openai_text_checks,
            dialects=settings.dialects,
            configured_model=_model_name(settings.model_path),
            configured_backend=settings.encoder.value,
        )

    parts = Parts(
        use=use_for(""),
        use_for=use_for,
        report_load=container.report_load(),
        admission=container.admission(),
        fingerprint=fingerprint,
        metrics=container.metrics(),
        stages=container.stage_times(),
        tracing=container.tracing(),
        lifespan=lifespan,
    )
    return create_app(settings, parts)


def _model_name(model_path: str) -> str:
    """The last part of the name of a folder or hub model, without its revision."""
    return model_path.rstrip("/").rpartition("/")[2].partition("@")[0] or model_path


def decode_in_this_process(container: Container) -> None:
    """Decode pictures in threads of this process, for commands that end after one picture.

    Starting a worker would take longer than the picture, and a crash affects nothing else.
    """
    container.image_preparation_port.override(container.in_process_preparation)


def measure_encoders(container: Container) -> None:
    """Let the encoders be measured while the server is idle, unless the settings forbid it.

    For a server's process that owns the model; call it before the supervisor is created. Commands
    end too soon or are always busy, and other processes have no model.
    """
    if container.settings().measure_encoders:
        container.measurement.override(container.measured_upgrade)


async def close_threads(container: Container) -> None:
    """Stop the encoder's threads once they have finished their work, and the decoders at once."""
    container.model().close()
    await container.images().close()
