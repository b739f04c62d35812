"""The composition root: every object of the service, made and joined here and nowhere else."""

from dependency_injector import containers, providers

from adapters.bulk.journal import JournalledEmbeddings
from adapters.bulk.local_files import LocalImageFiles
from adapters.encoders.selection import EncoderSelection
from adapters.encoders.tensorrt.backend import TensorRtBackend
from adapters.images.decoding_workers import DecodingWorkers, workers_possible
from adapters.images.pillow_preparation import PillowImagePreparation
from adapters.models.tokenizer import ClipTokenCounter
from adapters.observability.observers import Observers
from adapters.observability.prometheus_metrics import PrometheusMetrics
from adapters.observability.stage_times import StageTimes
from adapters.observability.tracing import start_tracing
from adapters.system.clock import SystemClock
from adapters.system.hardware import usable_cores
from adapters.system.memory import SystemMemory
from application.inference.admission import Admission
from application.inference.batcher import EncodingQueue
from application.inference.image_embeddings import ImageEmbeddings
from application.inference.image_preparation import ImagePreparation
from application.inference.inference import Inference
from application.inference.text_cache import TextEmbeddings
from application.model.encoder_recovery import EncoderRecovery
from application.model.encoder_upgrade import EncoderUpgrade
from application.model.idle_unloading import IdleUnloading
from application.model.model_lifecycle import ModelLifecycle
from application.use_cases.anomaly import ScoreAnomaly
from application.use_cases.baseline import BuildBaseline
from application.use_cases.bulk import EmbedInBulk
from application.use_cases.classify import ClassifyImage
from application.use_cases.compare import CompareSightings, CompareTexts
from application.use_cases.embed import EmbedImage, EmbedImages, EmbedInputs, EmbedTexts
from application.use_cases.health import ReportHealth, ReportLoad
from entrypoints.settings import Settings


class Container(containers.DeclarativeContainer):
    """Give it ``settings``; override a port's provider to swap the adapter behind it."""

    settings = providers.Dependency(instance_of=Settings)

    # Ports
    tensorrt = providers.Singleton(
        TensorRtBackend,
        checkpoint=settings.provided.model_path,
        embedding_dimension=settings.provided.embedding_dimension,
        upgrades=settings.provided.upgrades_to_tensorrt,
        engine_path=settings.provided.engine_path,
        precision=settings.provided.precision,
        largest_batch=settings.provided.max_batch,
        cache=settings.provided.cache,
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
    )
    image_preparation_port = (
        providers.Singleton(DecodingWorkers, workers=usable_cores())
        if workers_possible()
        else providers.Singleton(PillowImagePreparation)
    )
    token_counter = providers.Singleton(ClipTokenCounter)
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

    concurrent_calls = providers.Object(1)  # that the encoder behind the port takes
    call_timeout_s = settings.provided.encode_timeout_s

    # Application services
    admission = providers.Singleton(Admission, capacity=settings.provided.max_requests)
    model = providers.Singleton(ModelLifecycle, loader=encoder_loader)
    images = providers.Singleton(
        ImagePreparation, port=image_preparation_port, threads=usable_cores(), observer=observer
    )
    queue = providers.Singleton(
        EncodingQueue,
        model=model,
        max_batch=settings.provided.max_batch,
        concurrent_calls=concurrent_calls,
        call_timeout_s=call_timeout_s,
        observer=observer,
    )
    many_images = providers.Singleton(
        ImageEmbeddings, images=images, queue=queue, group=settings.provided.max_batch
    )
    encoder_upgrade = providers.Singleton(
        EncoderUpgrade, port=tensorrt, model=model, queue=queue, memory=memory
    )
    encoder_recovery = providers.Singleton(
        EncoderRecovery, model=model, queue=queue, memory=memory, clock=clock, observer=observer
    )
    texts = providers.Singleton(
        TextEmbeddings,
        queue=queue,
        model=model,
        capacity=settings.provided.text_cache_size,
        observer=observer,
    )
    idle_unloading = providers.Singleton(
        IdleUnloading,
        model=model,
        queue=queue,
        memory=memory,
        clock=clock,
        idle_s=settings.provided.idle_unload_s,
    )
    inference = providers.Singleton(
        Inference,
        admission=admission,
        model=model,
        idle=idle_unloading,
        images=images,
        queue=queue,
        many_images=many_images,
        texts=texts,
    )

    # Use cases
    embed_image = providers.Singleton(EmbedImage, inference=inference)
    score_anomaly = providers.Singleton(
        ScoreAnomaly,
        inference=inference,
        embedding_dimension=settings.provided.embedding_dimension,
    )
    classify_image = providers.Singleton(ClassifyImage, inference=inference)
    compare_texts = providers.Singleton(
        CompareTexts, inference=inference, max_texts=settings.provided.max_texts
    )
    embed_images = providers.Singleton(EmbedImages, inference=inference)
    embed_texts = providers.Singleton(
        EmbedTexts, inference=inference, max_texts=settings.provided.max_texts
    )
    embed_inputs = providers.Singleton(EmbedInputs, inference=inference, tokens=token_counter)
    compare_sightings = providers.Singleton(
        CompareSightings,
        inference=inference,
        embedding_dimension=settings.provided.embedding_dimension,
    )
    build_baseline = providers.Singleton(
        BuildBaseline,
        inference=inference,
        embedding_dimension=settings.provided.embedding_dimension,
    )
    embed_in_bulk = providers.Singleton(
        EmbedInBulk,
        model=model,
        images=images,
        queue=queue,
        max_batch=settings.provided.max_batch,
    )
    report_health = providers.Singleton(
        ReportHealth,
        model=model,
        upgrade=encoder_upgrade,
        admission=admission,
        embedding_dimension=settings.provided.embedding_dimension,
    )
    report_load = providers.Singleton(ReportLoad, admission=admission, queue=queue, texts=texts)


def decode_in_this_process(container: Container) -> None:
    """Decode pictures in threads of this process, for one that ends as soon as one is decoded.

    Starting a worker would take longer than the picture, and a crash harms nobody else.
    """
    container.image_preparation_port.override(providers.Singleton(PillowImagePreparation))


def close_threads(container: Container) -> None:
    """Let the encoder's threads and the decoders end once they have done what they are doing."""
    container.queue().close()
    container.images().close()
