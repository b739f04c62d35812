"""Loading: what is ready, what failed and why, what is tried again; never a crash."""

import pytest

from application.model.states import Lost, Phase, Ready
from application.ports import EncoderLost, EncoderUnavailable
from domain.errors import ModelNotReady
from tests.support.clock import FakeClock
from tests.support.encoders import Loader, RecordingEncoder, supervisor
from tests.support.supervision import supervised, until


async def test_before_loading_requests_are_refused() -> None:
    model = supervisor(Loader(RecordingEncoder()))
    assert model.health.phase is Phase.LOADING
    with pytest.raises(ModelNotReady, match="still being loaded") as caught:
        async with model.lease():
            pass
    assert caught.value.code == "model_starting"


async def test_loaded_and_warmed_up_it_is_ready() -> None:
    encoder = RecordingEncoder()
    model = supervisor(Loader(encoder))
    await model.load()
    assert model.state == Ready(encoder)
    async with model.lease() as lease:
        assert lease.encoder is encoder
    assert encoder.image_batches == [[0.0]]
    assert model.device is not None


async def test_the_error_says_what_is_missing() -> None:
    model = supervisor(Loader(EncoderUnavailable("/models/x does not exist")))
    await model.load()
    assert model.health.phase is Phase.FAILED
    with pytest.raises(ModelNotReady, match="/models/x does not exist") as caught:
        async with model.lease():
            pass
    assert caught.value.code == "model_not_loaded"


async def test_an_unforeseen_failure_keeps_its_internals_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = supervisor(Loader(RuntimeError("secret path")))
    await model.load()
    assert model.health.phase is Phase.FAILED
    assert "secret path" not in str(model.reason)
    assert "secret path" in caplog.text


async def test_a_first_load_that_failed_is_tried_again_after_a_while() -> None:
    clock = FakeClock()
    loader = Loader(EncoderUnavailable("/models/x does not exist"))
    async with supervised(supervisor(loader, clock=clock)) as model:
        for loads, pause_s in ((1, 30), (2, 60), (3, 120)):
            await until(lambda: clock.sleeping)
            assert model.health.phase is Phase.FAILED
            await clock.advance(pause_s - 1)
            assert loader.loads == loads
            if loads == 3:
                loader.outcome = RecordingEncoder()
            await clock.advance(1)
            await until(lambda loads=loads: loader.loads > loads)  # type: ignore[misc]
        await until(lambda: model.health.ready)
        assert model.reason is None


async def test_a_device_that_is_lost_while_loading_is_lost() -> None:
    async with supervised(supervisor(Loader(EncoderLost("the GPU failed: x.")))) as model:
        assert model.state == Lost(0, "the GPU failed: x.")
        assert not model.health.alive
        with pytest.raises(ModelNotReady, match="the GPU failed"):
            async with model.lease():
                pass
