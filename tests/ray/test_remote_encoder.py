"""The encoder that stands for replicas elsewhere: what it sends, and what it does when they die."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from adapters.images.preprocessing import as_pixels, preprocess
from adapters.ray.remote_encoder import (
    RemoteEmbeddings,
    RemoteEncoder,
    RemoteEncoderLoader,
)
from application.ports import Device, EncoderDescription
from domain.errors import ServiceUnavailable
from tests.support.photos import photos

DESCRIPTION = EncoderDescription(
    model="m",
    fingerprint="f1",
    backend="fake",
    precision="fp32",
    device=Device("cuda:0", cuda_available=True),
    embedding_dimension=4,
    logit_scale=100.0,
)


class Replicas:
    """A fake of Ray's handle: each call gets the next outcome, the last one again and again."""

    def __init__(self, *outcomes: Exception | str) -> None:
        self._outcomes = list(outcomes)
        self.sent: list[Any] = []
        self.cancelled = 0
        self.encode_images = SimpleNamespace(remote=self._call)
        self.encode_texts = SimpleNamespace(remote=self._call)
        self.describe = SimpleNamespace(remote=lambda: self._answer(lambda _: DESCRIPTION))

    def _call(self, inputs: Sequence[Any]) -> Any:
        self.sent.append(inputs)
        return self._answer(
            lambda fingerprint: RemoteEmbeddings(np.ones((len(inputs), 4), np.float32), fingerprint)
        )

    def _answer(self, make: Callable[[str], Any]) -> Any:
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]

        def result(timeout_s: float) -> Any:
            assert 0 < timeout_s <= 30
            if isinstance(outcome, Exception):
                raise outcome
            return make(outcome)

        def cancel() -> None:
            self.cancelled += 1

        return SimpleNamespace(result=result, cancel=cancel)


def encoder(replicas: Replicas) -> RemoteEncoder:
    return RemoteEncoder(replicas, DESCRIPTION)  # type: ignore[arg-type]


def died() -> ActorDiedError:
    return ActorDiedError()


def test_pixels_travel_as_eight_bits_and_arrive_unchanged() -> None:
    batch = np.stack([preprocess(image) for image in photos().values()])
    replicas = Replicas("f1")
    rows = encoder(replicas).encode_images(batch)
    assert rows.shape == (len(batch), 4)
    assert replicas.sent[0].dtype == np.uint8
    np.testing.assert_array_equal(as_pixels(replicas.sent[0]), batch)


def test_pixels_that_are_no_levels_travel_as_they_are() -> None:
    replicas = Replicas("f1")
    zeros = np.zeros((1, 3, 224, 224), dtype=np.float32)
    encoder(replicas).encode_images(zeros)
    np.testing.assert_array_equal(as_pixels(replicas.sent[0]), zeros)


def test_a_call_whose_replica_dies_is_made_again() -> None:
    gone = ActorUnavailableError("gone", actor_id=None)
    replicas = Replicas(died(), gone, "f1")
    assert encoder(replicas).encode_texts(["a", "b"]).shape == (2, 4)
    assert replicas.sent == [["a", "b"]] * 3


def test_what_a_replica_raises_is_raised() -> None:
    replicas = Replicas(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        encoder(replicas).encode_texts(["a"])
    assert len(replicas.sent) == 1


def test_no_answer_in_time_is_told_and_no_longer_waited_for() -> None:
    replicas = Replicas(TimeoutError())
    hurried = RemoteEncoder(replicas, DESCRIPTION, patience_s=0.05)  # type: ignore[arg-type]
    with pytest.raises(ServiceUnavailable) as told:
        hurried.encode_texts(["a"])
    assert told.value.code == "encoder_unreachable"
    assert replicas.cancelled == len(replicas.sent) > 0


def test_rows_of_another_model_are_never_handed_on() -> None:
    with pytest.raises(ServiceUnavailable, match="from f1 to f2") as told:
        encoder(Replicas("f2")).encode_texts(["a"])
    assert told.value.code == "model_changing"


def test_nothing_is_asked_for_nothing() -> None:
    replicas = Replicas("f1")
    assert encoder(replicas).encode_texts([]).shape == (0, 4)
    assert encoder(replicas).encode_images(np.empty((0, 3, 224, 224), np.float32)).shape == (0, 4)
    assert replicas.sent == []


def test_the_loader_tells_what_the_replicas_are() -> None:
    loader = RemoteEncoderLoader(Replicas(died(), "f1"))  # type: ignore[arg-type]
    assert loader.load().description == DESCRIPTION
    assert loader.probe_device() == DESCRIPTION.device
