"""TensorRT's encoder from start to switch-over, on engines that ONNX Runtime runs."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from litestar.testing import AsyncTestClient

from adapters.encoders.reference import reference_embeddings
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.encoders.tensorrt.engine_file import read_engine, sidecar
from adapters.encoders.tensorrt.engines import Installation
from adapters.encoders.tensorrt_backend import DEFAULT_DIRECTORY, TensorRtBackend
from adapters.encoders.torch.encoder import TorchEncoder
from adapters.encoders.torch.text_tower import TorchTextTower
from adapters.images.photos import picture_samples
from adapters.models.precision import Precision
from adapters.models.reading import DEMO, read_checkpoint
from application.ports import CLIPS_INPUT, Device, EncoderLost, EncoderPort, EncoderUnavailable
from domain.embedding import Embedding, smallest_cosine
from domain.errors import ServiceUnavailable
from entrypoints.container import Container, http_service
from entrypoints.settings import read_settings
from tests.support.checkpoints import save_hugging_face, small_clip
from tests.support.engines import GPU, TENSORRT, Workshop
from tests.support.photos import as_base64, photo

CPU = Device("cpu", cuda_available=False)
Client = AsyncTestClient[Any]


def backend(source: Path | str, cache: Path, workshop: Workshop, **changes: Any) -> TensorRtBackend:
    return TensorRtBackend(
        str(source),
        768,
        upgrades=True,
        engine_path=cache / "tower.engine",
        largest_batch=4,
        cache=cache,
        device=CPU,
        engines_at=workshop.engines_at,
        make=workshop.make,
        **changes,
    )


def torch_encoder(source: Path) -> TorchEncoder:
    return TorchEncoder(read_checkpoint(str(source)), CPU, precision=Precision.FP32)


def expected_of(encoder: EncoderPort) -> list[Embedding]:
    return [
        Embedding.from_encoder(row) for row in encoder.encode_images(picture_samples(CLIPS_INPUT))
    ]


def test_made_beside_pytorch_it_agrees_and_shares_the_text_tower(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    workshop = Workshop()
    serving = torch_encoder(hugging_face_directory)
    made = backend(hugging_face_directory, tmp_path, workshop)
    assert made.wanted(serving.description)
    encoder = made.build(serving, expected_of(serving))
    assert not made.wanted(encoder.description)
    assert encoder.description.backend == "tensorrt"
    assert encoder.description.precision == "fp16"
    assert encoder.description.fingerprint == serving.description.fingerprint
    assert encoder.description.engine_path == str(tmp_path / "tower.engine")
    texts = ["a dog", "a delivery truck"]
    np.testing.assert_array_equal(encoder.encode_texts(texts), serving.encode_texts(texts))
    assert smallest_cosine(expected_of(encoder), expected_of(serving)) > 0.9999
    assert [batch.largest for batch in workshop.built] == [4]


def test_the_next_start_takes_the_engine_that_is_there(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    workshop = Workshop()
    made = backend(hugging_face_directory, tmp_path, workshop)
    with pytest.raises(EncoderUnavailable, match="does not exist"):
        made.load()
    first = made.load_or_make()
    second = made.load()
    assert len(workshop.built) == 1
    np.testing.assert_array_equal(
        first.encode_images(picture_samples(CLIPS_INPUT)[:3]),
        second.encode_images(picture_samples(CLIPS_INPUT)[:3]),
    )


def test_an_engine_that_tensorrt_refuses_is_built_again(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    workshop = Workshop()
    made = backend(hugging_face_directory, tmp_path, workshop)
    made.load_or_make()
    workshop.refusals = 3  # where it is looked for, before the lock is taken, and after
    made.load_or_make()
    assert len(workshop.built) == 2
    workshop.refusals = 100
    with pytest.raises(EncoderUnavailable, match="refuses the engine"):
        made.load_or_make()


def test_another_checkpoint_is_never_served_by_this_engine(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    workshop = Workshop()
    backend(hugging_face_directory, tmp_path, workshop).load_or_make()
    source = save_hugging_face(small_clip(hidden_act="gelu"), tmp_path / "other")
    other = backend(source, tmp_path, workshop)
    with pytest.raises(EncoderUnavailable, match="has fingerprint"):
        other.load()
    encoder = other.load_or_make()
    assert len(workshop.built) == 2
    reference = reference_embeddings(read_checkpoint(str(source)), picture_samples(CLIPS_INPUT))
    assert smallest_cosine(expected_of(encoder), reference) > 0.9999


def test_a_faulty_engine_is_not_put_in_place(hugging_face_directory: Path, tmp_path: Path) -> None:
    def forget_the_activation(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == "Sigmoid":
                node.op_type = "Tanh"

    workshop = Workshop()
    workshop.spoil = forget_the_activation
    serving = torch_encoder(hugging_face_directory)
    made = backend(hugging_face_directory, tmp_path, workshop)
    with pytest.raises(EncoderUnavailable, match=r"disagrees with PyTorch: cosine 0\.\d+ at 1 im"):
        made.build(serving, expected_of(serving))
    assert not (tmp_path / "tower.engine").exists()
    assert workshop.fused == [True, False]
    assert all(runner.closed for runner in workshop.runners)
    # It is not retried at every start, even if it might succeed, until something changes.
    workshop.spoil = lambda model: None
    with pytest.raises(EncoderUnavailable, match=r"disagrees.*It is not retried"):
        made.build(serving, expected_of(serving))
    assert len(workshop.built) == 2
    workshop.installation = Installation(TENSORRT, replace(GPU, driver="590"))
    made.build(serving, expected_of(serving))
    assert (tmp_path / "tower.engine").exists()


def test_an_engine_that_is_wrong_for_several_images_only_is_not_used(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    for size in (3, 4):
        workshop = Workshop()
        workshop.wrong_at = size
        made = backend(hugging_face_directory, tmp_path / str(size), workshop)
        with pytest.raises(EncoderUnavailable, match=f"cosine -.* at {size} images a call"):
            made.load_or_make()
        assert not (tmp_path / str(size) / "tower.engine").exists()


def test_fused_attention_that_is_wrong_is_built_unfused_once(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    def break_attention(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == "Softmax":
                node.op_type = "Sigmoid"
                del node.attribute[:]

    workshop = Workshop()
    workshop.spoil_fused = break_attention
    made = backend(hugging_face_directory, tmp_path, workshop)
    made.load_or_make()
    assert workshop.fused == [True, False]
    made.load_or_make()
    assert workshop.fused == [True, False]
    import json

    assert json.loads(sidecar(tmp_path / "tower.engine").read_text())["fused_attention"] is False
    # In float32 there is nothing to unfuse.
    exact = Workshop()
    exact.spoil = break_attention
    with pytest.raises(EncoderUnavailable, match="disagrees"):
        backend(
            hugging_face_directory, tmp_path / "fp32", exact, precision=Precision.FP32
        ).load_or_make()
    assert exact.fused == [True]


def test_an_engine_that_fails_at_a_later_start_is_disowned_and_torch_serves(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    workshop = Workshop()
    made = backend(hugging_face_directory, tmp_path, workshop)
    made.load_or_make()
    workshop.wrong_at = 3
    selection = EncoderSelection(
        EncoderChoice.AUTO,
        str(hugging_face_directory),
        precision=Precision.FP32,
        tensorrt=made,
        probe_gpu=lambda: Device("cpu", cuda_available=True),
    )
    assert selection.load().description.backend == "torch"
    assert workshop.runners[-1].closed
    workshop.wrong_at = None
    with pytest.raises(EncoderUnavailable, match=r"at 3 images.*It is not retried"):
        made.load()
    with pytest.raises(EncoderUnavailable, match=r"at 3 images.*It is not retried"):
        made.load_or_make()
    assert len(workshop.built) == 1


def test_an_engine_that_loses_the_device_is_not_tried_by_the_next_process(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    workshop = Workshop()
    made = backend(hugging_face_directory, tmp_path, workshop)
    made.load_or_make()
    workshop.lost = True
    with pytest.raises(EncoderLost):
        made.load()
    workshop.lost = False  # the process was restarted
    with pytest.raises(EncoderUnavailable, match=r"failed: the GPU failed.*not retried"):
        made.load()


def test_a_larger_batch_has_the_engine_rebuilt_and_a_smaller_one_has_not(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    workshop = Workshop()
    made = backend(hugging_face_directory, tmp_path, workshop)
    made.load_or_make()
    replace(made, largest_batch=2).load_or_make()
    assert [batch.largest for batch in workshop.built] == [4]
    replace(made, largest_batch=6).load_or_make()
    assert [batch.largest for batch in workshop.built] == [4, 6]


def test_batches_beyond_the_profile_are_split(hugging_face_directory: Path, tmp_path: Path) -> None:
    workshop = Workshop()
    encoder = backend(hugging_face_directory, tmp_path, workshop).load_or_make()
    runner = workshop.runners[-1]
    runner.batches.clear()
    whole = encoder.encode_images(picture_samples(CLIPS_INPUT)[:11])
    assert runner.batches == [4, 4, 3]
    singly = np.concatenate(
        [encoder.encode_images(picture_samples(CLIPS_INPUT)[n : n + 1]) for n in range(11)]
    )
    np.testing.assert_allclose(whole, singly, atol=1e-3)


def test_out_of_memory_halves_the_batch_and_goes_on(
    hugging_face_directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workshop = Workshop()
    encoder = backend(hugging_face_directory, tmp_path, workshop).load_or_make()
    runner = workshop.runners[-1]
    before = encoder.encode_images(picture_samples(CLIPS_INPUT)[:7])
    runner.batches.clear()
    runner.room = 1
    np.testing.assert_allclose(
        encoder.encode_images(picture_samples(CLIPS_INPUT)[:7]), before, atol=1e-3
    )
    assert runner.batches == [1] * 7
    assert "continuing with 2 images at a time" in caplog.text
    runner.room, runner.batches = 4, []
    encoder.encode_images(picture_samples(CLIPS_INPUT)[:7])
    assert runner.batches == [4, 3]
    runner.room = 0
    with pytest.raises(ServiceUnavailable, match="does not have enough free memory") as caught:
        encoder.encode_images(picture_samples(CLIPS_INPUT)[:2])
    assert caught.value.code == "out_of_device_memory"
    runner.lost = True
    with pytest.raises(EncoderLost):
        encoder.encode_images(picture_samples(CLIPS_INPUT)[:2])


def test_what_cannot_be_had_says_why(hugging_face_directory: Path, tmp_path: Path) -> None:
    serving = torch_encoder(hugging_face_directory).description
    workshop = Workshop(EncoderUnavailable("TensorRT is not installed"))
    with pytest.raises(EncoderUnavailable, match="is not installed"):
        backend(hugging_face_directory, tmp_path, workshop).wanted(serving)
    quantised = backend(hugging_face_directory, tmp_path, Workshop(), precision=Precision.INT8)
    with pytest.raises(EncoderUnavailable, match="CLIP_PRECISION=int8 is not possible"):
        quantised.wanted(serving)
    with pytest.raises(EncoderUnavailable, match="does not exist"):
        backend(tmp_path / "nothing", tmp_path, Workshop()).load()
    blocked = tmp_path / "a-file"
    blocked.write_text("no directory")
    with pytest.raises(EncoderUnavailable, match=r"CLIP_ENGINE_PATH=.*cannot be written"):
        backend(hugging_face_directory, blocked, Workshop()).load_or_make()


def test_where_the_engine_goes_unless_it_is_said(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    assert not DEFAULT_DIRECTORY.exists(), "this machine has a directory of the contract's"
    workshop = Workshop()
    made = TensorRtBackend(
        str(hugging_face_directory),
        768,
        cache=tmp_path,
        device=CPU,
        engines_at=workshop.engines_at,
        make=workshop.make,
    ).load_or_make()
    fingerprint = made.description.fingerprint
    assert made.description.engine_path == str(tmp_path / "engines" / f"{fingerprint}-fp16.engine")


def test_a_model_directory_that_cannot_be_written_is_no_place_for_a_new_engine(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    models, cache, workshop = tmp_path / "models", tmp_path / "cache", Workshop()
    models.mkdir()
    made = TensorRtBackend(
        str(hugging_face_directory),
        cache=cache,
        default_directory=models,
        device=CPU,
        engines_at=workshop.engines_at,
        make=workshop.make,
        writable=lambda directory: False,
    )
    first = made.load_or_make()
    assert str(first.description.engine_path).startswith(str(cache))
    second = replace(made, writable=lambda directory: True).load_or_make()
    assert second.description.engine_path == str(models / "vision_encoder_fp16.engine")
    # One that was put there is used, whether the directory can be written or not.
    third = made.load_or_make()
    assert third.description.engine_path == second.description.engine_path
    assert len(workshop.built) == 2


def test_without_pytorch_the_text_tower_is_the_bundles(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    from adapters.artifacts.store import Store
    from adapters.encoders.onnxruntime.towers import OnnxTextTower
    from adapters.export.bundles import bundle_of

    tower = OnnxTextTower(bundle_of(str(hugging_face_directory), Store(tmp_path)))
    texts = ["a dog", "a delivery truck in the rain", "dog " * 90, "日本 🎉"]
    expected = torch_encoder(hugging_face_directory).encode_texts(texts)
    rows = tower.encode_texts(texts)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=1e-4)


def test_a_device_that_pytorch_loses_is_lost_too() -> None:
    class Model:
        def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
            raise torch.AcceleratorError("CUDA error: an illegal memory access\nmore")

    demo = read_checkpoint(DEMO)
    other = replace(demo, architecture={**demo.architecture, "custom_text": True})
    tower = TorchTextTower(Model(), other, torch.device("cpu"))
    with pytest.raises(
        EncoderLost, match=r"the GPU failed: CUDA error: an illegal memory access\."
    ):
        tower.encode_texts(["a dog"])


@pytest.fixture
def container(hugging_face_directory: Path, tmp_path: Path) -> Container:
    """The service as it is composed, on a CPU encoder, with a TensorRT that works."""
    return Container(
        settings=read_settings(
            {
                "CLIP_MODEL_PATH": str(hugging_face_directory),
                "CLIP_CACHE_DIR": str(tmp_path / "cache"),
                "CLIP_PRECISION": "fp32",
            }
        )
    )


async def serving_and_saying_why(client: Client) -> dict[str, Any]:
    """The health, once a model is loaded and it is known why TensorRT is not what responses."""
    async with asyncio.timeout(120):
        while True:
            health: dict[str, Any] = (await client.get("/health")).json()
            if health["backend_reason"]:
                return health
            await asyncio.sleep(0)  # the client itself never yields


async def test_the_service_switches_over_under_load(
    container: Container, hugging_face_directory: Path, tmp_path: Path
) -> None:
    workshop = Workshop()
    workshop.gate.clear()
    made = backend(hugging_face_directory, tmp_path, workshop, precision=Precision.FP32)
    container.tensorrt.override(made)
    body = {"image": as_base64(photo("cat"))}
    async with AsyncTestClient(http_service(container)) as client:
        before = await serving_and_saying_why(client)
        assert before["backend"] == "openvino"
        assert "being built" in before["backend_reason"]
        assert before["tensorrt_engine_path"] is None
        responses: list[list[float]] = []

        async def ask() -> None:
            response = await client.post("/embed", json=body)
            assert response.status_code == 200
            responses.append(response.json()["embedding"])

        await ask()
        workshop.gate.set()
        async with asyncio.timeout(120):
            while container.model().described().backend != "tensorrt":
                await ask()
                await asyncio.sleep(0)  # the client itself never yields
        after = (await client.get("/health")).json()
        assert (after["status"], after["backend"]) == ("healthy", "tensorrt")
        assert after["tensorrt_engine_path"] == str(tmp_path / "tower.engine")
        assert after["backend_reason"] is None
        assert after["model_fingerprint"] == before["model_fingerprint"]
        responses.append((await client.post("/embed", json=body)).json()["embedding"])
        assert min(float(np.dot(a, responses[-1])) for a in responses) > 0.9999
        for path, fields in (
            ("/anomaly-score", {"baseline_embedding": responses[0]}),
            ("/classify", {"labels": ["a dog", "a cat"], "use_ensemble": True}),
            ("/similarity", {"text": "a cat"}),
            ("/batch-similarity", {"texts": ["a dog", "a cat"]}),
        ):
            assert (await client.post(path, json={**body, **fields})).status_code == 200
        workshop.runners[-1].lost = True
        lost = await client.post("/embed", json=body)
        assert (lost.status_code, lost.json()["code"]) == (503, "model_not_loaded")
        assert (await client.get("/health/ready")).status_code == 503
        live = await client.get("/health/live")
        assert (live.status_code, live.json()) == (503, {"status": "lost"})
        health = (await client.get("/health")).json()
        assert health["status"] == "degraded"
        assert "cudaErrorIllegalAddress" in health["reason"]


async def test_without_a_gpu_the_service_says_so_and_serves(
    container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with AsyncTestClient(http_service(container)) as client:
        health = await serving_and_saying_why(client)
        assert (health["status"], health["backend"]) == ("healthy", "openvino")
        assert health["backend_reason"] == "TensorRT needs an NVIDIA GPU, and there is none here."
        told = {(r.levelname, r.getMessage()) for r in caplog.records}
        assert ("INFO", f"staying with openvino: {health['backend_reason']}") in told
        assert [message for level, message in told if level == "WARNING"] == []
        response = await client.post("/embed", json={"image": as_base64(photo("cat"))})
        assert response.status_code == 200


def test_the_record_says_what_was_built(hugging_face_directory: Path, tmp_path: Path) -> None:
    made = backend(hugging_face_directory, tmp_path, Workshop()).load_or_make()
    import json

    described = json.loads(sidecar(tmp_path / "tower.engine").read_text())
    assert described["identity"] == {
        "fingerprint": made.description.fingerprint,
        "precision": "fp16",
        "tensorrt": TENSORRT.identity,
        "architecture": GPU.architecture,
        "card": "NVIDIA Test, 58 multiprocessors",
        "driver": "580",
        "opset": 18,
        "largest_batch": 4,
    }
    assert described["fused_attention"] is True
    assert described["judgement"]["smallest_cosine"] > 0.999
    from adapters.encoders.tensorrt.engine_file import EngineIdentity

    record, _ = read_engine(tmp_path / "tower.engine", EngineIdentity(**described["identity"]))
    assert record.judgement is not None
    assert record.judgement.smallest_cosine == described["judgement"]["smallest_cosine"]
    assert record.judgement.expected.shape == (8, 768)
