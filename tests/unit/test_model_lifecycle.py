"""Loading in the background: starting, ready, failed; never a crash."""

import pytest

from application.model.model_lifecycle import ModelLifecycle, ModelState
from application.ports import EncoderUnavailable
from domain.errors import ModelNotReady
from tests.support.encoders import Loader, RecordingEncoder


async def test_before_loading_it_is_starting() -> None:
    model = ModelLifecycle(Loader(RecordingEncoder()))
    assert model.state is ModelState.STARTING
    with pytest.raises(ModelNotReady, match="still being loaded") as caught:
        model.encoder()
    assert caught.value.code == "model_starting"


async def test_loaded_and_warmed_up_it_is_ready() -> None:
    encoder = RecordingEncoder()
    model = ModelLifecycle(Loader(encoder))
    await model.bring_up()
    assert model.state is ModelState.READY
    assert model.encoder() is encoder
    assert encoder.image_batches == [[0.0]]
    assert model.device is not None


async def test_what_is_missing_is_told() -> None:
    model = ModelLifecycle(Loader(EncoderUnavailable("/models/x does not exist")))
    await model.bring_up()
    assert model.state is ModelState.FAILED
    with pytest.raises(ModelNotReady, match="/models/x does not exist") as caught:
        model.encoder()
    assert caught.value.code == "model_not_loaded"


async def test_an_unforeseen_failure_keeps_its_internals_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = ModelLifecycle(Loader(RuntimeError("secret path")))
    await model.bring_up()
    assert model.state is ModelState.FAILED
    assert "secret path" not in str(model.failure)
    assert "secret path" in caplog.text
