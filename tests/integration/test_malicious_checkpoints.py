"""Checkpoints made by an enemy: refused with a reason, nothing of them run, memory bounded."""

import collections
import gzip
import io
import json
import math
import os
import pickle
import pickletools
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.artifacts.checksums import checksums_of
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.models.bundle import read_bundle
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.reading import DEMO_DIRECTORY, read_checkpoint
from application.ports import EncoderUnavailable


@pytest.fixture
def hugging_face(hugging_face_directory: Path, tmp_path: Path) -> Path:
    return shutil.copytree(hugging_face_directory, tmp_path / "hugging-face")


@pytest.fixture
def open_clip(open_clip_directory: Path, tmp_path: Path) -> Path:
    return shutil.copytree(open_clip_directory, tmp_path / "open-clip")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The demo model, which is a bundle."""
    return shutil.copytree(DEMO_DIRECTORY, tmp_path / "bundle")


def sealed(bundle: Path) -> None:
    """Record a bundle's files as they are now, as its maker would."""
    path = bundle / "bundle.json"
    described = json.loads(path.read_text())
    described["files"] = checksums_of(file for file in bundle.iterdir() if file != path)
    path.write_text(json.dumps(described))


def refusal(source: Path) -> str:
    with pytest.raises(InvalidCheckpoint) as caught:
        read_checkpoint(str(source))
    message = str(caught.value)
    assert len(message) < 2000
    return message


# Pickles


class Touch:
    """Unpickled, it makes a file: what an enemy's code could do instead is anything."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self._marker),))


class BuildTouch:
    """The same by BUILD: its state is handed to a method that is looked up by name."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (collections.OrderedDict, (), {"state": Touch(self._marker)})


def by_old_opcodes(marker: Path) -> bytes:
    """GLOBAL and REDUCE as protocol 0 writes them, by hand."""
    return f"cos\nmkdir\n(V{marker}\ntR.".encode()


def by_inst(marker: Path) -> bytes:
    """INST, which calls without REDUCE."""
    return f"(V{marker}\nios\nmkdir\n.".encode()


def by_nested_torch_load(marker: Path) -> bytes:
    """A function of PyTorch's own that would load another pickle, unrestricted."""
    inner = marker.with_suffix(".inner")
    inner.write_bytes(pickle.dumps(Touch(marker)))
    return f"ctorch.serialization\nload\n(V{inner}\ntR.".encode()


def in_legacy_format(marker: Path) -> bytes:
    """As PyTorch wrote before 1.6: several pickles one after the other."""
    file = io.BytesIO()
    torch.save({"logit_scale": Touch(marker)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def in_a_zip(thing: Any) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


def in_a_tar(marker: Path) -> bytes:
    """As PyTorch wrote in its first year."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Touch(marker))
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def as_a_script(marker: Path) -> bytes:
    """A TorchScript archive, which brings code along."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
        archive.writestr("archive/data.pkl", pickle.dumps(Touch(marker)))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/code/__torch__.py", "import os\n")
    return file.getvalue()


DISGUISES: dict[str, Callable[[Path], bytes]] = {
    "bare": lambda marker: pickle.dumps({"logit_scale": Touch(marker)}),
    "protocol 0": by_old_opcodes,
    "INST": by_inst,
    "BUILD": lambda marker: pickle.dumps(BuildTouch(marker)),
    "a nested load": by_nested_torch_load,
    "legacy": in_legacy_format,
    "zip": lambda marker: in_a_zip({"logit_scale": Touch(marker)}),
    "zip, in state_dict": lambda marker: in_a_zip({"state_dict": {"logit_scale": Touch(marker)}}),
    "zip, as a key": lambda marker: in_a_zip([torch.zeros(1), Touch(marker)]),
    "zip, as an attribute": lambda marker: in_a_zip(BuildTouch(marker)),
    "tar": in_a_tar,
    "TorchScript": as_a_script,
}


def test_the_disguises_would_work_on_whoever_just_unpickles(tmp_path: Path) -> None:
    """Otherwise the test below would prove nothing."""
    for number, name in enumerate(("bare", "protocol 0", "INST", "BUILD")):
        marker = tmp_path / str(number)
        content = DISGUISES[name](marker)
        assert list(pickletools.genops(content))
        pickle.loads(content)
        assert marker.is_dir(), name


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("file", ["pytorch_model.bin", "open_clip_pytorch_model.bin"])
def test_no_pickle_is_run(
    hugging_face: Path, open_clip: Path, tmp_path: Path, disguise: str, file: str
) -> None:
    directory = hugging_face if file == "pytorch_model.bin" else open_clip
    for weights in directory.glob("*.safetensors"):
        weights.unlink()
    marker = tmp_path / "pwned"
    (directory / file).write_bytes(DISGUISES[disguise](marker))
    message = refusal(directory)
    assert "not a plain file of tensors" in message or "damaged or truncated" in message
    assert not marker.exists()
    # Neither do the encoders go another way.
    for choice in (EncoderChoice.AUTO, EncoderChoice.TORCH, EncoderChoice.OPENVINO):
        with pytest.raises(EncoderUnavailable):
            EncoderSelection(choice, str(directory), 768).load()
    assert not marker.exists()


@pytest.mark.parametrize(
    "variables",
    [
        {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"},
    ],
)
def test_the_environment_cannot_turn_it_off(
    hugging_face: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    (hugging_face / "model.safetensors").unlink()
    marker = tmp_path / "pwned"
    torch.save({"logit_scale": Touch(marker)}, hugging_face / "pytorch_model.bin")
    program = (
        "import sys; from adapters.models.reading import read_checkpoint\n"
        "read_checkpoint(sys.argv[1])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(hugging_face)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "InvalidCheckpoint" in run.stderr
    assert not marker.exists()


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"a": torch.zeros(1).expand(10**12)}, "more numbers than it has bytes"),
        ({str(n): torch.zeros(4096) for n in range(1)} | {"b": torch.zeros(1).expand(1, 10**9)},
         "more numbers than it has bytes"),
        ({"a": torch.zeros(2, device="meta")}, "not plain"),
        ({"a": torch.eye(2).to_sparse()}, "plain"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "not plain"),
        ([torch.zeros(2)], "something other than named tensors"),
        ({1: torch.zeros(2)}, "something other than named tensors"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_what_they_seem(hugging_face: Path, tensors: Any, reason: str) -> None:
    (hugging_face / "model.safetensors").unlink()
    torch.save(tensors, hugging_face / "pytorch_model.bin")
    assert reason in refusal(hugging_face)


def test_an_archive_that_unpacks_to_more_is_refused(hugging_face: Path) -> None:
    (hugging_face / "model.safetensors").unlink()
    path = hugging_face / "pytorch_model.bin"
    plain = io.BytesIO(in_a_zip({"a": torch.zeros(25_000_000)}))
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
    assert path.stat().st_size < 1_000_000
    assert "compressed archive" in refusal(hugging_face)


# Safetensors whose header lies


def with_header(path: Path, header: bytes, *, length: int | None = None, rest: int = 64) -> None:
    stated = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", stated) + header + bytes(rest))


def entry(shape: Any, offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry([1], [-4, 0])},
        {"a": entry([1], [0, 2**63])},
        {"a": entry([1], [60, 68])},
        {"a": entry([1], [4, 0])},
        {"a": entry([1], [0.0, 4.0])},
        {"a": entry([1], ["0", "4"])},
        {"a": entry([1], [0])},
        {"a": entry([-1, -1], [0, 4])},
        {"a": entry([2**32, 2**32], [0, 0])},
        {"a": entry([2**62, 4], [0, 0])},
        {"a": entry([0], [0, 0])},
        {"a": entry(["1"], [0, 4])},
        {"a": entry([True], [0, 4])},
        {"a": entry([1] * 1000, [0, 4])},
        {"a": entry([10**4000] * 8, [0, 4])},
        {"a": entry("1", [0, 4])},
        {"a": entry(None, [0, 4])},
        {"a": entry([1], [0, 4], "F8_E4M3")},
        {"a": entry([1], [0, 4], ["F32"])},
        {"a": entry([1], [0, 4]), "b": entry([1], [0, 4])},
        {"a": entry([2], [0, 8]), "b": entry([2], [4, 12])},
        {"a": [1, 2]},
        {"a": None},
        [],
        "a",
        None,
        math.nan,
    ],
    ids=lambda header: json.dumps(header)[:60],
)
def test_a_header_that_lies(hugging_face: Path, header: Any) -> None:
    with_header(hugging_face / "model.safetensors", json.dumps(header).encode())
    assert "damaged or truncated" in refusal(hugging_face)


NAME_TWICE = b'{"a": %s, "a": %s}' % ((json.dumps(entry([1], [0, 4])).encode(),) * 2)


@pytest.mark.parametrize(
    ("header", "length", "reason"),
    [
        (b"{}", 2**64 - 1, "longer than the file"),
        (b"{}", 2**63, "longer than the file"),
        (b" " * (3 * 1024 * 1024), None, "more than 2097152"),
        (b"[" * 1_000_000, None, "recursion"),
        (b'{"a":' * 400_000, None, "recursion"),
        (b'{"a": ' + b"9" * 1_000_000 + b"}", None, "digits"),
        (NAME_TWICE, None, "a name twice"),
        (b'{"a": "\xff"}', None, "utf-8"),
        (b"", None, "damaged"),
    ],
    ids=["2**64", "2**63", "3 MiB", "lists", "objects", "digits", "twice", "bytes", "empty"],
)
def test_a_header_that_is_none(
    hugging_face: Path, header: bytes, length: int | None, reason: str
) -> None:
    with_header(hugging_face / "model.safetensors", header, length=length)
    assert reason in refusal(hugging_face)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite(hugging_face: Path, value: float) -> None:
    weights = load_file(hugging_face / "model.safetensors")
    weights["text_model.final_layer_norm.bias"][3] = value
    save_file(weights, hugging_face / "model.safetensors")
    for choice in (EncoderChoice.TORCH, EncoderChoice.OPENVINO):
        with pytest.raises(EncoderUnavailable, match=r"ln_final\.bias has NaN or infinity"):
            EncoderSelection(choice, str(hugging_face), 768).load()


@pytest.mark.parametrize("value", [[math.nan], [math.inf], [710.0], [-800.0], [1.0, 2.0]])
def test_a_logit_scale_that_is_none(hugging_face: Path, value: list[float]) -> None:
    weights = load_file(hugging_face / "model.safetensors")
    weights["logit_scale"] = torch.tensor(value)
    save_file(weights, hugging_face / "model.safetensors")
    with pytest.raises(InvalidCheckpoint, match="logit scale"):
        _ = read_checkpoint(str(hugging_face)).logit_scale
    for choice in (EncoderChoice.TORCH, EncoderChoice.OPENVINO):
        with pytest.raises(EncoderUnavailable):
            EncoderSelection(choice, str(hugging_face), 768).load()


# Descriptions


ABSURD = [10**9, 10**30, 0, -1, 1.5e308, "12", None, [], True]


@pytest.mark.parametrize("value", ABSURD, ids=str)
@pytest.mark.parametrize(
    "setting", ["hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size",
                "intermediate_size"],
)  # fmt: skip
def test_absurd_sizes_in_hugging_faces_layout(hugging_face: Path, setting: str, value: Any) -> None:
    path = hugging_face / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"][setting] = value
    path.write_text(json.dumps(config))
    # None stands for the usual, which this small model is not.
    for choice in (EncoderChoice.TORCH, EncoderChoice.OPENVINO):
        with pytest.raises(EncoderUnavailable):
            EncoderSelection(choice, str(hugging_face), 768).load()


@pytest.mark.parametrize("value", ABSURD, ids=str)
@pytest.mark.parametrize("setting", ["width", "layers", "patch_size", "mlp_ratio"])
def test_absurd_sizes_in_open_clips_layout(open_clip: Path, setting: str, value: Any) -> None:
    path = open_clip / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"][setting] = value
    path.write_text(json.dumps(config))
    for choice in (EncoderChoice.TORCH, EncoderChoice.OPENVINO):
        with pytest.raises(EncoderUnavailable):
            EncoderSelection(choice, str(open_clip), 768).load()


def test_sizes_that_a_model_could_have_but_its_weights_have_not(open_clip: Path) -> None:
    """800 GB, if it were built before it is compared."""
    path = open_clip / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"].update(width=16384, layers=60, head_width=64)
    path.write_text(json.dumps(config))
    with pytest.raises(EncoderUnavailable, match="do not belong together"):
        EncoderSelection(EncoderChoice.TORCH, str(open_clip), 768).load()


@pytest.mark.parametrize(
    "vision",
    [
        {"timm_model_name": "hf-hub:an-enemy/model"},
        {"timm_model_name": "local-dir:/an/enemy"},
        {"timm_model_name": "resnet18", "timm_model_pretrained": True},
    ],
)
def test_nothing_is_fetched_because_a_description_says_so(
    open_clip: Path, vision: dict[str, Any]
) -> None:
    path = open_clip / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"].update(vision)
    path.write_text(json.dumps(config))
    assert "would be fetched from a hub" in refusal(open_clip)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"a":' * 200_000,
        " " * 1_048_577,
        '{"model_type": "clip", "projection_dim": NaN}',
        '{"model_type": "clip", "text_config": 7}',
        '{"model_type": "clip", "text_config": {"hidden_act": []}}',
        '{"model_type": "clip", "projection_dim": ' + "9" * 5000 + "}",
    ],
    ids=lambda text: text[:50],
)
@pytest.mark.parametrize("name", ["config.json", "open_clip_config.json"])
def test_descriptions_that_are_none(
    hugging_face: Path, open_clip: Path, name: str, text: str
) -> None:
    directory = hugging_face if name == "config.json" else open_clip
    (directory / name).write_text(text)
    assert str(directory) in refusal(directory)


# Bundles


def load_bundle(directory: Path) -> str:
    with pytest.raises(EncoderUnavailable) as caught:
        EncoderSelection(EncoderChoice.OPENVINO, str(directory), 768).load()
    return str(caught.value)


def test_a_vocabulary_that_unpacks_without_end(bundle: Path) -> None:
    with gzip.open(bundle / "vocabulary.txt.gz", "wb") as file:
        for _ in range(300):
            file.write(bytes(1_000_000))
    assert (bundle / "vocabulary.txt.gz").stat().st_size < 1_000_000
    sealed(bundle)
    assert "more than 16777216 bytes" in load_bundle(bundle)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not packed",
        # Without the time, which would make another name of the test in every second.
        gzip.compress(b"\xff" * 100, mtime=0),
        gzip.compress(b"a b c\n" * 50_000, mtime=0),
        gzip.compress(b"a b\n" * 100, mtime=0),
        gzip.compress(b"a b\n" * 50_000, mtime=0)[:-20],
    ],
)
def test_a_vocabulary_that_is_none(bundle: Path, content: bytes) -> None:
    (bundle / "vocabulary.txt.gz").write_bytes(content)
    sealed(bundle)
    assert "vocabulary.txt.gz cannot be used" in load_bundle(bundle)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fingerprint", "../../../../etc/passwd"),
        ("fingerprint", "0123456789abcdef\r\nSet-Cookie: a=b"),
        ("fingerprint", 7),
        ("logit_scale", math.nan),
        ("logit_scale", -1),
        ("embedding_dimension", math.inf),
        ("embedding_dimension", "x"),
    ],
)
def test_a_bundles_description_that_lies(bundle: Path, field: str, value: Any) -> None:
    path = bundle / "bundle.json"
    described = json.loads(path.read_text())
    described[field] = value
    path.write_text(json.dumps(described))
    with pytest.raises(InvalidCheckpoint, match=r"bundle\.json"):
        read_bundle(bundle)


@pytest.mark.parametrize("place", ["../outside.bin", "/etc/passwd", "weights/../../outside.bin"])
def test_graphs_cannot_take_weights_from_elsewhere(bundle: Path, place: str) -> None:
    import onnx

    weights = np.random.default_rng(1).bytes(40_000_000)
    (bundle.parent / "outside.bin").write_bytes(weights)
    graph = onnx.load(str(bundle / "image_tower.onnx"), load_external_data=False)
    changed = 0
    for tensor in graph.graph.initializer:
        for item in tensor.external_data:
            if item.key == "location":
                item.value = place
                changed += 1
    assert changed
    (bundle / "image_tower.onnx").write_bytes(graph.SerializeToString())
    assert load_bundle(bundle)


# All together


@pytest.mark.long
def test_memory_stays_bounded_whatever_is_refused(
    hugging_face: Path, open_clip: Path, bundle: Path, tmp_path: Path
) -> None:
    """One process refuses the greediest; its peak is little more than PyTorch's own."""
    bombs = []
    for number, config in enumerate(
        (
            {"width": 16384, "layers": 60},
            {"layers": 10**9},
        )
    ):
        directory = shutil.copytree(open_clip, tmp_path / str(number))
        described = json.loads((directory / "open_clip_config.json").read_text())
        described["model_cfg"]["vision_cfg"].update(config)
        (directory / "open_clip_config.json").write_text(json.dumps(described))
        bombs.append(directory)
    with_header(hugging_face / "model.safetensors", b"[" * 2_000_000)
    with gzip.open(bundle / "vocabulary.txt.gz", "wb") as file:
        for _ in range(2000):
            file.write(bytes(1_000_000))
    sealed(bundle)
    many = shutil.copytree(hugging_face, tmp_path / "many")
    with_header(many / "model.safetensors", b'{"__metadata__":[' + b"{}," * 680_000 + b"{}]}")
    bombs += [hugging_face, many, bundle]
    program = (
        "import pathlib, sys\n"
        "from adapters.encoders.selection import *\n"
        "from application.ports import EncoderUnavailable\n"
        "refused = 0\n"
        "for source in sys.argv[1:]:\n"
        "    try:\n"
        # PyTorch has a vocabulary of its own, and would serve the bundle's weights with it.
        "        choice = EncoderChoice.OPENVINO if source.endswith('bundle') else 'auto'\n"
        "        EncoderSelection(EncoderChoice(choice), source, 768).load()\n"
        "    except EncoderUnavailable as why:\n"
        "        print(why, file=sys.stderr)\n"
        "        refused += 1\n"
        # Not by getrusage: that counts what the parent had when it started this.
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(refused, status.split('VmHWM:')[1].split()[0])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *map(str, bombs)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    refused, peak_kib = map(int, run.stdout.split())
    assert refused == len(bombs)
    # Measured: 0.9 GiB, of which 0.75 are PyTorch's and OpenVINO's libraries.
    assert peak_kib < 1.5 * 1024 * 1024
