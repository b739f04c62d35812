"""The environment: defaults, every check, and one clear line for what is wrong."""

import pytest

from adapters.encoders.selection import EncoderChoice
from entrypoints.settings import InvalidSetting, read_settings


def test_defaults_are_the_contract() -> None:
    settings = read_settings({})
    assert settings.model_path == "/models/clip-vit-l"
    assert (settings.host, settings.port) == ("0.0.0.0", 8093)
    assert settings.encoder is EncoderChoice.AUTO
    assert settings.use_tensorrt is True
    assert settings.embedding_dimension == 768
    assert settings.max_texts == 100
    assert settings.idle_unload_s is None
    assert settings.warnings == ()


def test_values_are_taken() -> None:
    settings = read_settings(
        {"PORT": " 9000 ", "CLIP_USE_TENSORRT": "False", "CLIP_ENCODER": "fake", "HOST": ""}
    )
    assert settings.port == 9000
    assert settings.use_tensorrt is False
    assert settings.encoder is EncoderChoice.FAKE
    assert settings.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "eighty", "whole number from 0 to 65535"),
        ("PORT", "70000", "from 0 to 65535"),
        ("CLIP_MAX_BATCH_TEXTS_SIZE", "0", "at least 1"),
        ("CLIP_MAX_BATCH_TEXTS_SIZE", "-5", "at least 1"),
        ("CLIP_MAX_BATCH_SIZE", "0", "from 1 to 1024"),
        ("CLIP_MAX_REQUESTS", "1.5", "whole number"),
        ("CLIP_EMBEDDING_DIMENSION", "0", "from 1 to 65536"),
        ("CLIP_OPENVINO_STREAMS", "0", "from 1 to 64"),
        ("CLIP_USE_TENSORRT", "maybe", "true, yes, on"),
        ("CLIP_ENCODER", "tpu", "auto, torch, openvino, fake"),
        ("CLIP_ENCODER", "tensorrt", "no such encoder yet"),
        ("CLIP_SHUTDOWN_GRACE_SECONDS", "nan", "number of seconds"),
        ("CLIP_SHUTDOWN_GRACE_SECONDS", "-1", "number of seconds"),
        ("CLIP_IDLE_UNLOAD_SECONDS", "never", "number of seconds"),
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


def test_a_misspelt_variable_is_a_warning() -> None:
    (warning,) = read_settings({"CLIP_MODLE_PATH": "x"}).warnings
    assert warning == "CLIP_MODLE_PATH is set but means nothing; did you mean CLIP_MODEL_PATH?"
