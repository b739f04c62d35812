"""The environment: defaults, every check, and one clear line for what is wrong."""

import traceback
from pathlib import Path

import pytest

from adapters.encoders.selection import EncoderChoice
from entrypoints.configuration import as_markdown, help_entries
from entrypoints.logs import LogFormat, LogLevel
from entrypoints.settings import DECLARED, read_settings
from entrypoints.variables import Declaration, InvalidSetting


@pytest.mark.parametrize(
    ("variables", "gpu", "batch", "requests"),
    [
        ({}, False, 8, 64),
        ({}, True, 32, 256),
        ({"CLIP_ENCODER": "openvino"}, True, 8, 64),
        ({"CLIP_MAX_BATCH_SIZE": "64"}, False, 64, 64),
        ({"CLIP_MAX_BATCH_SIZE": "64"}, True, 64, 512),
        ({"CLIP_MAX_BATCH_SIZE": "1024"}, True, 1024, 512),
        ({"CLIP_MAX_BATCH_SIZE": "4"}, True, 4, 64),
        ({"CLIP_MAX_REQUESTS": "16"}, True, 32, 16),
    ],
)
def test_a_gpu_gets_larger_batches_and_more_requests(
    variables: dict[str, str], gpu: bool, batch: int, requests: int
) -> None:
    settings = read_settings(variables, gpu_present=lambda: gpu)
    assert (settings.max_batch, settings.max_requests) == (batch, requests)


def test_defaults_are_the_contract() -> None:
    settings = read_settings({})
    assert settings.model_path == "/models/clip-vit-l"
    assert (settings.host, settings.port) == ("0.0.0.0", 8093)
    assert settings.encoder is EncoderChoice.AUTO
    assert settings.use_tensorrt is True
    assert settings.engine_path is None
    assert settings.embedding_dimension is None
    assert settings.max_texts == 100
    assert settings.idle_unload_s is None
    assert (settings.log_format, settings.log_level) == (None, LogLevel.INFO)
    assert (settings.profile, settings.environment) == (True, "production")
    assert settings.pyroscope_url == "http://pyroscope:4040"
    assert settings.traces is False
    assert (settings.api_keys, settings.cors_origins, settings.tls) == (None, (), None)
    assert settings.serves_metrics
    assert settings.serves_docs
    assert settings.serves_page
    assert settings.warnings == ()


def test_values_are_taken() -> None:
    settings = read_settings(
        {
            "PORT": " 9000 ",
            "CLIP_USE_TENSORRT": "False",
            "CLIP_ENCODER": "fake",
            "HOST": "",
            "CLIP_IDLE_UNLOAD_SECONDS": "300",
            "CLIP_LOG_FORMAT": "json",
            "CLIP_LOG_LEVEL": "WARNING",
        }
    )
    assert settings.idle_unload_s == 300
    assert settings.log_format is LogFormat.JSON
    assert settings.log_level is LogLevel.WARNING
    assert settings.port == 9000
    assert settings.use_tensorrt is False
    assert settings.encoder is EncoderChoice.FAKE
    assert settings.host == "0.0.0.0"


def test_the_engine_is_where_it_is_said_to_be() -> None:
    path = read_settings({"CLIP_ENGINE_PATH": "/data/clip.engine"}).engine_path
    assert path == Path("/data/clip.engine")


@pytest.mark.parametrize(
    ("encoder", "wanted", "upgrades"),
    [
        ("auto", "true", True),
        ("auto", "false", False),
        ("torch", "true", False),
        ("fake", "true", False),
        ("tensorrt", "true", False),
    ],
)
def test_only_an_encoder_that_is_not_pinned_is_upgraded(
    encoder: str, wanted: str, upgrades: bool
) -> None:
    settings = read_settings({"CLIP_ENCODER": encoder, "CLIP_USE_TENSORRT": wanted})
    assert settings.upgrades_to_tensorrt is upgrades


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "eighty", "a whole number from 0 to 65535"),
        ("PORT", "70000", "from 0 to 65535"),
        ("CLIP_MAX_BATCH_TEXTS_SIZE", "0", "at least 1"),
        ("CLIP_MAX_BATCH_TEXTS_SIZE", "-5", "at least 1"),
        ("CLIP_MAX_BATCH_SIZE", "0", "from 1 to 1024"),
        ("CLIP_MAX_REQUESTS", "1.5", "whole number"),
        ("CLIP_EMBEDDING_DIMENSION", "0", "from 1 to 65536"),
        ("CLIP_OPENVINO_STREAMS", "0", "from 1 to 64"),
        ("CLIP_USE_TENSORRT", "maybe", "true or false"),
        ("CLIP_ENCODER", "tpu", "auto, tensorrt, torch, openvino, fake"),
        ("CLIP_SHUTDOWN_GRACE_SECONDS", "nan", "number of seconds"),
        ("CLIP_SHUTDOWN_GRACE_SECONDS", "-1", "number of seconds"),
        ("CLIP_IDLE_UNLOAD_SECONDS", "never", "number of seconds"),
        ("CLIP_IDLE_UNLOAD_SECONDS", "null", "number of seconds"),
        ("CLIP_IDLE_UNLOAD_SECONDS", "inf", "number of seconds"),
        ("CLIP_PRECISION", "fp8", "auto, fp32, fp16, bf16, int8"),
        ("CLIP_LOG_FORMAT", "xml", "auto, json, text"),
        ("CLIP_LOG_LEVEL", "loud", "debug, info, warning, error"),
        ("PYROSCOPE_ENABLED", "perhaps", "true or false"),
        ("PYROSCOPE_URL", "pyroscope:4040", "URL such as"),
        ("CLIP_CORS_ORIGINS", "cameras.example", "origins such as https://"),
        ("CLIP_CORS_ORIGINS", "https://cameras.example/", "without a path"),
        ("CLIP_CORS_ORIGINS", "https://a.example,,https://b.example", "separated by commas"),
        ("CLIP_CORS_ORIGINS", "https://*.example", "it must be * or origins"),
        ("CLIP_CORS_ORIGINS", "https://a.example:port", "Port could not be"),
        ("CLIP_METRICS_ENABLED", "perhaps", "true or false"),
        ("CLIP_TLS_CERTIFICATE", "/nowhere/server.pem", "no such file"),
    ],
)
def test_a_bad_value_is_one_line_with_name_value_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_settings({name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}={value!r} is not allowed")
    assert allowed in message
    assert "\n" not in message


def test_many_texts_are_a_warning() -> None:
    assert (
        "CLIP_MAX_BATCH_TEXTS_SIZE=1001"
        in read_settings({"CLIP_MAX_BATCH_TEXTS_SIZE": "1001"}).warnings[0]
    )
    assert read_settings({"CLIP_MAX_BATCH_TEXTS_SIZE": "1000"}).warnings == ()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CLIP_MODLE_PATH", "CLIP_MODEL_PATH"),
        ("CLIP_MODEL", "CLIP_MODEL_PATH"),
        ("CLIP_CACHE", "CLIP_CACHE_DIR"),
        ("CLIP_PORT", "PORT"),
        ("CLIP_HOST", "HOST"),
        ("CLIP_PYROSCOPE_URL", "PYROSCOPE_URL"),
        ("CLIP_BATCH_SIZE", "CLIP_MAX_BATCH_SIZE"),
        ("CLIP_LOGLEVEL", "CLIP_LOG_LEVEL"),
        ("CLIP_THREADS", None),
        ("CLIP_SOCKET", None),
        ("CLIP_X", None),
    ],
)
def test_an_unknown_variable_is_a_warning_with_the_name_that_is_near(
    name: str, near: str | None
) -> None:
    (warning,) = read_settings({name: "x"}).warnings
    hint = f"; did you mean {near}?" if near else "."
    assert warning == f"{name} is set, but the server has no such setting{hint}"


@pytest.mark.parametrize("word", ["false", "No", "OFF", "0", "disabled"])
def test_words_for_off(word: str) -> None:
    settings = read_settings({"PYROSCOPE_ENABLED": word, "CLIP_USE_TENSORRT": word})
    assert (settings.profile, settings.use_tensorrt) == (False, False)


@pytest.mark.parametrize("word", ["true", "Yes", "ON", "1", "enabled"])
def test_words_for_on(word: str) -> None:
    assert read_settings({"PYROSCOPE_ENABLED": word}).profile is True


@pytest.mark.parametrize("zero", ["0", "0.0"])
def test_zero_seconds_turn_a_limit_off(zero: str) -> None:
    settings = read_settings(
        {"CLIP_ENCODE_TIMEOUT_SECONDS": zero, "CLIP_IDLE_UNLOAD_SECONDS": zero}
    )
    assert (settings.encode_timeout_s, settings.idle_unload_s) == (None, None)


def test_words_that_leave_the_choice_to_the_server() -> None:
    settings = read_settings(
        {"CLIP_PRECISION": "AUTO", "CLIP_LOG_FORMAT": "auto", "CLIP_CACHE_DIR": "none"}
    )
    assert (settings.precision, settings.log_format, settings.cache) == (None, None, None)


def test_options_win_over_the_environment_and_are_named_in_errors() -> None:
    environment = {"PORT": "1", "CLIP_MODEL_PATH": "/one"}
    settings = read_settings(environment, options={"PORT": "2", "HOST": "::1"})
    assert (settings.port, settings.host, settings.model_path) == (2, "::1", "/one")
    with pytest.raises(InvalidSetting) as caught:
        read_settings(environment, options={"PORT": "http"})
    assert str(caught.value) == (
        "--port='http' is not allowed: it must be a whole number from 0 to 65535."
    )


def test_the_document_of_the_settings_is_up_to_date() -> None:
    document = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert document.read_text() == as_markdown(), "run: make docs"


def test_help_and_document_have_every_setting() -> None:
    entries, document = dict(help_entries()), as_markdown()
    for declared in DECLARED:
        about = declared.about
        assert about.meaning.replace("`", "") in entries[about.name]
        (row,) = (line for line in document.splitlines() if line.startswith(f"| `{about.name}`"))
        assert about.meaning in row
        assert declared.allowed in row


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.about.name)
def test_a_default_that_is_written_out_means_the_default(declared: Declaration) -> None:
    if declared.about.default is not None or not declared.default_text:
        return  # said in words
    assert declared.parse(declared.default_text) == declared.default


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_SERVICE_NAME": "clip"}, False),
    ],
)
def test_traces_are_wanted_where_the_standard_variables_name_a_collector(
    variables: dict[str, str], wanted: bool
) -> None:
    assert read_settings(variables).traces is wanted


def test_a_user_without_a_home_has_no_cache_unless_one_is_named() -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    assert read_settings({}, find_home=nowhere).cache is None
    named = read_settings({"CLIP_CACHE_DIR": "/cache"}, find_home=nowhere)
    assert named.cache == Path("/cache")
    assert read_settings({"XDG_CACHE_HOME": "/x"}, find_home=nowhere).cache == Path(
        "/x/clip-embedding-server"
    )
    assert read_settings({}, find_home=lambda: Path("/home/me")).cache == Path(
        "/home/me/.cache/clip-embedding-server"
    )


GOOD_KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ("s3cr3t", 1),
        (f"{GOOD_KEY},s3cr3t-15-chars", 2),
        (f",{GOOD_KEY}", 1),
        (f"{GOOD_KEY},", 2),
        (f"{GOOD_KEY},s3cr3t with some spaces", 2),
        (f"{GOOD_KEY},{GOOD_KEY},s3cr3t-with-\u00e9-that-is-long", 3),
        ("s3cr3t-with-a-\ttab-in-it", 1),
    ],
)
def test_a_bad_key_is_named_by_its_place_and_never_printed(keys: str, place: int) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_settings({"CLIP_API_KEYS": keys})
    message = str(caught.value)
    assert message.startswith("CLIP_API_KEYS is not allowed")
    assert f"key number {place} of the list" in message
    assert "at least 16 characters" in message
    assert "\n" not in message
    everything = "".join(traceback.format_exception(caught.value))
    assert "s3cr3t" not in everything
    assert GOOD_KEY not in everything


def test_keys_are_in_nothing_that_is_printed() -> None:
    settings = read_settings({"CLIP_API_KEYS": f" {GOOD_KEY} , another-key-of-a-camera"})
    assert settings.api_keys is not None
    assert settings.api_keys.let_in(GOOD_KEY.encode())
    assert settings.api_keys.let_in(b"another-key-of-a-camera")
    assert GOOD_KEY not in repr(settings)
    assert "api_keys=ApiKeys(2)" in repr(settings)


@pytest.mark.parametrize("name", ["CLIP_TLS_KEY", "CLIP_TLS_CLIENT_CA", "CLIP_TLS_KEY_PASSWORD"])
def test_tls_needs_a_certificate(name: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_settings({name: "s3cr3t"})
    assert str(caught.value) == f"{name} is set but CLIP_TLS_CERTIFICATE is not; TLS needs both."


def test_websites_that_may_ask() -> None:
    sent = "https://Cameras.example, http://[::1]:3000"
    assert read_settings({"CLIP_CORS_ORIGINS": sent}).cors_origins == (
        "https://cameras.example",
        "http://[::1]:3000",
    )
    assert read_settings({"CLIP_CORS_ORIGINS": "*"}).cors_origins == ("*",)
