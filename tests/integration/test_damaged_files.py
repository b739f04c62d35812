"""Files swapped, cut short or half-written: never another model's embedding, never a crash."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.export.bundles import write_bundle
from adapters.models.precision import Precision
from adapters.models.reading import read_checkpoint
from application.ports import EncoderLost, EncoderPort, EncoderUnavailable
from tests.support.checkpoints import save_hugging_face, small_clip

IMAGE = np.linspace(-1, 1, 3 * 224 * 224, dtype=np.float32).reshape(1, 3, 224, 224)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints of one shape whose files have the same length, and other weights."""
    directory = tmp_path_factory.mktemp("models")
    first = save_hugging_face(small_clip(), directory / "first")
    other = small_clip()
    for number, weights in enumerate(other.parameters()):
        weights.data.mul_(1.0 + 0.03 * (number % 7))
    return first, save_hugging_face(other, directory / "second")


def load(source: Path, cache: Path | None = None) -> EncoderPort:
    return EncoderSelection(
        EncoderChoice.OPENVINO, str(source), 768, precision=Precision.FP32, cache=cache
    ).load()


def made_by(encoder: EncoderPort) -> tuple[str, list[float]]:
    """What tells one model's responses from another's."""
    image = encoder.encode_images(IMAGE)[0]
    text = encoder.encode_texts(["a dog"])[0]
    return encoder.description.fingerprint, [*image.tolist(), *text.tolist()]


def check_same(encoder: EncoderPort, expected: tuple[str, list[float]]) -> None:
    fingerprint, numbers = made_by(encoder)
    assert fingerprint == expected[0]
    np.testing.assert_allclose(numbers, expected[1], atol=1e-5)


def overwrite(target: Path, source: Path) -> None:
    """The same inode with other bytes, as `cp` writes it."""
    target.write_bytes(source.read_bytes())


def test_a_checkpoint_overwritten_in_place_and_restored_is_itself_again(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    source = shutil.copytree(models[0], tmp_path / "checkpoint")
    cache = tmp_path / "cache"
    first, second = made_by(load(models[0])), made_by(load(models[1]))
    assert max(abs(a - b) for a, b in zip(first[1], second[1], strict=True)) > 0.01
    check_same(load(source, cache), first)
    weights = source / "model.safetensors"
    overwrite(weights, models[1] / weights.name)
    check_same(load(source, cache), second)
    weights.unlink()
    shutil.copyfile(models[0] / weights.name, weights)
    check_same(load(source, cache), first)
    check_same(load(models[1], cache), second)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "image_tower.onnx", "text_tower.onnx", "vocabulary.txt.gz"]
)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_a_damaged_bundle_is_refused_by_name(
    name: str, damage: str, models: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = write_bundle(read_checkpoint(str(models[0])), tmp_path / "bundle").directory
    damage_file(bundle / name, damage)
    with pytest.raises(EncoderUnavailable, match=name.replace(".", r"\.")):
        load(bundle)


def test_a_bundle_whose_weights_are_swapped_is_refused(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = write_bundle(read_checkpoint(str(models[0])), tmp_path / "bundle").directory
    overwrite(bundle / "model.safetensors", models[1] / "model.safetensors")
    with pytest.raises(EncoderUnavailable, match=r"model\.safetensors was changed"):
        load(bundle)


def test_another_bundle_at_the_same_path_is_not_answered_from_the_first_ones_cache(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    served, cache = tmp_path / "served", tmp_path / "cache"
    for model in (*models, models[0]):
        shutil.rmtree(served, ignore_errors=True)
        write_bundle(read_checkpoint(str(model)), served)
        check_same(load(served, cache), made_by(load(model)))


def test_nothing_on_disk_is_needed_while_it_serves(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    source, cache = shutil.copytree(models[0], tmp_path / "checkpoint"), tmp_path / "cache"
    expected = made_by(load(models[0]))
    for start in ("first", "second"):
        encoder = load(source, cache)
        mapped = {
            line.split(maxsplit=5)[5]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if str(tmp_path) in line
        }
        # Only what the server itself wrote and sealed.
        assert {Path(path).relative_to(cache).parts[0] for path in mapped} == {"compiled"}, start
        shutil.move(cache, tmp_path / "kept")
        for file in (tmp_path / "kept").rglob("*"):
            if file.is_file() and file.suffix != ".blob":
                before = file.stat()
                shutil.copyfile(file, tmp_path / "one")
                os.truncate(file, 0)
                check_same(encoder, expected)
                overwrite(file, tmp_path / "one")
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        shutil.move(tmp_path / "kept", cache)


def test_compiled_models_older_than_their_bundle_are_made_again(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    expected = made_by(load(models[0], cache))
    first = next(cache.rglob("*.blob")).stat().st_mtime_ns
    for graph in cache.rglob("*.onnx"):
        os.utime(graph, (1_900_000_000, 1_900_000_000))
    check_same(load(models[0], cache), expected)
    check_same(load(models[0], cache), expected)
    assert next(cache.rglob("*.blob")).stat().st_mtime_ns != first


def test_a_compiled_model_that_is_overwritten_while_it_serves_is_lost(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    encoder = load(models[0], tmp_path / "cache")
    expected = made_by(encoder)
    blob = next((tmp_path / "cache").rglob("*.blob"))
    assert blob.stat().st_mode & 0o222 == 0
    blob.chmod(0o600)
    check_same(encoder, expected)
    with blob.open("r+b") as file:
        file.write(file.read(1))  # whatever is written
    with pytest.raises(EncoderLost, match="was overwritten while it was served"):
        made_by(encoder)
    check_same(load(models[0], tmp_path / "cache"), expected)


def damage_file(path: Path, damage: str) -> None:
    if damage == "gone":
        path.unlink()
    elif damage == "flipped":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        os.truncate(path, path.stat().st_size // 2)


def test_damaged_compiled_models_are_compiled_again(
    models: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    expected = made_by(load(models[0], cache))
    dice = random.Random(7)
    for _ in range(3):
        for blob in sorted((cache / "compiled").rglob("*.blob")):
            data = bytearray(blob.read_bytes())
            if dice.random() < 0.5:
                data = data[: dice.randrange(len(data))]
            else:
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            blob.write_bytes(data)
        caplog.clear()
        check_same(load(models[0], cache), expected)
        assert "rebuilding" in caplog.text
        caplog.clear()
        check_same(load(models[0], cache), expected)
        assert "rebuilding" not in caplog.text


def test_a_damaged_int8_graph_is_made_again_and_a_full_disk_is_named(
    models: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"

    def load_int8() -> EncoderPort:
        return EncoderSelection(
            EncoderChoice.OPENVINO,
            str(models[0]),
            768,
            precision=Precision.INT8,
            cache=cache,
            int8_is_faster=lambda: True,  # slow where it is not, and right all the same
        ).load()

    expected = made_by(load_int8())
    (weights,) = (cache / "int8").rglob("*.bin")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    damage_file(weights, "flipped")
    resource.setrlimit(resource.RLIMIT_FSIZE, (weights.stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(EncoderUnavailable, match="can be written neither to"):
            load_int8()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not write the int8 graph" in caplog.text
    assert list(cache.rglob(".*")) == []
    caplog.clear()
    check_same(load_int8(), expected)
    assert "rebuilding" in caplog.text
    caplog.clear()
    check_same(load_int8(), expected)
    assert "quantising" not in caplog.text


START = """
import sys
from adapters.models.precision import Precision
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from pathlib import Path
print("starting", flush=True)
cache = None if sys.argv[2] == "none" else Path(sys.argv[2])
encoder = EncoderSelection(
    EncoderChoice.OPENVINO, sys.argv[1], 768, precision=Precision.FP32, cache=cache
).load()
print(encoder.encode_texts(["a dog"])[0][0], flush=True)
"""


def started(source: Path, cache: Path | str, temporary: Path, **options: object) -> "Started":
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", START, str(source), str(cache)],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


Started = subprocess.Popen[str]


@pytest.mark.parametrize("kept", [True, False])
def test_killed_at_any_moment_leaves_nothing_that_a_later_start_takes_for_whole(
    kept: bool, models: tuple[Path, Path], tmp_path: Path
) -> None:
    expected = made_by(load(models[0]))
    cache, temporary = tmp_path / "cache", tmp_path / "tmp"
    temporary.mkdir()
    dice = random.Random(20261124)
    for _ in range(10):
        with started(models[0], cache if kept else "none", temporary) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "starting\n"
            try:
                process.wait(timeout=dice.uniform(0.0, 0.9))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.wait()
        if dice.random() < 0.3:
            shutil.rmtree(cache, ignore_errors=True)
    with started(models[0], cache if kept else "none", temporary) as process:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert abs(float(out.split()[-1]) - expected[1][768]) < 1e-5
    assert list(temporary.iterdir()) == []
    if kept:
        check_same(load(models[0], cache), expected)
        assert list(cache.rglob(".*")) == []


def test_a_living_process_keeps_its_scratch_directory(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "clip-server-left").mkdir()
    program = (
        "from adapters.artifacts.store import scratch_directory\n"
        "print(scratch_directory(), flush=True)\ninput()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as living:
        assert living.stdout is not None
        directory = Path(living.stdout.readline().strip())
        assert list(tmp_path.iterdir()) == [directory]
        with started(models[0], "none", tmp_path) as other:
            other.communicate(timeout=120)
        assert directory.is_dir()
        living.communicate("\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 20_000, 300_000, 2_000_000, 10_000_000])
def test_where_the_disk_is_full_it_serves_if_it_can_and_says_so_if_not(
    limit: int, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """No file may grow beyond the limit: writing fails in the middle, as on a full disk."""
    expected = made_by(load(models[0]))
    cache, temporary = tmp_path / "cache", tmp_path / "tmp"
    temporary.mkdir()

    def fill_up() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with started(models[0], cache, temporary, preexec_fn=fill_up) as process:
        out, error = process.communicate(timeout=120)
    if process.returncode == 0:
        assert abs(float(out.split()[-1]) - expected[1][768]) < 1e-5, error
    else:
        assert (
            f"the model's converted files can be written neither to CLIP_CACHE_DIR={cache}" in error
        )
        assert "File too large" in error or "No usable temporary directory" in error
    # There is room again.
    check_same(load(models[0], cache), expected)
    check_same(load(models[0], cache), expected)
    assert list(cache.rglob(".*")) == []
