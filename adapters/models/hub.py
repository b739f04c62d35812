"""Checkpoints by their names on the Hugging Face hub, fetched once into the hub's own cache.

`huggingface_hub` does the transfers. It supports ``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN``,
``HF_HUB_OFFLINE``, proxies and certificates, and resumes interrupted downloads. This module chooses
the files, checks disk space and checksums, reports progress, and turns errors into sentences.
"""

import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from tqdm import tqdm

from adapters.artifacts.checksums import checksums_of, what_changed
from adapters.models import hugging_face, open_clip_layout
from adapters.models.checkpoint_files import InvalidCheckpoint

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

logger = logging.getLogger(__name__)

_NAME: Final = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_BYTES_PER_MB: Final = 1_000_000
_TIMEOUT_S: Final = 10.0
_LOG_EVERY_S: Final = 5.0
_SPARE_BYTES: Final = 100 * _BYTES_PER_MB
"""Disk space to keep free besides the files."""

Layouts: TypeAlias = Sequence[tuple[ModuleType, str]]

_LAYOUTS: Final[Layouts] = tuple(
    sorted(
        (
            *((hugging_face, name) for name in hugging_face.WEIGHTS),
            *((open_clip_layout, name) for name in open_clip_layout.WEIGHTS),
        ),
        key=lambda layout: not layout[1].endswith(".safetensors"),
    )
)
"""Supported layouts: the reader, and the name of the weights.

Safetensors before pickles; for each, transformers' layout first.
"""


class Download:
    """The current download and finished ones; one thread reports, others read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._name = ""
        self._total = self._done = 0
        self._fetched = 0
        """Bytes since `begin`, without earlier ones."""
        self._began_s = self._logged_s = 0.0
        self.directories: dict[str, Path] = {}
        """Downloads of this process, by name, so that a reload does not contact the hub."""

    @property
    def text(self) -> str | None:
        """A sentence for people, such as "downloading x/y: 412 of 1,710 MB, 35 MB/s."."""
        with self._lock:
            if not self._name:
                return None
            seconds = max(self._clock() - self._began_s, 0.001)
            return (
                f"downloading {self._name}: {self._done // _BYTES_PER_MB:,} of "
                f"{self._total // _BYTES_PER_MB:,} MB, "
                f"{self._fetched / seconds / _BYTES_PER_MB:,.0f} MB/s."
            )

    def begin(self, name: str, total: int) -> None:
        """Start a file of ``total`` bytes of the checkpoint ``name``."""
        with self._lock:
            self._name, self._total, self._done, self._fetched = name, total, 0, 0
            self._began_s = self._logged_s = self._clock()

    def advance(self, count: int, *, fetched: bool = True) -> None:
        """Count more bytes; fetched now, or left by an earlier attempt."""
        with self._lock:
            self._done += count
            self._fetched += count if fetched else 0
            now_s = self._clock()
            if now_s - self._logged_s < _LOG_EVERY_S:
                return
            self._logged_s = now_s
        logger.info("%s", self.text)

    def end(self) -> None:
        """The download has ended."""
        with self._lock:
            self._name = ""


def is_hub_name(source: str) -> bool:
    """Whether ``source`` is ``owner/name`` or ``owner/name@revision``, and not an existing path."""
    return _NAME.fullmatch(source) is not None and not os.path.exists(source)


def fetch(
    source: str,
    *,
    layout: ModuleType | None = None,
    check: Callable[[Path], None] = lambda _: None,
    download: Download | None = None,
) -> Path:
    """The local directory of a checkpoint on the hub; missing files are downloaded.

    Args:
        source: as `is_hub_name` takes it.
        layout: the reader to use if there are several layouts; None: any.
        check: is called with the directory before the weights are downloaded, and may raise
            `InvalidCheckpoint`.
        download: receives the progress.

    Raises:
        InvalidCheckpoint: it is not available; says why and what to do.
    """
    download = download or Download()
    layouts = [each for each in _LAYOUTS if layout in (None, each[0])]
    known = download.directories.get(source)
    if known is None or not known.is_dir():
        known = download.directories[source] = _found(source, layouts, check, download)
    return known


def _named(source: str) -> tuple[str, str]:
    """Repository and revision."""
    named = _NAME.fullmatch(source)
    assert named is not None, source
    return named["repository"], named["revision"] or "main"


class _Unreachable(Exception):
    """The hub cannot be reached: why, and what to do about it."""

    def __init__(self, reason: str, remedy: str = "check the network") -> None:
        super().__init__(reason)
        self.remedy = remedy


def _found(
    source: str, layouts: Layouts, check: Callable[[Path], None], download: Download
) -> Path:
    repository, revision = _named(source)
    try:
        listed = _listed(repository, revision, source)
    except _Unreachable as unreachable:
        kept = _kept(repository, revision, layouts)
        if kept is None:
            raise InvalidCheckpoint(
                f"{source} is neither a directory here nor downloaded yet, and {unreachable}. To "
                f"get it, {unreachable.remedy}, or download it on another machine and copy HF_HOME."
            ) from None
        logger.info("%s; serving the local copy of %s", unreachable, source)
        check(kept.parent)
        return _checked(kept, source).parent
    return _fetched(listed, source, layouts, check, download)


def _listed(repository: str, revision: str, source: str) -> "ModelInfo":
    """The hub's information about this name.

    Raises:
        InvalidCheckpoint: nothing usable.
        _Unreachable: the hub must not be contacted, or does not respond.
    """
    # Imported here: it takes half a second, and is only needed for models on the hub.
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi()
    page = f"{api.endpoint}/{repository}"
    try:
        found = api.model_info(repository, revision=revision, timeout=_TIMEOUT_S)
    except HFValidationError:
        raise InvalidCheckpoint(
            f"{source} is neither a directory here nor a valid name on the hub."
        ) from None
    except GatedRepoError:
        raise _gated(source, page) from None
    except RepositoryNotFoundError:
        raise InvalidCheckpoint(
            f"{source} is neither a directory here nor a public model on the hub. "
            "If it is private, set HF_TOKEN to a token of an account with access."
        ) from None
    except RevisionNotFoundError:
        raise InvalidCheckpoint(
            f"{repository} has no revision {revision!r}; {page}/commits/main lists them."
        ) from None
    except OfflineModeIsEnabled:
        raise _Unreachable("HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE") from None
    except HfHubHTTPError as refused:
        status = refused.response.status_code
        if status == 401:
            raise InvalidCheckpoint(
                f"the hub does not accept HF_TOKEN for {source} (status 401): {page}"
            ) from None
        raise _Unreachable(f"the hub responded with status {status}") from None
    except (httpx2.HTTPError, OSError) as failure:
        raise _Unreachable(f"the hub cannot be reached ({type(failure).__name__})") from None
    if found.id.lower() != repository.lower():
        logger.warning("%s has been renamed to %s", repository, found.id)
    return found


def _gated(source: str, page: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(
        f"{source} requires you to accept its terms: do so at {page}, and set HF_TOKEN to a token "
        "of that account."
    )


def _possible(names: Iterable[str], layouts: Layouts, source: str) -> Layouts:
    """The available layouts, the preferred one first; at least one.

    Raises:
        InvalidCheckpoint: it is not a checkpoint in a known layout.
    """
    there = set(names)
    if found := [each for each in layouts if {each[0].CONFIG, each[1]} <= there]:
        return found
    wanted = sorted(weights for _, weights in layouts)
    raise InvalidCheckpoint(
        f"{source} holds no checkpoint in Hugging Face's or OpenCLIP's layout: none of "
        f"{', '.join(wanted)} with its configuration is there."
    )


def _fetched(
    listed: "ModelInfo",
    source: str,
    layouts: Layouts,
    check: Callable[[Path], None],
    download: Download,
) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

    names = [file.rfilename for file in listed.siblings or ()]
    possible = _possible(names, layouts, source)
    try:
        directory, small, weights = _described(listed.id, source, possible)
        commit = directory.name
        for name in small:
            if name in names:
                _checked(_file(listed.id, commit, name), source)
        check(directory)
        path = _weights(listed.id, commit, weights, source, download)
        return _checked(path, source).parent
    except GatedRepoError:
        raise _gated(source, f"{constants.ENDPOINT}/{listed.id}") from None
    except EntryNotFoundError as missing:
        raise InvalidCheckpoint(f"{source} was changed while it was downloaded.") from missing
    finally:
        download.end()


def _described(repository: str, source: str, layouts: Layouts) -> tuple[Path, tuple[str, ...], str]:
    """Get the directory with a layout's configuration, further small files and weights' name.

    A repository may have another library's ``config.json`` beside OpenCLIP's files.

    Raises:
        InvalidCheckpoint: no layout's configuration is of a known model; gives the first one's
            reason.
    """
    refused: InvalidCheckpoint | None = None
    for reader, weights in layouts:
        # By the revision's name, so that the cache remembers which commit it means.
        directory = _file(repository, _named(source)[1], reader.CONFIG).parent
        try:
            return directory, reader.small_files(directory), weights
        except InvalidCheckpoint as unknown:
            refused = refused or unknown
    assert refused is not None
    raise refused


def _file(repository: str, revision: str, name: str) -> Path:
    """One small file, downloaded if it is missing.

    Raises:
        InvalidCheckpoint: the transfer failed.
    """
    import httpx2
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

    try:
        return Path(
            hf_hub_download(repository, name, revision=revision, tqdm_class=_bar_that_reports())
        )
    except (GatedRepoError, EntryNotFoundError):
        raise
    except (httpx2.HTTPError, OSError) as failure:
        raise _broken_off(repository, name, failure) from failure


def _weights(repository: str, commit: str, name: str, source: str, download: Download) -> Path:
    """The large file. A download that was killed is resumed.

    `hf_hub_download` begins from the start in each process, since it cannot trust locks on every
    file system (huggingface_hub, pull request 4228). Here the lock is ours, and the SHA-256 of the
    bytes is checked before they are moved into the cache.

    Raises:
        InvalidCheckpoint: the transfer failed, or the bytes differ from the hub's.
    """
    import httpx2
    from filelock import FileLock
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # not listed

    if _in_cache(repository, commit, name) is not None:
        return _file(repository, commit, name)
    headers = build_hf_headers()
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    try:
        url = hf_hub_url(repository, name, revision=commit)
        told = get_hf_file_metadata(url, headers=headers, timeout=_TIMEOUT_S)
        if urlsplit(told.location).netloc != urlsplit(url).netloc:
            headers.pop("authorization", None)  # the token is only for the hub
        blob = Path(constants.HF_HUB_CACHE) / folder / "blobs" / str(told.etag)
        part = blob.with_name(f"{blob.name}.part")
        with FileLock(f"{part}.lock"):
            if not blob.exists():
                there = part.stat().st_size if part.exists() else 0
                total = told.size or 0
                _check_room(blob.parent, total - there, source)
                download.begin(source, total)
                with part.open("ab", buffering=0) as file:
                    http_get(
                        told.location,
                        file,
                        resume_size=there,
                        headers=headers,
                        expected_size=told.size,
                        displayed_filename=name,
                        tqdm_class=_bar_that_reports(download),
                    )
                checksum = _compared(part, blob.name, f"{name} of {source}")
                part.replace(blob)
                _remember(blob, checksum)
    except (GatedRepoError, EntryNotFoundError):
        raise
    except (httpx2.HTTPError, OSError) as failure:
        raise _broken_off(repository, name, failure) from failure
    return _file(repository, commit, name)  # which links to it


def _broken_off(repository: str, name: str, failure: Exception) -> InvalidCheckpoint:
    reason = getattr(failure, "strerror", None) or type(failure).__name__
    return InvalidCheckpoint(
        f"{name} of {repository} could not be downloaded ({reason}). What has arrived is kept; "
        "start again to continue."
    )


def _bar_that_reports(download: Download | None = None) -> Any:
    """A progress bar for `huggingface_hub`: drawn on a terminal, and reported to ``download``.

    Without ``download`` it shows nothing, which is for small files.
    """

    class Bar(tqdm):  # type: ignore[misc] # tqdm brings no types
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            options["disable"] = download is None or not sys.stderr.isatty()
            super().__init__(*arguments, **options)
            if download is not None:
                download.advance(int(options.get("initial") or 0), fetched=False)

        def update(self, n: float | None = 1) -> Any:
            if download is not None:
                download.advance(int(n or 0))
            return super().update(n)

    return Bar


def _in_cache(repository: str, commit: str, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name, revision=commit)
    return Path(found) if isinstance(found, str) else None


def _check_room(cache: Path, needed: int, source: str) -> None:
    """Refuse a download that does not fit on the disk.

    Raises:
        InvalidCheckpoint: says how much is free and how much is needed.
    """
    place = next(place for place in (cache, *cache.absolute().parents) if place.exists())
    free = shutil.disk_usage(place).free
    if free < needed + _SPARE_BYTES:
        raise InvalidCheckpoint(
            f"{source} takes {needed // _BYTES_PER_MB:,} MB, and only {free // _BYTES_PER_MB:,} MB "
            f"are free at {place}. Free some space, or set HF_HOME to a directory on a larger disk."
        )


def _checked(path: Path, source: str) -> Path:
    """The same path, if its bytes match the hub's checksum, as far as that is known.

    The hub's cache names a large file by its SHA-256. A finished comparison is recorded beside it,
    since a gigabyte takes seconds.

    Raises:
        InvalidCheckpoint: they differ; the file is deleted.
    """
    blob = path.resolve()
    if _SHA256.fullmatch(blob.name) is None:
        return path  # a small file, named by another kind of checksum
    try:
        recorded = json.loads(_record_of(blob).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none yet
        recorded = None
    if what_changed(blob.parent, recorded) is None:
        return path
    try:
        checksum = _compared(blob, blob.name, f"{path.name} of {source}")
    except InvalidCheckpoint:
        path.unlink()
        raise
    _remember(blob, checksum)
    return path


def _compared(file: Path, expected: str, what: str) -> Mapping[str, int | str]:
    """The checksum of a file. If it differs from the hub's, the file is deleted.

    Args:
        file: in the cache, or on its way there.
        expected: the hub's name for its content; for a large file this is its SHA-256.
        what: the file's name for messages.

    Raises:
        InvalidCheckpoint: it was damaged.
    """
    checksum = checksums_of([file])[file.name]
    digest = str(checksum["sha256"])
    if _SHA256.fullmatch(expected) is not None and digest != expected:
        file.unlink()
        raise InvalidCheckpoint(
            f"{what} is damaged: its SHA-256 is {digest[:16]}…, the hub's {expected[:16]}…. It is "
            "deleted; start again to download it once more."
        )
    return checksum


def _remember(blob: Path, checksum: Mapping[str, int | str]) -> None:
    with suppress(OSError):  # a read-only cache
        _record_of(blob).write_text(json.dumps({blob.name: checksum}), encoding="utf-8")


def _record_of(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.checked")


def is_downloaded(source: str) -> bool:
    """Whether a model's files are complete in the hub's cache; does not contact the hub."""
    return _NAME.fullmatch(source) is not None and _kept(*_named(source), _LAYOUTS) is not None


def _kept(repository: str, revision: str, layouts: Layouts) -> Path | None:
    """The weights from an earlier download; None if they or their configuration are missing."""
    for reader, weights in layouts:
        path = _in_cache(repository, revision, weights)
        if path is not None and (path.parent / reader.CONFIG).is_file():
            return path
    return None
