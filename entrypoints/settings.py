"""The environment, read and checked here and nowhere else."""

import difflib
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from adapters.encoders.precision import Precision
from adapters.encoders.selection import EncoderChoice
from domain.limits import DEFAULT_MAX_TEXTS, EMBEDDING_DIMENSION, MAX_BODY_BYTES
from entrypoints.http.middleware.auth import ApiKeys, key_problem
from entrypoints.logs import LogFormat
from entrypoints.server.tls import Tls, UnusableTls
from entrypoints.server.watchdog import Watchdog

_T = TypeVar("_T")

_WARN_ABOVE_TEXTS: Final = 1000
_LEAST_BODY_MIB: Final = MAX_BODY_BYTES // 1024**2
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class InvalidSetting(Exception):
    """A variable has a value that is not allowed; one line that names all three.

    Where the value is secret the line does not have it.
    """


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured, checked.

    Attributes:
        model_path: ``CLIP_MODEL_PATH``, the checkpoint.
        host: ``HOST``, the address to bind.
        port: ``PORT``, the port to bind; 0 takes a free one.
        encoder: ``CLIP_ENCODER``, which encoder.
        precision: ``CLIP_PRECISION``; None takes the fastest that needs no calibration.
        openvino_device: ``CLIP_OPENVINO_DEVICE``, OpenVINO's name of the device.
        openvino_streams: ``CLIP_OPENVINO_STREAMS``, parts of a batch computed side by side.
        cache: ``CLIP_CACHE_DIR``, for bundles and compiled models; None keeps nothing.
        use_tensorrt: ``CLIP_USE_TENSORRT``, whether TensorRT is wanted where it can run.
        engine_path: ``CLIP_ENGINE_PATH``; None takes the contract's, or the cache where its
            directory does not exist.
        embedding_dimension: ``CLIP_EMBEDDING_DIMENSION``, floats per embedding that are promised.
        max_texts: ``CLIP_MAX_BATCH_TEXTS_SIZE``, texts per batch similarity.
        max_batch: ``CLIP_MAX_BATCH_SIZE``, images per call of the image tower.
        text_cache_size: ``CLIP_TEXT_CACHE_SIZE``, text embeddings that are kept.
        max_requests: ``CLIP_MAX_REQUESTS``, requests waiting or running before 503.
        max_connections: ``CLIP_MAX_CONNECTIONS``, connections open at once.
        max_body_memory_mib: ``CLIP_MAX_BODY_MEMORY_MIB``, MiB that the bodies of all requests that
            are being received or answered may hold.
        encode_timeout_s: ``CLIP_ENCODE_TIMEOUT_SECONDS`` after which a call of the encoder counts
            as hanging; None: never.
        shutdown_grace_s: ``CLIP_SHUTDOWN_GRACE_SECONDS``, for requests to finish in on SIGTERM.
        idle_unload_s: ``CLIP_IDLE_UNLOAD_SECONDS`` without requests until the model is unloaded;
            None keeps it.
        api_keys: ``CLIP_API_KEYS``, one of which a request must have; None lets all in.
        cors_origins: ``CLIP_CORS_ORIGINS``, websites whose pages may ask; ``*`` is all of them.
        tls: ``CLIP_TLS_CERTIFICATE`` and what belongs to it; None serves without TLS.
        serves_metrics: ``CLIP_METRICS_ENABLED``, whether there is ``/metrics``.
        serves_docs: ``CLIP_DOCS_ENABLED``, whether there is ``/docs``.
        serves_page: ``CLIP_PAGE_ENABLED``, whether there is the page at ``/``.
        watchdog: systemd's, where it has one for this process.
        log_format: ``CLIP_LOG_FORMAT``; None takes text on a terminal, else JSON.
        log_level: ``CLIP_LOG_LEVEL``, of `logging`.
        traces: whether the standard ``OTEL_*`` variables ask for traces.
        otlp_protocol: ``OTEL_EXPORTER_OTLP_PROTOCOL``, or the one for traces only.
        profile: ``PYROSCOPE_ENABLED``, whether to profile where it can be done.
        pyroscope_url: ``PYROSCOPE_URL``, where profiles go.
        environment: ``ENVIRONMENT``, the profiles' tag.
        warnings: what is allowed but looks wrong, to be logged at the start.
    """

    model_path: str
    host: str
    port: int
    encoder: EncoderChoice
    precision: Precision | None
    openvino_device: str
    openvino_streams: int
    cache: Path | None
    use_tensorrt: bool
    engine_path: Path | None
    embedding_dimension: int
    max_texts: int
    max_batch: int
    text_cache_size: int
    max_requests: int
    max_connections: int
    max_body_memory_mib: int
    encode_timeout_s: float | None
    shutdown_grace_s: float
    idle_unload_s: float | None
    api_keys: ApiKeys | None
    cors_origins: tuple[str, ...]
    tls: Tls | None
    serves_metrics: bool
    serves_docs: bool
    serves_page: bool
    watchdog: Watchdog | None
    log_format: LogFormat | None
    log_level: int
    traces: bool
    otlp_protocol: str
    profile: bool
    pyroscope_url: str
    environment: str
    warnings: tuple[str, ...]

    @property
    def upgrades_to_tensorrt(self) -> bool:
        """Whether TensorRT is to take over where it can run; a pinned encoder stays."""
        return self.use_tensorrt and self.encoder is EncoderChoice.AUTO


def read_settings(
    environment: Mapping[str, str] | None = None, *, find_home: Callable[[], Path] = Path.home
) -> Settings:
    """Read and check every variable.

    Args:
        environment: instead of the process's own.
        find_home: the user's home directory; raises RuntimeError where there is none.

    Raises:
        InvalidSetting: one of them has a value that is not allowed.
    """
    variables = _Variables(os.environ if environment is None else environment)
    read = variables.read
    max_texts = read("CLIP_MAX_BATCH_TEXTS_SIZE", DEFAULT_MAX_TEXTS, _integer(1))
    return Settings(
        model_path=read("CLIP_MODEL_PATH", "/models/clip-vit-l", _text),
        host=read("HOST", "0.0.0.0", _text),  # noqa: S104 as the contract has it
        port=read("PORT", 8093, _integer(0, 65535)),
        encoder=read("CLIP_ENCODER", EncoderChoice.AUTO, _encoder),
        precision=read("CLIP_PRECISION", None, _precision),
        openvino_device=read("CLIP_OPENVINO_DEVICE", "CPU", _text),
        openvino_streams=read("CLIP_OPENVINO_STREAMS", 1, _integer(1, 64)),
        cache=read("CLIP_CACHE_DIR", _default_cache(variables, find_home), _cache),
        use_tensorrt=read("CLIP_USE_TENSORRT", True, _boolean),
        engine_path=read("CLIP_ENGINE_PATH", None, _path),
        embedding_dimension=read(
            "CLIP_EMBEDDING_DIMENSION", EMBEDDING_DIMENSION, _integer(1, 65536)
        ),
        max_texts=max_texts,
        max_batch=read("CLIP_MAX_BATCH_SIZE", 8, _integer(1, 1024)),
        text_cache_size=read("CLIP_TEXT_CACHE_SIZE", 4096, _integer(0)),
        max_requests=read("CLIP_MAX_REQUESTS", 64, _integer(1)),
        max_connections=read("CLIP_MAX_CONNECTIONS", 1000, _integer(1)),
        max_body_memory_mib=read("CLIP_MAX_BODY_MEMORY_MIB", 256, _integer(_LEAST_BODY_MIB)),
        encode_timeout_s=read("CLIP_ENCODE_TIMEOUT_SECONDS", 120.0, _seconds) or None,
        shutdown_grace_s=read("CLIP_SHUTDOWN_GRACE_SECONDS", 30.0, _seconds),
        idle_unload_s=read("CLIP_IDLE_UNLOAD_SECONDS", 0.0, _seconds) or None,
        api_keys=variables.read_secret("CLIP_API_KEYS", _api_keys),
        cors_origins=read("CLIP_CORS_ORIGINS", (), _origins),
        tls=_tls(variables),
        serves_metrics=read("CLIP_METRICS_ENABLED", True, _boolean),
        serves_docs=read("CLIP_DOCS_ENABLED", True, _boolean),
        serves_page=read("CLIP_PAGE_ENABLED", True, _boolean),
        watchdog=_watchdog(variables),
        log_format=read("CLIP_LOG_FORMAT", None, _log_format),
        log_level=read("CLIP_LOG_LEVEL", logging.INFO, _log_level),
        traces=_traces_wanted(variables),
        otlp_protocol=variables.foreign("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or variables.foreign("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf",
        profile=read("PYROSCOPE_ENABLED", True, _boolean),
        pyroscope_url=read("PYROSCOPE_URL", "http://pyroscope:4040", _url),
        environment=read("ENVIRONMENT", "production", _text),
        warnings=(*_size_warning(max_texts), *variables.misspelt()),
    )


class _Variables:
    """Looks variables up and remembers which names exist."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._known: set[str] = set()

    def read(self, name: str, default: _T, parse: Callable[[str], _T]) -> _T:
        """The parsed value; the default where the variable is unset or empty."""
        self._known.add(name)
        value = self._environment.get(name, "").strip()
        if not value:
            return default
        try:
            return parse(value)
        except ValueError as reason:
            raise InvalidSetting(f"{name}={value!r} is not allowed: {reason}.") from None

    def read_secret(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        """The parsed value, as it was set; None where it is unset or empty. Never repeats it."""
        self._known.add(name)
        value = self._environment.get(name, "")
        if not value:
            return None
        try:
            return parse(value)
        except ValueError as reason:
            raise InvalidSetting(f"{name} is not allowed: {reason}.") from None

    def foreign(self, name: str) -> str | None:
        """A variable that belongs to the system and not to this service."""
        return self._environment.get(name)

    def misspelt(self) -> list[str]:
        """A warning for each ``CLIP_`` variable that means nothing."""
        warnings = []
        for name in sorted(self._environment):
            if name.startswith("CLIP_") and name not in self._known:
                close = difflib.get_close_matches(name, self._known, n=1)
                hint = f"; did you mean {close[0]}?" if close else "."
                warnings.append(f"{name} is set but means nothing{hint}")
        return warnings


def _size_warning(max_texts: int) -> list[str]:
    if max_texts <= _WARN_ABOVE_TEXTS:
        return []
    return [
        f"CLIP_MAX_BATCH_TEXTS_SIZE={max_texts} is above {_WARN_ABOVE_TEXTS}: "
        "one such request keeps the encoder from all others for a long time."
    ]


def _default_cache(variables: "_Variables", find_home: Callable[[], Path]) -> Path | None:
    try:
        parent = variables.foreign("XDG_CACHE_HOME") or find_home() / ".cache"
    except RuntimeError:
        # A user without an account, as containers and systemd have them: nowhere to keep anything.
        return None
    return Path(parent) / "clip-embedding-server"


def _traces_wanted(variables: "_Variables") -> bool:
    """As the OpenTelemetry specification has it, but off unless a collector is named."""
    exporter = variables.foreign("OTEL_TRACES_EXPORTER")
    if exporter == "none" or (variables.foreign("OTEL_SDK_DISABLED") or "").lower() == "true":
        return False
    return bool(
        exporter
        or variables.foreign("OTEL_EXPORTER_OTLP_ENDPOINT")
        or variables.foreign("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )


def _tls(variables: "_Variables") -> Tls | None:
    names = {
        "certificate": "CLIP_TLS_CERTIFICATE",
        "key": "CLIP_TLS_KEY",
        "client_ca": "CLIP_TLS_CLIENT_CA",
    }
    files = {part: variables.read(name, None, _path) for part, name in names.items()}
    password = variables.read_secret("CLIP_TLS_KEY_PASSWORD", _text)
    certificate = files["certificate"]
    if certificate is None:
        given = [names[part] for part, path in files.items() if path is not None]
        given += ["CLIP_TLS_KEY_PASSWORD"] if password else []
        if given:
            raise InvalidSetting(
                f"{given[0]} is set but CLIP_TLS_CERTIFICATE is not; TLS needs both."
            )
        return None
    for part, path in files.items():
        if path is not None and not path.is_file():
            raise InvalidSetting(
                f"{names[part]}={str(path)!r} is not allowed: there is no such file."
            )
    tls = Tls(certificate, files["key"], password, files["client_ca"])
    try:
        tls.check()
    except UnusableTls as unusable:
        raise InvalidSetting(
            f"{names[unusable.part]}={str(files[unusable.part])!r} is not allowed: "
            f"{unusable.reason}."
        ) from None
    return tls


def _api_keys(value: str) -> ApiKeys:
    keys = [key.strip() for key in value.split(",")]
    for place, key in enumerate(keys, start=1):
        if (problem := key_problem(key)) is not None:
            raise ValueError(f"of its keys, separated by commas, number {place} is none: {problem}")
    return ApiKeys(keys)


def _origins(value: str) -> tuple[str, ...]:
    origins = tuple(origin.strip().lower() for origin in value.split(","))
    for origin in origins:
        parts = urlsplit(origin)
        plain = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if origin != "*" and (
            not plain or "*" in origin or origin != f"{parts.scheme}://{parts.netloc}"
        ):
            raise ValueError(
                "it must be * or origins such as https://cameras.example:8443, without a path and "
                "separated by commas"
            )
    return origins


def _watchdog(variables: "_Variables") -> Watchdog | None:
    address = variables.foreign("NOTIFY_SOCKET") or ""
    microseconds = variables.foreign("WATCHDOG_USEC") or ""
    if not address or not microseconds.isdecimal() or not int(microseconds):
        return None
    return Watchdog(address, int(microseconds) / 1_000_000)


def _text(value: str) -> str:
    return value


def _path(value: str) -> Path:
    return Path(value).expanduser()


def _cache(value: str) -> Path | None:
    return None if value.lower() == "none" else Path(value).expanduser()


def _precision(value: str) -> Precision | None:
    if value == "auto":
        return None
    try:
        return Precision(value)
    except ValueError:
        raise ValueError(f"it must be one of auto, {', '.join(Precision)}") from None


def _integer(low: int, high: int | None = None) -> Callable[[str], int]:
    allowed = f"at least {low}" if high is None else f"from {low} to {high}"

    def parse(value: str) -> int:
        if not value.removeprefix("-").isdecimal():
            raise ValueError(f"it must be a whole number {allowed}")
        number = int(value)
        if number < low or (high is not None and number > high):
            raise ValueError(f"it must be {allowed}")
        return number

    return parse


def _seconds(value: str) -> float:
    message = "it must be a number of seconds, 0 or more"
    try:
        number = float(value)
    except ValueError:
        raise ValueError(message) from None
    if not math.isfinite(number) or number < 0:
        raise ValueError(message)
    return number


def _boolean(value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError(f"it must be one of {', '.join((*_TRUE, *_FALSE))}")


def _log_format(value: str) -> LogFormat | None:
    if value == "auto":
        return None
    try:
        return LogFormat(value)
    except ValueError:
        raise ValueError(f"it must be one of auto, {', '.join(LogFormat)}") from None


def _log_level(value: str) -> int:
    if value.lower() not in _LOG_LEVELS:
        raise ValueError(f"it must be one of {', '.join(_LOG_LEVELS)}")
    return logging.getLevelNamesMapping()[value.upper()]


def _url(value: str) -> str:
    parts = urlsplit(value)
    # Reading `port` raises a ValueError of its own where it is not a number.
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("it must be a URL such as http://host:4040")
    return value


def _encoder(value: str) -> EncoderChoice:
    allowed = ", ".join(EncoderChoice)
    try:
        return EncoderChoice(value)
    except ValueError:
        raise ValueError(f"it must be one of {allowed}") from None
