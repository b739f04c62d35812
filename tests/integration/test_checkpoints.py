"""Every layout a checkpoint may have, and every way in which one may be wrong."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.encoders.torch.encoder import TorchEncoder
from adapters.export.bundles import write_bundle
from adapters.models.architecture import architecture_name
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.precision import Precision
from adapters.models.reading import read_checkpoint
from application.ports import Device, EncoderUnavailable
from tests.support.checkpoints import save_hugging_face, small_clip

CPU = Device("cpu", cuda_available=False)


@pytest.fixture
def copy(hugging_face_directory: Path, tmp_path: Path) -> Path:
    """A Hugging Face directory to be damaged."""
    return shutil.copytree(hugging_face_directory, tmp_path / "copy")


@pytest.fixture
def open_clip_copy(open_clip_directory: Path, tmp_path: Path) -> Path:
    """An OpenCLIP directory to be damaged."""
    return shutil.copytree(open_clip_directory, tmp_path / "copy")


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def refusal(source: Path | str) -> str:
    with pytest.raises(InvalidCheckpoint) as caught:
        read_checkpoint(str(source))
    return str(caught.value)


def encode(source: Path) -> tuple[np.ndarray, np.ndarray]:
    encoder = TorchEncoder(read_checkpoint(str(source)), CPU, precision=Precision.FP32)
    pixels = np.random.default_rng(1).standard_normal((2, 3, 224, 224)).astype(np.float32)
    return encoder.encode_images(pixels), encoder.encode_texts(["a dog", "a cat"])


def test_both_layouts_are_one_checkpoint(
    hugging_face_directory: Path, open_clip_directory: Path
) -> None:
    one, other = (
        read_checkpoint(str(hugging_face_directory)),
        read_checkpoint(str(open_clip_directory)),
    )
    assert one.fingerprint == other.fingerprint
    for a, b in zip(encode(hugging_face_directory), encode(open_clip_directory), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_pickle_of_tensors_is_the_same_checkpoint(
    copy: Path, hugging_face_directory: Path
) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    expected = read_checkpoint(str(hugging_face_directory)).fingerprint
    assert read_checkpoint(str(copy)).fingerprint == expected


def test_safetensors_come_first(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"not even a pickle")
    read_checkpoint(str(copy))


def test_a_malicious_pickle_is_not_run(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "pwned"

    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps({"logit_scale": Malicious()}))
    assert "not a plain file of tensors" in refusal(copy)
    torch.save({"logit_scale": Malicious()}, copy / "pytorch_model.bin")
    assert "not a plain file of tensors" in refusal(copy)
    assert not marker.exists()


def test_the_activation_is_the_checkpoints_own(tmp_path: Path) -> None:
    gelu = save_hugging_face(small_clip(hidden_act="gelu"), tmp_path / "gelu")
    quick = save_hugging_face(small_clip(hidden_act="quick_gelu"), tmp_path / "quick")
    assert read_checkpoint(str(gelu)).fingerprint != read_checkpoint(str(quick)).fingerprint
    assert not np.array_equal(encode(gelu)[0], encode(quick)[0])


def test_one_changed_weight_changes_the_fingerprint(copy: Path) -> None:
    before = read_checkpoint(str(copy)).fingerprint
    weights = load_file(copy / "model.safetensors")
    weights["logit_scale"] += 1e-3
    save_file(weights, copy / "model.safetensors")
    assert read_checkpoint(str(copy)).fingerprint != before


def test_settings_left_out_are_transformers_defaults(copy: Path) -> None:
    edit_json(copy / "config.json", lambda c: c["text_config"].pop("layer_norm_eps"))
    edit_json(copy / "config.json", lambda c: c["vision_config"].pop("image_size"))
    read_checkpoint(str(copy))


def test_old_files_with_their_settings_elsewhere(copy: Path) -> None:
    before = read_checkpoint(str(copy)).fingerprint

    def as_openai_wrote_it(config: dict[str, Any]) -> None:
        config["text_config_dict"] = config.pop("text_config")
        config["vision_config_dict"] = config["vision_config"]
        config["text_config"] = None

    edit_json(copy / "config.json", as_openai_wrote_it)
    assert read_checkpoint(str(copy)).fingerprint == before


def test_a_token_table_of_some_rows_is_filled_up_with_zeros(open_clip_copy: Path) -> None:
    path = open_clip_copy / "open_clip_model.safetensors"
    weights = load_file(path)
    rows = torch.tensor([0, 5, 49406, 49407], dtype=torch.int32)
    table = weights["token_embedding.weight"]
    weights["token_embedding.weight"] = table[rows.long()].contiguous()
    weights["token_embedding.rows"] = rows
    save_file(weights, path)
    full = torch.tensor(
        read_checkpoint(str(open_clip_copy)).weights["token_embedding.weight"].array()
    )
    assert full.shape == table.shape
    assert torch.equal(full[rows.long()], table[rows.long()])
    assert full[1].abs().sum() == 0


def test_missing_says_what_to_do() -> None:
    message = refusal("/nowhere/clip")
    assert message.startswith("/nowhere/clip does not exist.")
    assert "builtin:demo" in message


def test_an_empty_directory_says_what_should_be_there(tmp_path: Path) -> None:
    assert "neither config.json" in refusal(tmp_path)
    assert "it is empty" in refusal(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "it holds model.safetensors" in refusal(tmp_path)


def test_a_file_is_not_said_to_be_missing(copy: Path) -> None:
    message = refusal(copy / "model.safetensors")
    assert "is a file; CLIP_MODEL_PATH must name the directory" in message
    assert str(copy) in message


POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 1710540580\n"
)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_a_git_lfs_pointer_is_named(name: str, copy: Path) -> None:
    if name == "pytorch_model.bin":
        (copy / "model.safetensors").unlink()
    (copy / name).write_text(POINTER)
    message = refusal(copy)
    assert f"{copy / name} is a Git LFS pointer" in message
    assert "git lfs pull" in message


AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
import adapters.encoders.openvino.encoder, adapters.encoders.torch.encoder, adapters.export.towers
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from application.ports import EncoderUnavailable
os.seteuid(65534)  # after the imports, since this user need not be able to read the program
for source in sys.argv[2:]:
    for choice in (EncoderChoice.TORCH, EncoderChoice.OPENVINO):
        try:
            EncoderSelection(choice, source, 768, cache=Path(sys.argv[1])).load()
        except EncoderUnavailable as refused:
            print(refused)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_may_not_be_read_is_not_called_damaged(copy: Path) -> None:
    with tempfile.TemporaryDirectory() as public:
        Path(public).chmod(0o777)
        sources = [Path(public) / name for name in ("weights", "config", "directory", "bundle")]
        for source in sources[:3]:
            shutil.copytree(copy, source)
        write_bundle(read_checkpoint(str(copy)), sources[3])
        names = ("model.safetensors", "config.json", ".", "bundle.json")
        for source, name in zip(sources, names, strict=True):
            (source / name).chmod(0o600)
        run = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER_USER, f"{public}/cache", *map(str, sources)],
            capture_output=True,
            text=True,
            check=False,
        )
    messages = run.stdout.splitlines()
    assert len(messages) == 2 * len(sources), run.stderr
    for message, source in zip(messages, [s for s in sources for _ in range(2)], strict=True):
        assert message.startswith(str(source))
        assert "cannot be read: Permission denied. Allow user 65534" in message
        assert "damaged" not in message
        assert "CLIP_CACHE_DIR" not in message


def test_a_directory_without_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "none of model.safetensors, pytorch_model.bin" in refusal(copy)


def test_an_unknown_tag_names_the_known_ones() -> None:
    message = refusal("ViT-L-14:nonsense")
    assert "'nonsense'" in message
    assert "openai" in message


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, 0.9])
def test_truncated_weights(copy: Path, keep: float) -> None:
    path = copy / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 else len(data) * keep)])
    assert "damaged or truncated" in refusal(copy)


def test_a_missing_tensor_is_named(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, copy / "model.safetensors")
    assert "visual_projection.weight" in refusal(copy)


@pytest.mark.parametrize("text", ["{", "[]", '"clip"', '{"model_type": "bert"}'])
def test_a_config_that_is_none(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    assert "config.json" in refusal(copy)


def test_other_inputs_than_the_service_prepares_are_refused(
    copy: Path, open_clip_copy_of_small: Path
) -> None:
    edit_json(copy / "config.json", lambda c: c["vision_config"].update(image_size=2048))
    assert "image_size is 2048; it must be above 0 and at most 1024" in refusal(copy)
    path = open_clip_copy_of_small / "open_clip_config.json"
    edit_json(path, lambda c: c["model_cfg"]["text_cfg"].update(hf_tokenizer_name="t5"))
    assert "lacks tokenizer.json" in refusal(open_clip_copy_of_small)
    edit_json(path, lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="gpt2"))
    assert "text tower is 'gpt2'" in refusal(open_clip_copy_of_small)


@pytest.fixture
def open_clip_copy_of_small(open_clip_directory: Path, tmp_path: Path) -> Path:
    """A second directory to be damaged in the same test."""
    return shutil.copytree(open_clip_directory, tmp_path / "open-clip-copy")


def test_weights_that_do_not_fit_their_config(copy: Path) -> None:
    edit_json(copy / "config.json", lambda c: c["vision_config"].update(hidden_size=32))
    with pytest.raises(InvalidCheckpoint, match="do not belong together"):
        encode(copy)


def test_another_embedding_dimension_is_refused(hugging_face_directory: Path) -> None:
    selection = EncoderSelection(EncoderChoice.TORCH, str(hugging_face_directory), 512)
    with pytest.raises(
        EncoderUnavailable, match=r"768 numbers.*promises 512.*set CLIP_EMBEDDING_DIMENSION=768"
    ):
        selection.load()


@pytest.mark.parametrize("choice", [EncoderChoice.OPENVINO, EncoderChoice.AUTO])
def test_int8_is_refused_where_it_would_be_no_faster(
    choice: EncoderChoice, hugging_face_directory: Path
) -> None:
    """Nor is PyTorch tried, whose refusal would hide the reason."""
    selection = EncoderSelection(
        choice,
        str(hugging_face_directory),
        768,
        precision=Precision.INT8,
        int8_is_faster=lambda: False,
        probe_gpu=lambda: Device("cpu", cuda_available=False),
    )
    with pytest.raises(EncoderUnavailable, match=r"no int8 instructions.*CLIP_PRECISION=auto"):
        selection.load()


def test_int8_is_not_for_torch(hugging_face_directory: Path) -> None:
    selection = EncoderSelection(
        EncoderChoice.TORCH, str(hugging_face_directory), 768, precision=Precision.INT8
    )
    with pytest.raises(EncoderUnavailable, match=r"CLIP_PRECISION=int8.*fp32, fp16, bf16"):
        selection.load()


def test_the_hubs_absence_is_told(tmp_path: Path) -> None:
    # In a process of its own, since the hub's client reads these variables when it is imported.
    program = (
        "from adapters.encoders.selection import *\n"
        "EncoderSelection(EncoderChoice.AUTO, 'ViT-L-14:openai', 768).load()"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "EncoderUnavailable" in run.stderr
    assert "timm/vit_large_patch14_clip_224.openai is neither a directory here nor" in run.stderr
    assert "HF_HUB_OFFLINE is set" in run.stderr


@pytest.mark.parametrize(
    ("vision", "text", "name"),
    [
        ({"width": 1024, "layers": 24, "patch_size": 14}, {}, "clip-vit-large-patch14"),
        ({"width": 768, "layers": 12, "patch_size": 32}, {}, "clip-vit-base-patch32"),
        (
            {"width": 1024, "layers": 24, "patch_size": 14, "image_size": 336},
            {},
            "clip-vit-large-patch14-336",
        ),
        (
            {"width": 768, "layers": 12, "patch_size": 32},
            {"hf_model_name": "xlm-roberta-base"},
            "clip-vit-base-patch32-xlm-roberta-base",
        ),
        ({"timm_model_name": "x"}, {}, "clip-x"),
        ({"layers": [1, 1, 1, 1], "width": 16}, {}, "clip-resnet"),
    ],
)
def test_names_of_architectures(vision: dict[str, Any], text: dict[str, Any], name: str) -> None:
    assert architecture_name({"vision_cfg": vision, "text_cfg": text}) == name
