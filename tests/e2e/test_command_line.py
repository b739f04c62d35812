"""The command ``clip-server`` as a person calls it."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.system.hardware import usable_cores
from entrypoints.commands.doctor import _two_digits
from tests.support.servers import SERVE, free_port, running, wait_for


def run(
    *arguments: str, encoding: str = "utf-8", **environment: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "entrypoints.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        encoding=encoding,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "http"), ("CLIP_MAX_BATCH_TEXTS_SIZE", "0"), ("CLIP_ENCODER", "x")]
)
def test_a_bad_value_stops_the_start_with_one_line(name: str, value: str) -> None:
    result = run(SERVE[-1], **{name: value})
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{name}={value!r} is not allowed: it must be")


def test_serve_explains_its_settings_and_takes_the_common_ones_as_options() -> None:
    page = " ".join(run("serve", "--help").stdout.split())  # lines break anywhere
    for told in ("--host", "--port", "--model", "CLIP_MAX_REQUESTS", "from 0 to 65535"):
        assert told in page
    refused = run("serve", "--port", "http")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("--port='http' is not allowed: it must be a whole number")


@pytest.mark.skipif(Path("/models/clip-vit-l").exists(), reason="there is a checkpoint")
def test_serve_says_how_to_bring_a_model_where_there_is_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(SERVE, log, CLIP_ENCODER="openvino", CLIP_MODEL_PATH=""):
        pass
    assert "docker run -v /your/checkpoint:/models/clip-vit-l:ro" in log.read_text()
    assert "CLIP_MODEL_PATH=builtin:demo" in log.read_text()


def test_help_names_the_commands() -> None:
    result = run("--help")
    assert result.returncode == 0
    for command in ("serve", "embed", "classify", "doctor", "bundle", "models", "verify"):
        assert f"\n  {command} " in result.stdout
        help_page = run(command, "--help").stdout
        assert "Example" in help_page
        assert f"clip-server {command}" in help_page
    assert run("--version").stdout.strip().endswith("0.1.0")


def test_classify_refuses_a_score_that_the_model_has_not() -> None:
    photo = "adapters/models/demo/held_out/cat.png"
    known = ("classify", photo, "a cat", "a dog", "--score")
    for score, words in (("sigmoid", "no logit bias"), ("cosine", "softmax, sigmoid")):
        refused = run(*known, score, CLIP_MODEL_PATH="builtin:demo")
        assert refused.returncode == 1
        assert words in refused.stderr


def test_models_lists_what_is_known_and_what_it_costs_here(tmp_path: Path) -> None:
    listed = run("models", HF_HOME=str(tmp_path))
    assert listed.returncode == 0
    assert "google/siglip2-base-patch16-224 " in listed.stdout
    assert "downloaded" not in listed.stdout
    rows = [json.loads(line) for line in run("models", "--json").stdout.splitlines()]
    times = {row["name"]: row["seconds_per_image"] for row in rows}
    slow, fast = times["openai/clip-vit-large-patch14"], times["google/siglip2-base-patch16-224"]
    assert slow > 4 * fast > 0


def test_verify_compares_a_running_server_with_a_checkpoint(tmp_path: Path) -> None:
    with running(SERVE, tmp_path / "log", CLIP_MODEL_PATH="builtin:demo") as server:
        wait_for(server, "/health/ready", 60)
        agreed = run("verify", server.url, "--model", "builtin:demo")
        assert agreed.returncode == 0, agreed.stderr
        assert "Pictures agree" in agreed.stdout
        assert "Texts agree." in agreed.stdout
        listed = run("verify", server.url, "--model", "builtin:demo", "--json")
        found = json.loads(listed.stdout)
        assert found["agrees"]
        assert min(found["pictures"].values()) > 0.999


def test_verify_says_what_is_wrong_with_a_server(tmp_path: Path) -> None:
    key = "open-sesame-open-sesame"
    with running(SERVE, tmp_path / "log", CLIP_ENCODER="fake", CLIP_API_KEYS=key) as server:
        wait_for(server, "/health/live")
        known = ("verify", server.url, "--model", "builtin:demo")
        refused = run(*known)
        assert refused.returncode == 1
        assert "/embed responds with status 401" in refused.stderr
        other = run(*known, "--key", key)
        assert other.returncode == 1
        assert "Pictures differ, and nothing that this command knows explains it" in other.stdout
    absent = run("verify", "ftp://nowhere", "--model", "builtin:demo")
    assert absent.returncode == 1
    assert "is not a URL such as http://localhost:8093" in absent.stderr


def test_help_loads_nothing_heavy() -> None:
    loads = "import sys, entrypoints.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", loads], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"numpy", "PIL", "litestar", "torch", "openvino", "tokenizers", "dependency_injector"}
    assert not heavy & set(loaded)


def test_the_shell_completes_commands_and_options() -> None:
    words = {"_CLIP_SERVER_COMPLETE": "bash_complete", "COMP_WORDS": "clip-server cl"}
    completed = subprocess.run(
        [Path(sys.executable).with_name("clip-server")],
        env={**os.environ, **words, "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout.split() == ["plain,classify"]


DEMO = {"CLIP_MODEL_PATH": "builtin:demo"}
MISSING = {"CLIP_MODEL_PATH": "/none", "CLIP_ENCODER": "openvino"}


def test_classify_prints_a_table_or_json() -> None:
    picture = "adapters/models/demo/held_out/ambulance.png"
    labels = ("a cat", "an ambulance", "a snowman")
    table = run("classify", picture, *labels, **DEMO)
    assert table.returncode == 0, table.stderr
    first, *others = table.stdout.splitlines()
    assert first.startswith("an ambulance ")
    assert len(others) == 2
    response = json.loads(run("classify", picture, *labels, "--json", **DEMO).stdout)
    assert response["top_label"] == "an ambulance"
    assert list(response["scores"]) == list(labels)
    assert sum(response["scores"].values()) == pytest.approx(1)
    assert f"{response['scores']['an ambulance']:.2%}" in first
    outdoors = run("classify", picture, *labels, "--camera-type", "outdoor", "--json", **DEMO)
    assert json.loads(outdoors.stdout)["scores"] != response["scores"]


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["README.md", "a"], DEMO, "is not an image file"),
        (["PICTURE", "a", "a"], DEMO, "repeats"),
        (["PICTURE", "a", "--camera-type", "x"], DEMO, "must be one of standard, night_vision"),
        (["PICTURE", "a"], MISSING, "/none does not exist"),
    ],
)
def test_classify_says_what_is_wrong(
    arguments: list[str], environment: dict[str, str], told: str
) -> None:
    picture = "adapters/models/demo/held_out/ambulance.png"
    named = [picture if argument == "PICTURE" else argument for argument in arguments]
    result = run("classify", *named, **environment)
    assert result.returncode == 1
    assert told in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_classify_says_that_one_label_alone_means_nothing() -> None:
    picture = "adapters/models/demo/held_out/ambulance.png"
    result = run("classify", picture, "an ambulance", "--json", **DEMO)
    assert result.returncode == 0
    assert json.loads(result.stdout)["scores"] == {"an ambulance": 1.0}
    assert "With a single label the score is always 100 %" in result.stderr


def test_classify_refuses_labels_that_are_not_utf_8() -> None:
    picture = "adapters/models/demo/held_out/ambulance.png"
    result = run("classify", picture, "a cat", os.fsdecode("caf\xe9".encode("latin-1")), **DEMO)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("label 2 (caf\\udce9) is not UTF-8 text")


def test_classify_prints_what_the_terminal_can_show() -> None:
    encoding = "latin-1"
    picture = "adapters/models/demo/held_out/ambulance.png"
    labels = ("an ambulance", "a caf\xe9 \u2192")
    environment = {**DEMO, "PYTHONIOENCODING": encoding}
    table = run("classify", picture, *labels, encoding=encoding, **environment)
    assert table.returncode == 0, table.stderr
    assert "###" in table.stdout
    assert "\\u2192" in table.stdout
    as_json = run("classify", picture, *labels, "--json", encoding=encoding, **environment)
    assert set(json.loads(as_json.stdout)["scores"]) == set(labels)


def test_doctor_tells_what_would_serve_and_why() -> None:
    port = free_port()
    result = run("doctor", **DEMO, HOST="127.0.0.1", PORT=str(port))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{usable_cores()} core" in result.stdout
    assert "openvino: there is no CUDA here, and OpenVINO is installed" in result.stdout
    assert "a719af8c107356b8" in result.stdout
    for name in ("one image", "batches of 8"):
        (line,) = (line for line in result.stdout.splitlines() if line.startswith(f"  {name}"))
        assert re.search(r"\d s an image, \d[\d.]* images a second$", line)
    assert "What would be faster" in result.stdout
    assert re.search(r"CLIP ViT-L/14( +\d[\d.]*)+\n", result.stdout)
    assert "No problems found: the server can start." in result.stdout
    assert "loading the model" in result.stderr


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.2849, "0.28"),
        (0.00412, "0.0041"),
        (3.0, "3.0"),
        (11.4, "11"),
        (243.7, "240"),
        (99.6, "100"),
    ],
)
def test_doctor_shows_two_significant_digits(number: float, text: str) -> None:
    assert _two_digits(number) == text


def test_doctor_fails_where_serving_would() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run("doctor", **MISSING, HOST="127.0.0.1", PORT=port)
    assert result.returncode == 1
    assert "/none does not exist" in result.stdout
    assert f"127.0.0.1:{port} cannot be used" in result.stdout
    assert f"port {port} on 127.0.0.1 is already taken by" in result.stdout


def test_doctor_knows_a_running_server(tmp_path: Path) -> None:
    with running(SERVE, tmp_path / "log", CLIP_ENCODER="fake") as server:
        wait_for(server, "/health/ready")
        port = server.url.rpartition(":")[2]
        result = run("doctor", CLIP_ENCODER="fake", HOST="127.0.0.1", PORT=port)
    assert result.returncode == 1, result.stdout + result.stderr
    taken = f"127.0.0.1:{port} is taken by another clip-server, with model fake"
    assert f"{taken}. Stop it, or choose another port with PORT or --port." in result.stdout


def test_a_bundle_is_made_and_never_overwritten(
    hugging_face_directory: Path, tmp_path: Path
) -> None:
    target = str(tmp_path / "bundle")
    made = run("bundle", str(hugging_face_directory), target)
    assert made.returncode == 0, made.stderr
    assert "fingerprint" in made.stdout
    again = run("bundle", str(hugging_face_directory), target)
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_a_missing_checkpoint_is_told(tmp_path: Path) -> None:
    result = run("bundle", str(tmp_path / "nothing"), str(tmp_path / "bundle"))
    assert result.returncode == 1
    assert "does not exist" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "command", [[], ["serve"], ["embed"], ["classify"], ["doctor"], ["export"]]
)
def test_help_shows_examples_line_by_line(command: list[str]) -> None:
    lines = run(*command, "--help").stdout.splitlines()
    (heading,) = (place for place, line in enumerate(lines) if line.startswith("  Example"))
    example = lines[heading + 1]
    assert example.startswith("    ")
    assert "clip-server" in example


@pytest.mark.long
def test_the_doctor_measures_every_encoder_of_this_processor(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "entrypoints.cli", "doctor", "--measure", "--seconds", "0.2"],
        env={
            **os.environ,
            "CLIP_MODEL_PATH": "builtin:demo",
            "CLIP_CACHE_DIR": str(tmp_path),
            "PORT": "0",
            # One image is slow enough on a busy machine.
            "CLIP_MAX_BATCH_SIZE": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.partition("Measured on this processor")[2].splitlines()
    rows = {line[:28].strip(): line[28:].split() for line in lines if "GiB" in line}
    assert {"OpenVINO fp32", "PyTorch fp32"} <= set(rows)
    for name, (rate, cosine, memory, unit) in rows.items():
        assert float(rate) > 0
        assert float(cosine) > (0.9999 if "fp32" in name else 0.999)
        assert float(memory) > 0.1
        assert unit == "GiB"
    assert "CLIP_ENCODER=auto uses" in run.stdout
    (kept,) = (tmp_path / "measured").iterdir()
    assert json.loads(kept.read_text())["encoder"] in {"openvino", "torch"}
