"""Metrics for Prometheus, by its conventions for names and units."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from adapters.observability.rationing import Rationed
from application.ports import ObserverPort, Stage
from application.use_cases.health import Health, Load

_SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds: from a warm GPU's milliseconds to a busy CPU's queue."""

_FORMER_ENDPOINTS: Final = frozenset(
    ("/embed", "/anomaly-score", "/classify", "/similarity", "/batch-similarity")
)
"""The former server's endpoints, which are also counted under `_FormerNames`."""

_BYTES_PER_GIB: Final = 1024**3

_IMAGES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class PrometheusMetrics(ObserverPort):
    """Counts and times what it is told; reads the rest when it is scraped.

    Label values come from closed sets (route templates, error codes, stages), never from clients.
    """

    def __init__(self) -> None:
        self._pages: Rationed[bytes] = Rationed()
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "clip_requests",
            "Requests that have ended; outcome is ok or the error's code.",
            ("endpoint", "outcome", "status"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "clip_request_duration_seconds",
            "From a request's headers to the end of its response.",
            ("endpoint",),
            buckets=_SECONDS,
            registry=registry,
        )
        stage_seconds = Histogram(
            "clip_stage_duration_seconds",
            "What requests spend their time on: waiting for a decoder (decode_queue), decode, and "
            "for images and texts waiting for the encoder (…_queue) and being encoded (…_encode).",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._stage_seconds = {stage: stage_seconds.labels(stage) for stage in Stage}
        self._batch_images = Histogram(
            "clip_batch_size_images",
            "Images that shared a call of the image tower.",
            buckets=_IMAGES,
            registry=registry,
        )
        suspicions = Counter(
            "clip_encoder_doubts",
            "Times that the encoder became suspect and took no more requests: it failed or "
            "returned no embeddings (fault), or a call did not return in time (hanging).",
            ("cause",),
            registry=registry,
        )
        self._suspicions = {cause: suspicions.labels(cause) for cause in ("fault", "hanging")}
        reloads = Counter(
            "clip_encoder_reloads",
            "Reloads of an encoder that failed its verification; outcome is ok or failed.",
            ("outcome",),
            registry=registry,
        )
        self._reloads = {True: reloads.labels("ok"), False: reloads.labels("failed")}
        self._cache_hits = Counter(
            "clip_text_cache_hits",
            "Texts whose embedding was in the cache or already being computed.",
            registry=registry,
        )
        self._cache_misses = Counter(
            "clip_text_cache_misses", "Texts that had to be encoded.", registry=registry
        )

        def gauge(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, documentation, labels, registry=registry)

        self._queue_depth = gauge(
            "clip_queue_depth", "Images, and requests' texts, that wait for the encoder."
        )
        self._in_progress = gauge(
            "clip_requests_in_progress",
            "Requests waiting or running; one with many images or texts counts as several.",
        )
        self._limit = gauge("clip_requests_limit", "Requests that may be waiting or running.")
        self._cached_texts = gauge("clip_text_cache_entries", "Text embeddings that are kept.")
        self._ready = gauge("clip_ready", "1 if a request sent now would be accepted, else 0.")
        self._loaded = gauge("clip_model_loaded", "1 while a model is in memory, else 0.")
        self._device_bytes = gauge(
            "clip_device_memory_bytes",
            "Memory of the graphics card in use by this process; 0 without one.",
        )
        self._gpu_unused = gauge(
            "clip_gpu_unused",
            "1 if there is an NVIDIA GPU and the encoder runs on something else, although nobody "
            "asked for that; else 0. /health says why in gpu_reason.",
        )
        registry.register(_FormerNames(self._requests, self._request_seconds))
        self._former_memory = gauge(
            "clip_gpu_memory_used_gb", "clip_device_memory_bytes in GiB, by its former name."
        )
        self._former_backend = gauge(
            "clip_backend_type",
            "1, labelled with the backend: part of clip_backend_info, by its former name.",
            ("backend",),
        )
        self._backend = gauge(
            "clip_backend_info",
            "1, labelled with the encoder that is loaded, or was until it was unloaded while idle.",
            ("backend", "precision", "device", "model", "fingerprint"),
        )

    def stage_passed(self, stage: Stage, started_s: float, ended_s: float) -> None:
        """See `ObserverPort.stage_passed`."""
        self._stage_seconds[stage].observe(ended_s - started_s)

    def batch_encoded(self, images: int) -> None:
        """See `ObserverPort.batch_encoded`."""
        self._batch_images.observe(images)

    def encoder_suspected(self, cause: str) -> None:
        """See `ObserverPort.encoder_suspected`."""
        self._suspicions[cause].inc()

    def encoder_reloaded(self, *, succeeded: bool) -> None:
        """See `ObserverPort.encoder_reloaded`."""
        self._reloads[succeeded].inc()

    def texts_looked_up(self, *, hits: int, misses: int) -> None:
        """See `ObserverPort.texts_looked_up`."""
        self._cache_hits.inc(hits)
        self._cache_misses.inc(misses)

    def request_finished(self, *, endpoint: str, outcome: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            endpoint: the route's template.
            outcome: ``ok``, or the code of the error in the response.
            status: of HTTP.
            seconds: how long it took.
        """
        self._requests.labels(endpoint, outcome, str(status)).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def page(self, accept: str, *, health: Health, load: Load) -> tuple[bytes, str]:
        """The metrics as text, and its content type; under a flood of scrapes, a recent page.

        Args:
            accept: the ``Accept`` header: OpenMetrics, or Prometheus's own format.
            health: the service at this moment.
            load: its work at this moment.
        """
        encode, content_type = choose_encoder(accept)

        def render() -> bytes:
            self._read(health, load)
            return encode(self._registry)

        return self._pages.get(content_type, render), content_type

    def _read(self, health: Health, load: Load) -> None:
        self._queue_depth.set(load.queue_depth)
        self._in_progress.set(load.requests)
        self._limit.set(load.max_requests)
        self._cached_texts.set(load.cached_texts)
        self._ready.set(health.ready)
        self._loaded.set(health.model_loaded)
        self._gpu_unused.set(health.gpu_reason is not None)
        self._device_bytes.set(health.device_memory_used or 0)
        self._former_memory.set((health.device_memory_used or 0) / _BYTES_PER_GIB)
        self._backend.clear()
        self._former_backend.clear()
        if (encoder := health.encoder) is not None:
            self._backend.labels(
                encoder.backend,
                encoder.precision,
                encoder.device.name,
                encoder.model,
                encoder.fingerprint,
            ).set(1)
            self._former_backend.labels(encoder.backend).set(1)


class _FormerNames(Collector):
    """Requests under the former server's metric names, for dashboards that still use them.

    Derived from ours when they are scraped, so that requests don't pay for them.
    """

    def __init__(self, requests: Counter, seconds: Histogram) -> None:
        self._requests = requests
        self._seconds = seconds

    def collect(self) -> Iterator[Metric]:
        """The two families."""
        counts: dict[tuple[str, str], float] = {}
        for family in self._requests.collect():
            for sample in family.samples:
                endpoint = sample.labels["endpoint"]
                if sample.name.endswith("_total") and endpoint in _FORMER_ENDPOINTS:
                    key = (endpoint, "success" if sample.labels["outcome"] == "ok" else "error")
                    counts[key] = counts.get(key, 0.0) + sample.value
        former = CounterMetricFamily(
            "clip_inference_requests",
            "clip_requests_total of the first five endpoints, by its former name.",
            labels=("endpoint", "status"),
        )
        for labels, count in counts.items():
            former.add_metric(labels, count)
        yield former
        latency = HistogramMetricFamily(
            "clip_inference_latency_seconds",
            "clip_request_duration_seconds of the first five endpoints, by its former name.",
            labels=("endpoint",),
        )
        for family in self._seconds.collect():
            for sample in family.samples:
                _, _, part = sample.name.rpartition("_")
                if part != "created" and sample.labels["endpoint"] in _FORMER_ENDPOINTS:
                    latency.add_sample(f"{latency.name}_{part}", sample.labels, sample.value)
        yield latency
