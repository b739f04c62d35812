"""Metrics for Prometheus, by its conventions for names and units."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.multiprocess import MultiProcessCollector
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

    def __init__(self, *, of_all_processes: bool = False) -> None:
        """Count from zero, or go on.

        Args:
            of_all_processes: whether a page has the counts of all processes that serve together
                (prometheus_client's multiprocess mode), or of this one.
        """
        self._pages: Rationed[bytes] = Rationed()
        page = self._registry = CollectorRegistry()
        ProcessCollector(registry=page)
        registry = CollectorRegistry()
        counts = _OfAllProcesses() if of_all_processes else registry
        page.register(_Counted(counts.collect))
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

        self._now = _AtThisMoment()
        page.register(self._now)

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
            self._now.read(health, load)
            return encode(self._registry)

        return self._pages.get(content_type, render), content_type


class _AtThisMoment(Collector):
    """What the service is doing when the page is made."""

    def __init__(self) -> None:
        self._health: Health | None = None
        self._load: Load | None = None

    def read(self, health: Health, load: Load) -> None:
        """What the next page says."""
        self._health, self._load = health, load

    def collect(self) -> Iterator[Metric]:
        """The gauges; none before the first page."""
        health, load = self._health, self._load
        if health is None or load is None:
            return
        for name, documentation, value in (
            (
                "clip_queue_depth",
                "Images, and requests' texts, that wait for the encoder.",
                load.queue_depth,
            ),
            (
                "clip_requests_in_progress",
                "Requests waiting or running; one with many images or texts counts as several.",
                load.requests,
            ),
            ("clip_requests_limit", "Requests that may be waiting or running.", load.max_requests),
            ("clip_text_cache_entries", "Text embeddings that are kept.", load.cached_texts),
            ("clip_ready", "1 if a request sent now would be accepted, else 0.", health.ready),
            ("clip_model_loaded", "1 while a model is in memory, else 0.", health.model_loaded),
            (
                "clip_device_memory_bytes",
                "Memory of the graphics card in use by this process; 0 without one.",
                health.device_memory_used or 0,
            ),
            (
                "clip_gpu_unused",
                "1 if there is an NVIDIA GPU and the encoder should use it but does not, else 0. "
                "gpu_reason in /health says why.",
                health.gpu_reason is not None,
            ),
            (
                "clip_gpu_memory_used_gb",
                "clip_device_memory_bytes in GiB, by its former name.",
                (health.device_memory_used or 0) / _BYTES_PER_GIB,
            ),
        ):
            yield GaugeMetricFamily(name, documentation, value=value)
        former = GaugeMetricFamily(
            "clip_backend_type",
            "1, labelled with the backend: part of clip_backend_info, by its former name.",
            labels=("backend",),
        )
        info = GaugeMetricFamily(
            "clip_backend_info",
            "1, labelled with the encoder that is loaded, or was until it was unloaded while idle.",
            labels=("backend", "precision", "device", "model", "fingerprint"),
        )
        if (encoder := health.encoder) is not None:
            former.add_metric((encoder.backend,), 1)
            info.add_metric(
                (
                    encoder.backend,
                    encoder.precision,
                    encoder.device.name,
                    encoder.model,
                    encoder.fingerprint,
                ),
                1,
            )
        yield former
        yield info


class _OfAllProcesses(Collector):
    """What all processes that serve together have counted, those included that have ended."""

    def __init__(self) -> None:
        self._files = MultiProcessCollector(None)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        """The counters and histograms."""
        yield from self._files.collect()  # type: ignore[no-untyped-call]


class _Counted(Collector):
    """What was counted and timed, and some of it again under the former server's metric names.

    Those are derived when they are scraped, so that requests don't pay for them.
    """

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """The families, each read once."""
        counted = {family.name: family for family in self._families()}
        yield from counted.values()
        counts: dict[tuple[str, str], float] = {}
        if (requests := counted.get("clip_requests")) is not None:
            for sample in requests.samples:
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
        if (seconds := counted.get("clip_request_duration_seconds")) is not None:
            for sample in seconds.samples:
                _, _, part = sample.name.rpartition("_")
                if part != "created" and sample.labels["endpoint"] in _FORMER_ENDPOINTS:
                    latency.add_sample(f"{latency.name}_{part}", sample.labels, sample.value)
        yield latency
