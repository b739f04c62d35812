"""`clip-server verify` finds out what a server does to pictures instead."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adapters.encoders.openvino.encoder import OpenVinoEncoder
from adapters.export.bundles import write_bundle
from adapters.images.pillow_preparation import prepare_picture
from adapters.models.precision import Precision
from adapters.models.preprocessing import CLIPS_OWN, SIGLIPS_OWN
from adapters.models.reading import DEMO, preprocessing_of, read_checkpoint
from adapters.verification.deviations import deviations_from
from adapters.verification.questions import TEXTS, pictures
from application.ports import EncoderPort, Pixels, ServerFailure
from application.use_cases.verify import (
    Deviation,
    EmbeddingServerPort,
    VerifyServer,
)
from domain.embedding import Embedding

DEVIATIONS = [
    replace(each, prepare=functools.cache(each.prepare))  # each of them is tried for each
    for each in deviations_from(preprocessing_of(DEMO))
]
FEW = {
    name: pictures()[name]
    for name in ("an ordinary photo", "wide", "turned by EXIF", "partly transparent")
}


class Server(EmbeddingServerPort):
    """Prepares pictures and reads texts in the way that it was given."""

    def __init__(
        self,
        encoder: EncoderPort,
        prepare: Callable[[bytes], Pixels],
        reads: Callable[[str], str] = str,
    ) -> None:
        self._encoder = encoder
        self._prepare = prepare
        self._reads = reads

    def embed(self, image: bytes) -> Sequence[float]:
        (row,) = self._encoder.encode_images(self._prepare(image)[np.newaxis])
        return [float(each) for each in Embedding.from_encoder(row).vector]

    def cosines(self, image: bytes, texts: Sequence[str]) -> Mapping[str, float]:
        vector = np.array(self.embed(image))
        rows = self._encoder.encode_texts([self._reads(text) for text in texts])
        embeddings = [Embedding.from_encoder(row) for row in rows]
        return {
            text: float(vector @ each.vector) for text, each in zip(texts, embeddings, strict=True)
        }


def right(data: bytes) -> Pixels:
    return prepare_picture(data)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> EncoderPort:
    # The demo model: one with random weights sees hardly a difference between filters.
    bundle = write_bundle(read_checkpoint(DEMO), tmp_path_factory.mktemp("demo") / "bundle")
    return OpenVinoEncoder(bundle, precision=Precision.FP32)


def test_a_server_that_does_it_right_agrees(encoder: EncoderPort) -> None:
    agreement = VerifyServer(encoder, right, DEVIATIONS)(Server(encoder, right), pictures(), TEXTS)
    assert min(agreement.pictures.values()) > 0.99999
    assert agreement.deviation is None
    assert agreement.pictures_agree
    assert agreement.texts_agree
    assert not agreement.only_rounded


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda each: each.what)
def test_what_a_server_does_instead_is_named(encoder: EncoderPort, deviation: Deviation) -> None:
    server = Server(encoder, deviation.prepare)
    agreement = VerifyServer(encoder, right, DEVIATIONS)(server, FEW, TEXTS)
    assert agreement.deviation is not None
    assert agreement.deviation.what == deviation.what
    assert agreement.explained > 0.9999
    assert not agreement.pictures_agree
    assert agreement.texts_agree


def test_texts_that_are_read_otherwise_are_named(encoder: EncoderPort) -> None:
    server = Server(encoder, right, reads=lambda text: text[:100])
    agreement = VerifyServer(encoder, right, DEVIATIONS)(server, pictures(), TEXTS)
    assert agreement.pictures_agree
    assert not agreement.texts_agree
    assert max(agreement.texts, key=agreement.texts.__getitem__) == "longer than any context"


def test_other_weights_are_explained_by_nothing(encoder: EncoderPort) -> None:
    class Other(Server):
        def embed(self, image: bytes) -> Sequence[float]:
            return list(super().embed(image))[::-1]

    agreement = VerifyServer(encoder, right, DEVIATIONS)(Other(encoder, right), pictures(), TEXTS)
    assert agreement.deviation is None
    assert not agreement.pictures_agree


def test_another_dimension_is_another_model(encoder: EncoderPort) -> None:
    class Short(Server):
        def embed(self, image: bytes) -> Sequence[float]:
            return list(super().embed(image))[:512]

    with pytest.raises(ServerFailure, match=r"512 numbers.*768: it serves another model"):
        VerifyServer(encoder, right, DEVIATIONS)(Short(encoder, right), pictures(), TEXTS)


def test_what_the_checkpoint_asks_for_is_no_deviation() -> None:
    named = {each.what for each in deviations_from(SIGLIPS_OWN)}
    assert "squashes pictures into a square" not in named
    assert "normalises to -1 to 1" not in named
    assert "normalises with CLIP's mean and standard deviation" in named


def test_the_preprocessing_is_read_without_the_weights(
    hugging_face_directory: Path, open_clip_directory: Path, tmp_path: Path
) -> None:
    write_bundle(read_checkpoint(str(hugging_face_directory)), tmp_path / "bundle")
    for source in (hugging_face_directory, open_clip_directory, tmp_path / "bundle"):
        assert preprocessing_of(str(source)) == CLIPS_OWN
    assert preprocessing_of(DEMO) == read_checkpoint(DEMO).preprocessing
