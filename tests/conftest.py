"""Fixtures that several kinds of tests share."""

from pathlib import Path

import pytest

from tests.support.checkpoints import save_hugging_face, save_open_clip, small_clip


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
