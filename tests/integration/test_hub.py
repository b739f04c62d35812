"""Models by their names on a hub: the real `huggingface_hub` against a hub of the tests' own.

Each runs in a process of its own, since that library reads its environment when it is imported.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch

from adapters.models.checkpoint import Checkpoint
from adapters.models.hub import Download, is_hub_name
from adapters.models.open_clip_tags import FILE, find_tag
from adapters.models.reading import read_checkpoint
from adapters.models.weights_files import read_weights
from checks.open_clip_tags import as_text, table
from tests.support.families import save_open_clips, save_siglip, small_siglip
from tests.support.hub import COMMIT, Hub, model_hub

NAME = "someone/clip"
WEIGHTS = "model.safetensors"
CHUNK = 10 * 1024 * 1024
"""Bytes that `huggingface_hub` writes at once."""
READ = """
import sys
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.models.reading import fetched, read_checkpoint
source, promised = sys.argv[1], int(sys.argv[2])
try:
    print("fingerprint", read_checkpoint(fetched(source, promised=promised)).fingerprint)
except InvalidCheckpoint as refused:
    print(refused)
assert "torch" not in sys.modules
"""


@pytest.fixture
def hub(hugging_face_directory: Path) -> Iterator[Hub]:
    with model_hub() as hub:
        hub.add(NAME, hugging_face_directory)
        # What other frameworks need, and must not be fetched.
        hub.repositories[NAME] |= {
            "pytorch_model.bin": b"x" * 9000,
            "tf_model.h5": b"x" * 9000,
            "README.md": b"# CLIP",
        }
        yield hub


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def started(
    hub: Hub | None, home: Path, source: str = NAME, promised: int = 768, **environment: str
) -> "subprocess.Popen[str]":
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
    }
    endpoint = "http://127.0.0.1:9" if hub is None else hub.url
    return subprocess.Popen(
        [sys.executable, "-c", READ, source, str(promised)],
        env={**variables, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(hub: Hub | None, home: Path, source: str = NAME, promised: int = 768, **env: str) -> str:
    with started(hub, home, source, promised, **env) as process:
        out, failed = process.communicate(timeout=120)
    assert process.returncode == 0, failed
    return out.strip()


@pytest.fixture
def expected(hugging_face_directory: Path) -> str:
    return f"fingerprint {read_checkpoint(str(hugging_face_directory)).fingerprint}"


def test_only_what_is_needed_is_fetched_and_only_once(hub: Hub, home: Path, expected: str) -> None:
    assert said(hub, home) == expected
    fetched = {path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET"}
    assert fetched & hub.repositories[NAME].keys() == {"config.json", WEIGHTS}
    hub.requests.clear()
    for source in (NAME, f"{NAME}@main", f"{NAME}@{COMMIT}"):
        assert said(hub, home, source) == expected
    assert not [path for method, path, _ in hub.requests if method == "GET" and "resolve" in path]


def test_a_siglip_model_brings_its_tokenizer(hub: Hub, home: Path, tmp_path: Path) -> None:
    directory = save_siglip(small_siglip(), tmp_path / "siglip", size=64)
    hub.add("someone/siglip", directory)
    hub.repositories["someone/siglip"]["spiece.model"] = b"x" * 9000
    expected = f"fingerprint {read_checkpoint(str(directory)).fingerprint}"
    assert said(hub, home, "someone/siglip", promised=96) == expected
    fetched = {path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET"}
    assert fetched & hub.repositories["someone/siglip"].keys() == {
        *("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
        WEIGHTS,
    }
    assert said(None, home, "someone/siglip", promised=96) == expected


@pytest.mark.long
def test_an_open_clip_tag_needs_no_pytorch_and_keeps_its_fingerprint(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    torch.manual_seed(6)
    config = open_clip.get_model_config("ViT-B-32")
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    directory = save_open_clips(model, config, {}, tmp_path / "weights")
    weights = read_weights(directory / "open_clip_model.safetensors")
    expected = Checkpoint("", {**config, "quick_gelu": True}, weights).fingerprint
    hub.add("timm/vit_base_patch32_clip_224.openai", directory)
    # What other programs read there, and is not to be taken for this.
    hub.repositories["timm/vit_base_patch32_clip_224.openai"] |= {
        "config.json": b"{}",
        "model.safetensors": b"x" * 9000,
    }
    found = said(hub, home, "ViT-B-32:openai", promised=512)
    assert found == f"fingerprint {expected}"
    assert said(None, home, "ViT-B-32:openai", promised=512) == found
    assert "set CLIP_EMBEDDING_DIMENSION=512" in said(hub, home, "ViT-B-32:openai")


def test_tags_are_those_of_the_installed_open_clip() -> None:
    assert FILE.read_text(encoding="utf-8") == as_text(table())
    tag = find_tag("ViT-L-14:openai")
    assert tag is not None
    assert tag.architecture is not None
    assert tag.architecture["quick_gelu"]
    assert find_tag("ViT-L-14:nobody") is None


def test_another_librarys_files_beside_open_clips_are_passed_over(
    hub: Hub, home: Path, open_clip_directory: Path
) -> None:
    hub.add("timm/clip", open_clip_directory)
    hub.repositories["timm/clip"] |= {
        "config.json": b'{"architecture": "vit_base_patch32_clip_224"}',
        "model.safetensors": b"x" * 9000,
    }
    expected = f"fingerprint {read_checkpoint(str(open_clip_directory)).fingerprint}"
    assert said(hub, home, "timm/clip") == expected
    assert said(None, home, "timm/clip") == expected


def test_what_is_there_is_known_without_asking(hub: Hub, home: Path, expected: str) -> None:
    asked = (
        "import sys\nfrom adapters.models.hub import is_downloaded\n"
        f"print(is_downloaded({NAME!r}), is_downloaded('no/body'), is_downloaded('clip'))"
    )

    def known() -> str:
        environment = {**os.environ, "HF_HOME": str(home)}
        return subprocess.check_output([sys.executable, "-c", asked], text=True, env=environment)

    assert known().split() == ["False", "False", "False"]
    assert said(hub, home) == expected
    assert known().split() == ["True", "False", "False"]


def test_what_is_there_is_served_without_a_network(hub: Hub, home: Path, expected: str) -> None:
    assert said(hub, home) == expected
    hub.requests.clear()
    assert said(hub, home, HF_HUB_OFFLINE="1") == expected
    assert hub.requests == []
    assert said(None, home) == expected


def test_without_a_network_and_without_the_model(hub: Hub, home: Path) -> None:
    assert said(hub, home, HF_HUB_OFFLINE="1") == (
        f"{NAME} is neither a directory here nor downloaded yet, and HF_HUB_OFFLINE is set. To get "
        "it, unset HF_HUB_OFFLINE, or download it on another machine and copy HF_HOME."
    )
    assert "and the hub cannot be reached (ConnectError)" in said(None, home)


def test_a_cut_connection_is_continued(hub: Hub, home: Path, expected: str) -> None:
    hub.cut_after = [11_000_000]
    assert said(hub, home) == expected
    assert hub.sent(WEIGHTS) == ["", f"bytes={CHUNK}-"]


def test_a_killed_process_is_continued(hub: Hub, home: Path, expected: str) -> None:
    hub.bytes_per_s = 4_000_000
    with started(hub, home) as process:
        deadline = time.monotonic() + 60
        while not any(file.stat().st_size for file in home.rglob("*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    hub.bytes_per_s = None
    assert said(hub, home) == expected
    _, rest = hub.sent(WEIGHTS)
    assert 0 < int(rest.removeprefix("bytes=").rstrip("-")) <= CHUNK


def test_damaged_bytes_are_never_served(hub: Hub, home: Path, expected: str) -> None:
    hub.damaged = True
    told = said(hub, home)
    assert f"{WEIGHTS} of {NAME} is damaged" in told
    assert "start again" in told
    hub.damaged = False
    assert said(hub, home) == expected


def test_bytes_that_were_changed_on_the_disk_are_noticed(
    hub: Hub, home: Path, expected: str
) -> None:
    assert said(hub, home) == expected
    (blob,) = {file.resolve() for file in home.rglob(WEIGHTS)}
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x55")
    assert "is damaged" in said(hub, home)
    assert said(hub, home) == expected


def test_what_does_not_fit_on_the_disk_is_not_begun(hub: Hub, home: Path) -> None:
    hub.listed_sizes[WEIGHTS] = 10**15
    told = said(hub, home)
    assert told.startswith(f"{NAME} takes 1,000,000,000 MB, and only ")
    assert "HF_HOME" in told
    assert hub.sent(WEIGHTS) == []


def test_an_agreement_is_asked_for(hub: Hub, home: Path) -> None:
    hub.gated.add(NAME)
    told = said(hub, home)
    assert told.startswith(f"{NAME} requires you to accept its terms: do so at {hub.url}/{NAME}")
    assert "HF_TOKEN" in told


def test_a_new_name_is_followed(hub: Hub, home: Path, expected: str) -> None:
    hub.renamed["old/name"] = NAME
    assert said(hub, home, "old/name") == expected


def test_what_the_hub_does_not_have(hub: Hub, home: Path) -> None:
    assert said(hub, home, "no/body").startswith(
        "no/body is neither a directory here nor a public model"
    )
    assert "no revision 'v9'" in said(hub, home, f"{NAME}@v9")
    hub.repositories["text/only"] = {"config.json": b"{}", "model.gguf": b"x" * 9000}
    assert "holds no checkpoint in Hugging Face's or OpenCLIP's layout" in said(
        hub, home, "text/only"
    )


def test_what_cannot_be_served_is_refused_before_its_weights_are_fetched(
    hub: Hub, home: Path
) -> None:
    assert "set CLIP_EMBEDDING_DIMENSION=768" in said(hub, home, promised=512)
    hub.repositories["a/bert"] = {
        **hub.repositories[NAME],
        "config.json": json.dumps({"model_type": "bert"}).encode(),
    }
    assert "model_type 'bert'" in said(hub, home, "a/bert")
    assert hub.sent(WEIGHTS) == []


@pytest.mark.parametrize("name", ["a--b/c", "a/b..c", f"a/{'b' * 120}", f"a/{'b' * 5000}"])
def test_what_no_hub_allows_is_refused(hub: Hub, home: Path, name: str) -> None:
    assert "nor a valid name on the hub" in said(hub, home, name)


def test_a_broken_hub_is_told_from_a_missing_model(hub: Hub, home: Path) -> None:
    hub.failing = 502
    assert "the hub responded with status 502" in said(hub, home)


def test_what_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openai/clip-vit-large-patch14", "org/name@main", "org/name@refs/pr/1"):
        assert is_hub_name(name)
    for other in ("/models/clip", "./models/clip", "../clip", "clip", "builtin:demo", "a/b/c", ""):
        assert not is_hub_name(other)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "clip").mkdir(parents=True)
    assert not is_hub_name("models/clip")


def test_how_far_it_is() -> None:
    now_s = 100.0
    download = Download(clock=lambda: now_s)
    download.begin("x/y", 1_710_000_000)
    download.advance(12_000_000, fetched=False)  # from an earlier attempt
    download.advance(400_000_000)
    now_s += 10
    texts = [download.text]
    download.end()
    texts.append(download.text)
    assert texts == ["downloading x/y: 412 of 1,710 MB, 40 MB/s.", None]
