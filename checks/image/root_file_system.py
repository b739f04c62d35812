"""Does a Dockerfile's steps in a folder, by chroot in the place of a container."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from docker.utils.build import exclude_paths

from checks.image.dockerfile import ROOT, Stage, Step, expand

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SAYS_NOTHING_HERE: Final = ("LABEL", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD")
"""Instructions that change no file."""
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")


@dataclass(slots=True)
class Image:
    """A root file system and how programs are run in it.

    Attributes:
        root: the folder.
        environment: of every program.
        user: ``uid:gid``.
        directory: in which programs start.
    """

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    user: str = "0:0"
    directory: str = "/"

    def command(self, *words: str, directory: str | None = None) -> list[str]:
        """The command line, for the host, that runs a program in it as its user."""
        inside = ["env", f"--chdir={directory or self.directory}", *words]
        chroot = ["chroot", f"--userspec={self.user}", "--groups=", str(self.root), *inside]
        return ["setpriv", "--no-new-privs", *chroot]


@contextmanager
def kernel_file_systems(root: Path) -> Iterator[None]:
    """Show ``/proc``, ``/sys`` and a small ``/dev`` in ``root``, as container engines do."""
    with (
        mounted("-t", "proc", "proc", str(root / "proc")),
        mounted("-t", "sysfs", "-o", "ro", "sys", str(root / "sys")),
        mounted("-t", "tmpfs", "-o", "mode=0755", "dev", str(root / "dev")),
    ):
        for name in _DEVICES:
            node = root / "dev" / name
            os.mknod(node, stat.S_IFCHR, os.stat(f"/dev/{name}").st_rdev)
            node.chmod(0o666)
        (root / "dev" / "shm").mkdir()
        (root / "dev" / "shm").chmod(0o1777)
        yield


@contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Mount something; the last argument is the place."""
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


def build(
    stages: dict[str, Stage],
    target: str,
    *,
    base: Path,
    work: Path,
    arguments: dict[str, str],
    while_building: dict[str, str],
) -> Image:
    """Do the steps of a stage and of those that it needs.

    Args:
        stages: of the Dockerfile.
        target: the stage.
        base: the root file system that stands for every image that is not a stage.
        work: where a folder for each stage is made.
        arguments: for ``ARG``, in the place of their defaults.
        while_building: variables of ``RUN`` that belong to this machine and not to the image, such
            as a proxy's.

    Returns:
        The stage as it is after its last step.
    """
    done: dict[str, Image] = {}

    def make(name: str) -> Image:
        if name in done:
            return done[name]
        stage = stages[name]
        image = Image(work / name)
        if stage.base in stages:
            parent = make(stage.base)
            image.environment = dict(parent.environment)
            image.user, image.directory = parent.user, parent.directory
        origin = done[stage.base].root if stage.base in done else base
        subprocess.run(["rm", "-rf", "--one-file-system", image.root], check=True)
        subprocess.run(["cp", "--archive", f"{origin}/.", f"{_made(image.root)}/"], check=True)
        given: dict[str, str] = {}
        for step in stage.steps:
            if step.name == "ARG":
                given |= step.assignments() | {
                    key: value for key, value in arguments.items() if key in step.assignments()
                }
            elif step.name == "COPY":
                source = step.flags.get("from")
                _copy(step, image, make(source).root if source else None)
            else:
                _perform(step, image, given, while_building)
        done[name] = image
        return image

    return make(target)


def _perform(step: Step, image: Image, given: dict[str, str], machine: dict[str, str]) -> None:
    match step.name:
        case "ENV":
            image.environment |= {
                name: expand(value, given | image.environment)
                for name, value in step.assignments().items()
            }
        case "WORKDIR":
            image.directory = str(Path(image.directory, step.value))
            _made(_inside(image, image.directory))
        case "USER":
            image.user = step.value
        case "RUN":
            with kernel_file_systems(image.root):
                subprocess.run(
                    image.command("/bin/sh", "-c", step.value),
                    env=machine | given | image.environment,
                    check=True,
                )
        case name if name in _SAYS_NOTHING_HERE:
            pass
        case name:
            raise NotImplementedError(f"{name} is not done by this check; teach it")


def _copy(step: Step, image: Image, origin: Path | None) -> None:
    *sources, place = step.words()
    target = _inside(image, str(Path(image.directory, place)))
    if origin is not None:
        for source in sources:
            subprocess.run(
                ["cp", "--archive", f"{origin / source.lstrip('/')}/.", f"{_made(target)}/"],
                check=True,
            )
        return
    for file in context_files():
        for source in sources:
            if source in (".", file) or file.startswith(f"{source}/"):
                _made((target / file).parent)
                shutil.copy(ROOT / file, target / file)


def context_files() -> list[str]:
    """The files that are sent to a builder: all but what ``.dockerignore`` excludes."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    found = exclude_paths(str(ROOT), patterns)
    return sorted(path for path in found if os.path.isfile(ROOT / path))


def _inside(image: Image, path: str) -> Path:
    return image.root / path.lstrip("/")


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
