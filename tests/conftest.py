"""Fixtures that several kinds of tests share, and the order in which tests run."""

import gc
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from xdist.scheduler import LoadFileScheduling

from tests.support.checkpoints import (
    full_size_clip,
    save_hugging_face,
    save_open_clip,
    small_clip,
)

_SLOWEST_FIRST = ("ray", "e2e", "integration")
"""Folders of tests. The many small tests are left for the end, when any worker can take some."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first, so that no worker is left alone with one of them at the end."""
    long = {item.path for item in items if item.get_closest_marker("long")}

    def order(item: pytest.Item) -> tuple[int, bool]:
        folder = item.path.relative_to(item.config.rootpath).parts[1]
        rank = _SLOWEST_FIRST.index(folder) if folder in _SLOWEST_FIRST else len(_SLOWEST_FIRST)
        return rank, item.path not in long

    items.sort(key=order)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported: a fifth of the tests' processor time."""
    gc.collect()
    gc.freeze()


class _ByFile(LoadFileScheduling):  # type: ignore[misc] # has no types
    """Gives each worker a file at a time, but all tests of the Ray cluster to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/ray" if nodeid.startswith("tests/ray/") else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Used whatever ``--dist`` says."""
    return _ByFile(config, log)


@pytest.fixture(scope="session")
def hugging_face_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint in Hugging Face's layout."""
    return save_hugging_face(small_clip(), tmp_path_factory.mktemp("hugging-face"))


@pytest.fixture(scope="session")
def open_clip_directory(
    hugging_face_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same checkpoint in OpenCLIP's layout."""
    return save_open_clip(hugging_face_directory, tmp_path_factory.mktemp("layouts") / "open-clip")


@pytest.fixture(scope="session")
def full_size_directory(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A random ViT-L/14 in Hugging Face's layout, made once for all workers (1.7 GB)."""
    root = tmp_path_factory.getbasetemp()
    if worker_id != "master":  # a worker's directory is inside the one of the whole run
        root = root.parent
    directory = root / "full-size"
    with FileLock(root / "full-size.lock"):
        if not (directory / "config.json").exists():
            save_hugging_face(full_size_clip(), directory)
    return directory
