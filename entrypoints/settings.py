"""Every setting of the server, declared once.

A field gives the setting's name, type and default; the `Variable` in its annotation names the
environment variable and says what it is for. The environment is read and checked by these
declarations. ``clip-server serve --help`` and ``docs/configuration.md`` are generated from them.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec

from adapters.encoders.selection import EncoderChoice
from adapters.models.precision import Precision
from adapters.system.hardware import nvidia_driver_present
from domain.limits import (
    DEFAULT_MAX_TEXTS,
    IMAGE_SIZE,
    MAX_BODY_BYTES,
    MAX_DECODED_PIXELS,
)
from entrypoints.http.dialects import DIALECTS_ALLOWED, Dialect, dialects_of
from entrypoints.http.middleware.auth import ApiKeys, key_problem
from entrypoints.logs import LogFormat, LogLevel
from entrypoints.server.tls import Tls, UnusableTls
from entrypoints.server.watchdog import Watchdog
from entrypoints.variables import (
    Declaration,
    InvalidSetting,
    Secret,
    Variable,
    declarations,
    parse_all,
    unknown_variables,
)

_WARN_ABOVE_TEXTS: Final = 1000

GPU_BATCH: Final = 32
"""Default batch size on a GPU, which needs that many images to be busy."""

_BATCHES_INSIDE: Final = 8
"""Default number of full batches that are accepted at once on a GPU."""
_FEWEST_INSIDE: Final = 64
_MOST_INSIDE: Final = 512
LEAST_BODY_MIB: Final = MAX_BODY_BYTES // 1024**2
"""Enough for one body of the largest allowed size."""

_ORIGINS_ALLOWED: Final = (
    "* or origins such as https://cameras.example:8443, without a path and separated by commas"
)
_URL_ALLOWED: Final = "a URL such as http://host:4040"


def _api_keys(text: str) -> ApiKeys:
    keys = [key.strip() for key in text.split(",")]
    for place, key in enumerate(keys, start=1):
        if (problem := key_problem(key)) is not None:
            raise ValueError(f"key number {place} of the list cannot be used: {problem}")
    return ApiKeys(keys)


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(origin.strip().lower() for origin in text.split(","))
    for origin in origins:
        if origin == "*":
            continue
        parts = urlsplit(origin)
        # Reading `port` raises a ValueError itself if it is not a number.
        plain = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if not plain or "*" in origin or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError(f"it must be {_ORIGINS_ALLOWED}")
    return origins


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"it must be {_URL_ALLOWED}")
    return text


_Seconds = Annotated[float, msgspec.Meta(ge=0, le=31_536_000)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be configured, checked. A field without a variable is derived.

    Attributes:
        watchdog: systemd's, if it supervises this process.
        traces: whether the standard ``OTEL_*`` variables turn traces on.
        otlp_protocol: ``OTEL_EXPORTER_OTLP_PROTOCOL``, or the one for traces only.
        warnings: allowed values that look wrong, to be logged at the start.
    """

    model_path: Annotated[
        str,
        Variable(
            "CLIP_MODEL_PATH",
            "Model",
            "The checkpoint: a name on the Hugging Face hub such as "
            "`openai/clip-vit-large-patch14`, a Hugging Face or OpenCLIP directory, a bundle, an "
            "OpenCLIP `name:tag`, or `builtin:demo`. `make serve` sets `builtin:demo` unless you "
            "set it.",
            option="--model",
        ),
    ] = "/models/clip-vit-l"
    embedding_dimension: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=65536)] | None,
        Variable(
            "CLIP_EMBEDDING_DIMENSION",
            "Model",
            "Numbers in an embedding. A checkpoint with another dimension is refused. Unset, any "
            "dimension is accepted.",
            default="the model's own",
        ),
    ] = None
    cache: Annotated[
        Path | None,
        Variable(
            "CLIP_CACHE_DIR",
            "Model",
            "Directory for bundles and for compiled and quantised models. It makes later starts "
            "fast.",
            none="none",
            default="~/.cache/clip-embedding-server, or none for a user without a home directory",
        ),
    ] = None

    encoder: Annotated[
        EncoderChoice,
        Variable(
            "CLIP_ENCODER",
            "Encoder",
            "The runtime for the model. `auto` uses TensorRT or PyTorch if CUDA works, else "
            "OpenVINO, else PyTorch. `fake` computes nothing; it is for tests.",
        ),
    ] = EncoderChoice.AUTO
    precision: Annotated[
        Precision | None,
        Variable(
            "CLIP_PRECISION",
            "Encoder",
            "The type that the model computes in. `auto` uses fp16 on CUDA, bf16 on processors "
            "with bf16 instructions, else fp32. `int8` needs OpenVINO, the extra `int8` and a "
            "processor with VNNI or AMX; it is refused if its cosine with fp32 is 0.99 or lower.",
            none="auto",
        ),
    ] = None
    torch_compiles: Annotated[
        bool,
        Variable(
            "CLIP_TORCH_COMPILE",
            "Encoder",
            "Whether PyTorch on CUDA compiles the image tower, which takes seconds at the start, "
            "and runs frequent batch sizes as CUDA graphs. It does neither if TensorRT is about to "
            "take over.",
        ),
    ] = True
    require_gpu: Annotated[
        bool,
        Variable(
            "CLIP_REQUIRE_GPU",
            "Encoder",
            "Whether to refuse a model that does not run on an NVIDIA GPU. If false, such a model "
            "is served; `gpu_reason` in `/health` says why the GPU is not used, and "
            "`clip_gpu_unused` is 1.",
        ),
    ] = False
    openvino_device: Annotated[
        str,
        Variable("CLIP_OPENVINO_DEVICE", "Encoder", "OpenVINO's device, such as `GPU` or `NPU`."),
    ] = "CPU"
    openvino_streams: Annotated[
        int,
        msgspec.Meta(ge=1, le=64),
        Variable(
            "CLIP_OPENVINO_STREAMS",
            "Encoder",
            "Parts of a batch that OpenVINO computes in parallel. More of them raise the "
            "throughput of many requests and slow down a single one.",
        ),
    ] = 1
    measure_encoders: Annotated[
        bool,
        Variable(
            "CLIP_MEASURE_ENCODERS",
            "Encoder",
            "Whether a server with `CLIP_ENCODER=auto` on a CPU measures OpenVINO and PyTorch "
            "while it is idle, if both are installed. It switches over to the faster one and saves "
            "the choice in `CLIP_CACHE_DIR`. See [tuning](tuning.md).",
        ),
    ] = True
    use_tensorrt: Annotated[
        bool,
        Variable(
            "CLIP_USE_TENSORRT",
            "Encoder",
            "Whether `CLIP_ENCODER=auto` uses TensorRT if it can run.",
        ),
    ] = True
    engine_path: Annotated[
        Path | None,
        Variable(
            "CLIP_ENGINE_PATH",
            "Encoder",
            "The TensorRT engine. It is built there if it is missing.",
            default="/models/clip-vit-l/vision_encoder_fp16.engine, or in `CLIP_CACHE_DIR` if that "
            "directory does not exist or cannot be written",
        ),
    ] = None

    host: Annotated[str, Variable("HOST", "Address", "Address to listen on.", option="--host")] = (
        "0.0.0.0"  # noqa: S104 as the contract has it
    )
    port: Annotated[
        int,
        msgspec.Meta(ge=0, le=65535),
        Variable("PORT", "Address", "Port to listen on; 0 chooses a free one.", option="--port"),
    ] = 8093

    http_processes: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=64)] | None,
        Variable(
            "CLIP_HTTP_PROCESSES",
            "Address",
            "Processes that serve HTTP and decode pictures, in front of one that runs the model. "
            "With 1, the model runs in the same process. `auto` is 1; on a machine with an NVIDIA "
            "card it is one for every two cores, at most 8. See [tuning](tuning.md).",
            none="auto",
        ),
    ] = None

    max_batch: Annotated[
        int,
        msgspec.Meta(ge=1, le=1024),
        Variable(
            "CLIP_MAX_BATCH_SIZE",
            "Limits",
            "Most images in a batch. Requests that wait at the same time share batches.",
            default=f"8, or {GPU_BATCH} if there is an NVIDIA driver and `CLIP_ENCODER` is not "
            "`openvino`",
        ),
    ] = 8
    max_texts: Annotated[
        _Positive,
        Variable(
            "CLIP_MAX_BATCH_TEXTS_SIZE",
            "Limits",
            "Most texts in one request to `/batch-similarity` or `/embed/text`. Above "
            f"{_WARN_ABOVE_TEXTS} the server warns.",
        ),
    ] = DEFAULT_MAX_TEXTS
    max_decoded_pixels: Annotated[
        int,
        msgspec.Meta(ge=IMAGE_SIZE**2, le=2**28),
        Variable(
            "CLIP_MAX_DECODED_PIXELS",
            "Limits",
            "Most pixels to decode for one image, of any shape. A large JPEG is decoded at 1/2, "
            "1/4 or 1/8 of its size, and counts with that size.",
        ),
    ] = MAX_DECODED_PIXELS
    text_cache_size: Annotated[
        int,
        msgspec.Meta(ge=0),
        Variable(
            "CLIP_TEXT_CACHE_SIZE",
            "Limits",
            "Text embeddings to keep for reuse, 3 KiB each.",
        ),
    ] = 4096
    max_requests: Annotated[
        _Positive,
        Variable(
            "CLIP_MAX_REQUESTS",
            "Limits",
            "Most requests that wait or run at once; further ones get 503 with `Retry-After`. A "
            "request with many images counts once for every `CLIP_MAX_BATCH_SIZE` images, and one "
            "with many texts once for every 64 texts.",
            default="64; on a GPU eight full batches, which are 256, and at most 512",
        ),
    ] = _FEWEST_INSIDE
    max_connections: Annotated[
        _Positive,
        Variable(
            "CLIP_MAX_CONNECTIONS",
            "Limits",
            "Most connections open at once. To make room for a new one, the server closes an idle "
            "connection of the client address with the most connections.",
        ),
    ] = 1000
    max_body_memory_mib: Annotated[
        int,
        msgspec.Meta(ge=LEAST_BODY_MIB),
        Variable(
            "CLIP_MAX_BODY_MEMORY_MIB",
            "Limits",
            "Most memory for the bodies of all requests together, in MiB. When it is full, the "
            "upload that has taken longest gets 503.",
        ),
    ] = 256
    encode_timeout_s: Annotated[
        _Seconds | None,
        Variable(
            "CLIP_ENCODE_TIMEOUT_SECONDS",
            "Limits",
            "A call to the model that takes longer counts as hung; 0 turns this off.",
            none="0",
            unit="seconds",
        ),
    ] = 120.0
    shutdown_grace_s: Annotated[
        _Seconds,
        Variable(
            "CLIP_SHUTDOWN_GRACE_SECONDS",
            "Limits",
            "Time for accepted requests to finish after SIGTERM. Requests that are not finished by "
            "then get 503.",
            unit="seconds",
        ),
    ] = 30.0
    idle_unload_s: Annotated[
        _Seconds | None,
        Variable(
            "CLIP_IDLE_UNLOAD_SECONDS",
            "Limits",
            "After this long without a request, the model is unloaded to free its memory; 0 keeps "
            "it loaded.",
            none="0",
            unit="seconds",
        ),
    ] = None

    api_keys: Annotated[
        ApiKeys | None,
        Variable(
            "CLIP_API_KEYS",
            "Security",
            "Keys, separated by commas. Requests must send one of them. Unset, no key is needed.",
            secret=True,
            parse=_api_keys,
            allowed="keys of at least 16 visible ASCII characters each, separated by commas",
        ),
    ] = None
    cors_origins: Annotated[
        tuple[str, ...],
        Variable(
            "CLIP_CORS_ORIGINS",
            "Security",
            "Websites whose pages may call the server from a browser; `*` allows all.",
            parse=_origins,
            allowed=_ORIGINS_ALLOWED,
        ),
    ] = ()
    tls_certificate: Annotated[
        Path | None,
        Variable(
            "CLIP_TLS_CERTIFICATE",
            "Security",
            "PEM file with the server's certificate and its chain. Unset, the server speaks plain "
            "HTTP.",
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        Variable(
            "CLIP_TLS_KEY",
            "Security",
            "PEM file with the certificate's private key, unless the certificate's file holds it.",
        ),
    ] = None
    tls_key_password: Annotated[
        Secret | None,
        Variable(
            "CLIP_TLS_KEY_PASSWORD",
            "Security",
            "Password of the private key, if it is encrypted.",
            secret=True,
            parse=Secret,
        ),
    ] = None
    tls_client_ca: Annotated[
        Path | None,
        Variable(
            "CLIP_TLS_CLIENT_CA",
            "Security",
            "PEM file with certificate authorities. Clients must then show a certificate that one "
            "of them signed.",
        ),
    ] = None

    use_ensemble: Annotated[
        bool,
        Variable(
            "CLIP_USE_ENSEMBLE",
            "Endpoints",
            "Whether `/classify` uses prompt ensembles if the request does not say.",
        ),
    ] = False
    openai_text_checks: Annotated[
        bool,
        Variable(
            "CLIP_OPENAI_TEXT_CHECKS",
            "Endpoints",
            "Whether `/v1/embeddings` refuses texts that are a URL or begin like an image file in "
            "base64.",
        ),
    ] = True

    dialects: Annotated[
        frozenset[Dialect],
        Variable(
            "CLIP_DIALECTS",
            "Endpoints",
            "Protocols of other software to support; see [dialects](dialects.md).",
            default="all",
            parse=dialects_of,
            allowed=DIALECTS_ALLOWED,
        ),
    ] = frozenset(Dialect)

    serves_page: Annotated[
        bool, Variable("CLIP_PAGE_ENABLED", "Pages", "Whether to serve the page at `/`.")
    ] = True
    serves_docs: Annotated[
        bool, Variable("CLIP_DOCS_ENABLED", "Pages", "Whether to serve `/docs`.")
    ] = True
    serves_metrics: Annotated[
        bool, Variable("CLIP_METRICS_ENABLED", "Pages", "Whether to serve `/metrics`.")
    ] = True

    log_format: Annotated[
        LogFormat | None,
        Variable(
            "CLIP_LOG_FORMAT",
            "Logs and profiles",
            "Format of the log. `auto` is text on a terminal, else JSON.",
            none="auto",
        ),
    ] = None
    log_level: Annotated[
        LogLevel,
        Variable("CLIP_LOG_LEVEL", "Logs and profiles", "Lowest level to log."),
    ] = LogLevel.INFO
    profile: Annotated[
        bool,
        Variable(
            "PYROSCOPE_ENABLED",
            "Logs and profiles",
            "Whether to send profiles to Pyroscope if it can be reached (extra `pyroscope`).",
        ),
    ] = True
    pyroscope_url: Annotated[
        str,
        Variable(
            "PYROSCOPE_URL",
            "Logs and profiles",
            "Address of Pyroscope.",
            parse=_url,
            allowed=_URL_ALLOWED,
        ),
    ] = "http://pyroscope:4040"
    environment: Annotated[
        str, Variable("ENVIRONMENT", "Logs and profiles", "Tag for the profiles.")
    ] = "production"

    watchdog: Watchdog | None = None
    traces: bool = False
    otlp_protocol: str = "http/protobuf"
    warnings: tuple[str, ...] = ()

    @property
    def upgrades_to_tensorrt(self) -> bool:
        """Whether TensorRT should take over if it can run; not with a pinned encoder."""
        return self.use_tensorrt and self.encoder is EncoderChoice.AUTO

    @property
    def tls(self) -> Tls | None:
        """The files for TLS; None without TLS."""
        if self.tls_certificate is None:
            return None
        password = self.tls_key_password
        return Tls(
            self.tls_certificate,
            self.tls_key,
            None if password is None else password.reveal(),
            self.tls_client_ca,
        )


DECLARED: Final[tuple[Declaration, ...]] = tuple(declarations(Settings))
"""All settings that have a variable, in the order of the documentation."""

STANDARD_VARIABLES: Final = {
    "HF_HOME": "Cache of Hugging Face's libraries. In the container `/cache/huggingface`.",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "OpenTelemetry collector; if set, traces are sent (extra "
    "`otel`). The other standard `OTEL_*` variables work too.",
}
"""Variables of other software that affect the server, and their meanings."""


def read_settings(
    environment: Mapping[str, str] | None = None,
    *,
    options: Mapping[str, str] | None = None,
    find_home: Callable[[], Path] = Path.home,
    gpu_present: Callable[[], bool] = nvidia_driver_present,
) -> Settings:
    """Read and check every variable.

    Args:
        environment: replaces the process's environment.
        options: values from the command line, by variable name; they take precedence.
        find_home: the user's home directory; raises RuntimeError if there is none.
        gpu_present: whether an NVIDIA driver is loaded.

    Raises:
        InvalidSetting: one of them has a value that is not allowed.
    """
    variables = os.environ if environment is None else environment
    given = parse_all(DECLARED, variables, options or {})
    on_gpu = given.get("encoder") not in (EncoderChoice.OPENVINO, EncoderChoice.FAKE)
    if on_gpu and gpu_present():
        given.setdefault("max_batch", GPU_BATCH)
        full = _BATCHES_INSIDE * given["max_batch"]
        given.setdefault("max_requests", min(max(full, _FEWEST_INSIDE), _MOST_INSIDE))
    settings = Settings(
        **{
            "cache": _default_cache(variables, find_home),
            "watchdog": _watchdog(variables),
            "traces": _traces_wanted(variables),
            "otlp_protocol": variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or variables.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf",
            **given,
        }
    )
    _check_tls(settings)
    known = [declaration.about.name for declaration in DECLARED]
    return msgspec.structs.replace(
        settings,
        warnings=(*_size_warning(settings), *unknown_variables(variables, known, "CLIP_")),
    )


def _size_warning(settings: Settings) -> list[str]:
    if settings.max_texts <= _WARN_ABOVE_TEXTS:
        return []
    return [
        f"CLIP_MAX_BATCH_TEXTS_SIZE={settings.max_texts} is above {_WARN_ABOVE_TEXTS}: "
        "one such request blocks the encoder for a long time."
    ]


def _default_cache(variables: Mapping[str, str], find_home: Callable[[], Path]) -> Path | None:
    try:
        parent = variables.get("XDG_CACHE_HOME") or find_home() / ".cache"
    except RuntimeError:
        # A user without a home directory, as in containers and under systemd.
        return None
    return Path(parent) / "clip-embedding-server"


def _traces_wanted(variables: Mapping[str, str]) -> bool:
    """As in the OpenTelemetry specification, but off unless a collector is named."""
    exporter = variables.get("OTEL_TRACES_EXPORTER")
    if exporter == "none" or variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return bool(
        exporter
        or variables.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )


def _watchdog(variables: Mapping[str, str]) -> Watchdog | None:
    address = variables.get("NOTIFY_SOCKET", "")
    microseconds = variables.get("WATCHDOG_USEC", "")
    if not address or not microseconds.isdecimal() or not int(microseconds):
        return None
    return Watchdog(address, int(microseconds) / 1_000_000)


def _check_tls(settings: Settings) -> None:
    """Load the files once.

    Raises:
        InvalidSetting: one of them is missing, damaged, or does not match the others.
    """
    files = {
        "certificate": ("CLIP_TLS_CERTIFICATE", settings.tls_certificate),
        "key": ("CLIP_TLS_KEY", settings.tls_key),
        "client_ca": ("CLIP_TLS_CLIENT_CA", settings.tls_client_ca),
    }
    tls = settings.tls
    if tls is None:
        given = [name for name, path in files.values() if path is not None]
        given += ["CLIP_TLS_KEY_PASSWORD"] if settings.tls_key_password else []
        if given:
            raise InvalidSetting(
                f"{given[0]} is set but CLIP_TLS_CERTIFICATE is not; TLS needs both."
            )
        return
    for name, path in files.values():
        if path is not None and not path.is_file():
            raise InvalidSetting(f"{name}={str(path)!r} is not allowed: there is no such file.")
    try:
        tls.check()
    except UnusableTls as unusable:
        name, path = files[unusable.part]
        raise InvalidSetting(f"{name}={str(path)!r} is not allowed: {unusable.reason}.") from None
