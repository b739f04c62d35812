"""Which files a person means by the names, folders and patterns they give."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.bulk.local_files import LocalImageFiles
from application.bulk_ports import BulkFailure, ImageFile
from domain.errors import ImageTooLarge
from domain.limits import MAX_IMAGE_BYTES


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name in (
        "a.jpg",
        "b.PNG",
        "notes.txt",
        "deep/er/c.webp",
        "deep/raw.heic",
        "deep/Thumbs.db",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def names(*paths: str) -> list[str]:
    return sorted(file.path for file in LocalImageFiles(paths).listing())


ALL = ["photos/a.jpg", "photos/b.PNG", "photos/deep/er/c.webp", "photos/deep/raw.heic"]


def test_of_a_folder_all_that_is_called_like_an_image(folder: Path) -> None:
    assert names("photos") == names("./photos/") == ALL


def test_what_is_named_or_matched_is_taken_whatever_it_is_called(folder: Path) -> None:
    assert names("photos/notes.txt") == ["photos/notes.txt"]
    assert names("photos/*.*") == ["photos/a.jpg", "photos/b.PNG", "photos/notes.txt"]
    assert names("photos/**/*.webp") == ["photos/deep/er/c.webp"]
    assert names("photos/d*") == ["photos/deep/er/c.webp", "photos/deep/raw.heic"]


def test_a_name_with_brackets_is_a_name_first(folder: Path) -> None:
    (folder / "door[1].jpg").write_bytes(b"x")
    assert names("door[1].jpg") == ["door[1].jpg"]


def test_size_and_time_are_told(folder: Path) -> None:
    (file,) = LocalImageFiles(["photos/a.jpg"]).listing()
    found = os.stat("photos/a.jpg")
    assert (file.size, file.modified_ns) == (5, found.st_mtime_ns)
    assert LocalImageFiles([]).read(file) == b"a.jpg"


@pytest.mark.parametrize(
    ("path", "told"),
    [("nowhere", "nowhere does not exist"), ("photos/*.gif", r"nothing matches 'photos/\*.gif'")],
)
def test_a_name_that_means_nothing_stops_the_run(folder: Path, path: str, told: str) -> None:
    with pytest.raises(BulkFailure, match=told):
        names("photos", path)


@pytest.mark.parametrize("pattern", ["photos/**", "photos/**/*", "./photos/**/**", "**/*"])
def test_a_pattern_for_everything_is_the_folder(folder: Path, pattern: str) -> None:
    assert names(pattern) == ALL


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/**/*.jpg", ["photos/a.jpg", "photos/deep/link.jpg"]),
        ("photos/**/up*", []),
        ("photos/deep/up/photos/*.jpg", ["photos/deep/up/photos/a.jpg"]),
    ],
)
def test_patterns_follow_links_as_folders_do(
    folder: Path, pattern: str, expected: list[str]
) -> None:
    """Two links to a parent folder: followed by ``**``, there would be 2^40 names of one file."""
    os.symlink("..", "photos/up")
    os.symlink("../..", "photos/deep/up")
    os.symlink("../a.jpg", "photos/deep/link.jpg")
    if expected:
        assert names(pattern) == expected
    else:
        with pytest.raises(BulkFailure, match="nothing matches"):
            names(pattern)


def test_a_pattern_in_a_folder_that_is_missing_matches_nothing(folder: Path) -> None:
    with pytest.raises(BulkFailure, match="nothing matches"):
        names("nowhere/**")


def test_names_that_begin_with_a_dot_count_in_folders_and_patterns(folder: Path) -> None:
    (folder / "photos" / ".hidden.jpg").write_bytes(b"x")
    assert "photos/.hidden.jpg" in names("photos")
    assert "photos/.hidden.jpg" in names("photos/*.jpg")


def test_links_to_files_are_followed_and_circles_are_not(folder: Path) -> None:
    os.symlink("a.jpg", "photos/link.jpg")
    os.symlink("..", "photos/deep/up")
    assert names("photos") == sorted([*ALL, "photos/link.jpg"])


def test_what_cannot_be_read_is_listed_and_says_why(folder: Path) -> None:
    os.symlink("gone.jpg", "photos/dangling.jpg")
    os.mkfifo("photos/pipe.jpg")
    assert {"photos/dangling.jpg", "photos/pipe.jpg"} < set(names("photos"))
    files = LocalImageFiles([])
    with pytest.raises(FileNotFoundError):
        files.read(ImageFile("photos/dangling.jpg", 0, 0))
    with pytest.raises(OSError, match="not a regular file"):
        files.read(ImageFile("photos/pipe.jpg", 0, 0))


def test_a_huge_file_is_not_read(folder: Path) -> None:
    with open("photos/huge.jpg", "wb") as huge:
        huge.truncate(MAX_IMAGE_BYTES + 1)
    with pytest.raises(ImageTooLarge, match=r"10485761 bytes; at most 10485760 bytes \(10 MiB\)"):
        LocalImageFiles([]).read(ImageFile("photos/huge.jpg", 0, 0))
