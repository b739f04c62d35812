"""``export``, ``validate``, ``tensorrt`` and ``pipeline`` as a person calls them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from adapters.encoders.cuda import find_gpu
from adapters.models.reading import DEMO
from entrypoints.cli import main

no_gpu = pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env=environment)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "vision_encoder_fp16.onnx"
    result = run("export", "--model-path", DEMO, "--output", str(path))
    assert result.exit_code == 0, result.output
    assert "builtin:demo in fp16, 13 MiB, fingerprint " in result.stdout
    return path


def test_a_good_export_is_valid(exported: Path) -> None:
    result = run("validate", "--model-path", DEMO, "--onnx", str(exported))
    assert result.exit_code == 0, result.output
    cosine = float(result.stdout.split()[-1])
    assert cosine > 0.999


def test_the_checkpoint_may_come_from_the_environment(exported: Path) -> None:
    result = run("validate", "--onnx", str(exported), CLIP_MODEL_PATH=DEMO)
    assert result.exit_code == 0, result.output


def test_an_export_that_disagrees_fails(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported.parent, tmp_path / "copy")
    copy = tmp_path / "copy" / exported.name
    model = onnx.load(copy, load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "Softmax":
            node.op_type = "Identity"
            del node.attribute[:]
    copy.write_bytes(model.SerializeToString())
    result = run("validate", "--model-path", DEMO, "--onnx", str(copy))
    assert result.exit_code == 1
    assert "is too low: more than 0.99 is needed" in result.stderr


def test_another_checkpoints_export_is_refused(
    exported: Path, hugging_face_directory: Path
) -> None:
    result = run("validate", "--model-path", str(hugging_face_directory), "--onnx", str(exported))
    assert result.exit_code == 1
    assert "was exported from another checkpoint" in result.stderr


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.onnx")
    result = run("tensorrt", "--onnx", missing, "--output", str(tmp_path / "x.engine"))
    assert result.exit_code == 1
    assert result.stderr == f"{missing} does not exist; make it with: clip-server export\n"
    result = run("export", "--model-path", str(tmp_path / "no"), "--output", missing)
    assert result.exit_code == 1
    assert "does not exist" in result.stderr
    result = run("validate", "--model-path", DEMO, "--onnx", missing)
    assert result.exit_code == 1
    assert "is not a valid ONNX file" in result.stderr


def test_the_precision_must_be_the_exports(exported: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "x.engine")
    result = run("tensorrt", "--onnx", str(exported), "--output", target, "--precision", "fp32")
    assert result.exit_code == 1
    assert "was exported in fp16, not in fp32; use --precision fp16" in result.stderr


_WITHOUT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None  # as if it were not installed
from entrypoints.cli import main
main()
"""


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("onnx", ["export", "--output", "x.onnx"]),
        ("onnx", ["validate", "--onnx", "x.onnx"]),
        ("onnx", ["pipeline", "--output-dir", "x"]),
        ("onnxruntime", ["validate", "--onnx", "x.onnx"]),
        ("onnxruntime", ["pipeline", "--output-dir", "x"]),
    ],
)
def test_what_is_not_installed_is_told_with_the_command_that_installs_it(
    missing: str, command: list[str], exported: Path, tmp_path: Path
) -> None:
    for file in exported.parent.iterdir():
        if file.suffix in {".onnx", ".data"}:
            shutil.copy(file, tmp_path)
    (tmp_path / exported.name).rename(tmp_path / "x.onnx")
    result = subprocess.run(
        [sys.executable, "-c", _WITHOUT, missing, *command],
        cwd=tmp_path,
        env={**os.environ, "CLIP_MODEL_PATH": DEMO, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert f"{sys.executable} -m pip install" in last
    assert "[engine]" in last


@pytest.mark.parametrize("option", [("--precision", "int8"), ("--max-batch", "0")])
def test_what_is_not_allowed_is_told(option: tuple[str, str]) -> None:
    result = run("pipeline", *option)
    assert result.exit_code == 2
    assert option[0] in result.stderr


@pytest.mark.parametrize("value", ["ada", "8", "8.", "sm_89"])
def test_what_is_no_architecture_is_told(value: str) -> None:
    result = run("tensorrt", "--architecture", value)
    assert result.exit_code == 2
    assert "is not a compute capability such as 8.9" in result.stderr


@no_gpu
def test_without_a_gpu_it_says_what_can_be_done(exported: Path, tmp_path: Path) -> None:
    result = run(
        "tensorrt", "--model-path", DEMO, "--onnx", str(exported), "--output", str(tmp_path / "x")
    )
    assert result.exit_code == 1
    assert "needs an NVIDIA GPU" in result.stderr
    assert "name it with --architecture" in result.stderr
    assert not (tmp_path / "x").exists()


def test_the_pipeline_makes_everything_where_the_server_looks(tmp_path: Path) -> None:
    engine = tmp_path / "models" / "vision_encoder_fp16.engine"
    result = run(
        "pipeline",
        "--architecture",
        "8.9",
        "--max-batch",
        "16",
        CLIP_MODEL_PATH=DEMO,
        CLIP_ENGINE_PATH=str(engine),
    )
    assert result.exit_code == 0, result.output
    assert "smallest cosine against PyTorch" in result.stdout
    assert "not compared with PyTorch yet" in result.stdout
    assert {path.suffix for path in engine.parent.iterdir()} == {
        ".onnx",
        ".data",
        ".engine",
        ".json",
    }
    described = json.loads(engine.with_name(engine.name + ".json").read_text())
    assert described["identity"]["largest_batch"] == 16
    assert described["identity"]["architecture"] == "8.9"
