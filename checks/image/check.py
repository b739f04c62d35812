"""Does a Dockerfile's steps in a clean Debian root and runs what comes of them, as root on Linux.

For machines without a container engine. The steps of a target are done by chroot, with Debian's
own ``python3`` of the same release in the place of the image ``python:…-slim``. Then the server is
started as a container engine would: as the image's user, on a read-only root file system, with a
file system for ``/tmp`` and for each volume. The check waits for the image's own health check,
sends requests, and sends SIGTERM.
"""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import click
import httpx
import numpy as np

from checks.image.dockerfile import ROOT, Stage, decode_list, read_stages
from checks.image.root_file_system import Image, build, kernel_file_systems, mounted
from tests.support.servers import free_port

_PACKAGES: Final = "ca-certificates,python3,python3-venv"
_OF_THIS_MACHINE: Final = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
)
_BUILD_TOOLS: Final = ("gcc", "cc", "g++", "make", "cmake", "ld", "git", "rustc")
_CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"
_IN_NAMESPACES: Final = "--in-namespaces"


@click.command(help=__doc__)
@click.option("--target", default="cpu", show_default=True, help="The stage to make and run.")
@click.option("--release", default="trixie", show_default=True, help="Debian's, for the base.")
@click.option("--mirror", default="http://deb.debian.org/debian", show_default=True)
@click.option(
    "--certificates",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Authorities to trust while building, in the place of Debian's (behind a proxy).",
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    default="/var/tmp/clip-image-check",
    show_default=True,
    help="Where to work, some 2 GB; Debian's root is kept there for the next time.",
)
@click.option("--argument", "arguments", multiple=True, help="NAME=VALUE, as --build-arg.")
@click.option(_IN_NAMESPACES, is_flag=True, hidden=True)
def main(  # noqa: PLR0917 (click calls it by name)
    target: str,
    release: str,
    mirror: str,
    certificates: Path | None,
    work: Path,
    arguments: tuple[str, ...],
    in_namespaces: bool,
) -> None:
    """See the module."""
    if os.geteuid() != 0:
        raise click.UsageError("only root can change the root directory; use sudo.")
    if not in_namespaces:
        # In namespaces of its own, whose mounts and processes end with it whatever happens.
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        again = [sys.executable, "-m", "checks.image.check", *sys.argv[1:], _IN_NAMESPACES]
        sys.exit(subprocess.run([*unshare, *again], check=False).returncode)
    base = _debian(work, release, mirror, certificates)
    stages = read_stages()
    machine = {name: os.environ[name] for name in _OF_THIS_MACHINE if name in os.environ}
    if certificates:
        machine |= {"SSL_CERT_FILE": f"/{_CERTIFICATES}", "PIP_CERT": f"/{_CERTIFICATES}"}
    started = time.monotonic()
    image = build(
        stages,
        target,
        base=base,
        work=work / "stages",
        arguments=dict(argument.split("=", 1) for argument in arguments),
        while_building=machine,
    )
    click.echo(f"steps of {target}: done in {time.monotonic() - started:.0f} s")
    size, of_base = _mebibytes(image.root), _mebibytes(base)
    click.echo(f"size: {size} MiB, of which {of_base} MiB are the base and {size - of_base} added")
    _check_contents(image)
    _check_server(stages[target], image)
    click.echo("all well")


def _debian(work: Path, release: str, mirror: str, certificates: Path | None) -> Path:
    """A root file system with Python, made once."""
    base = work / f"debian-{release}"
    if not (base / "usr/bin/python3").exists():
        click.echo(f"making a root of Debian {release} in {base}")
        subprocess.run(["rm", "-rf", "--one-file-system", base], check=True)
        base.mkdir(parents=True)
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", release]
        subprocess.run([*command, str(base), mirror], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(base / "var/cache/apt/archives")
    shutil.copy("/etc/resolv.conf", base / "etc/resolv.conf")
    if certificates:
        shutil.copy(certificates, base / _CERTIFICATES)
    return base


def _check_contents(image: Image) -> None:
    directories = image.environment["PATH"].split(":")
    tools = [
        tool
        for tool in (*_BUILD_TOOLS, "pip")
        if any((image.root / directory.lstrip("/") / tool).exists() for directory in directories)
    ]
    _expect(not tools, "no compiler, git or pip in it", f"in the image: {tools}")
    caches = [path for path in ("root/.cache", "cache/.cache") if (image.root / path).exists()]
    _expect(not caches, "no cache of pip in it", f"in the image: {caches}")
    strangers = [path for path in ("src", "opt/service") if (image.root / path).exists()]
    _expect(not strangers, "no source folder in it", f"in the image: {strangers}")


def _check_server(stage: Stage, image: Image) -> None:
    environment = image.environment | {
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "CLIP_MODEL_PATH": "builtin:demo",
    }
    command = [*stage.last("ENTRYPOINT").words(), *stage.last("CMD").words()]
    health_check = decode_list(stage.last("HEALTHCHECK").value.removeprefix("CMD"))
    with _read_only(stage, image):
        for path in ("/opt/clip/new", "/new", "/etc/new"):
            refused = subprocess.run(
                image.command("touch", path), env=environment, check=False, capture_output=True
            )
            _expect(refused.returncode != 0, f"{path} cannot be written", "it can be written")
        started = time.monotonic()
        with subprocess.Popen(image.command(*command), env=environment) as server:
            try:
                _wait(
                    lambda: _passes(image, health_check, environment),
                    unless=lambda: server.poll() is not None,
                )
                click.echo(
                    f"ready by its own health check after {time.monotonic() - started:.1f} s"
                )
                status = Path(f"/proc/{server.pid}/status").read_text()
                uid = status.split("Uid:")[1].split()[0]
                _expect(uid == image.user.split(":")[0], f"runs as user {uid}", f"as {uid}")
                _ask(f"http://127.0.0.1:{environment['PORT']}")
                server.send_signal(signal.SIGTERM)
                _expect(server.wait(60) == 0, "ends with status 0 on SIGTERM", "it does not")
            finally:
                server.kill()


def _ask(url: str) -> None:
    photo = (ROOT / "adapters/models/demo/held_out/delivery_truck.png").read_bytes()
    image = base64.b64encode(photo).decode()
    with httpx.Client(base_url=url, timeout=60) as client:
        health = client.get("/health").raise_for_status().json()
        click.echo(f"/health: {health}")
        _expect(health["status"] == "healthy", "is healthy", "it is not")
        embedded = client.post("/embed", json={"image": image}).raise_for_status().json()
        embedding = np.array(embedded["embedding"])
        norm = float(np.linalg.norm(embedding))
        _expect(
            embedding.shape == (768,) and abs(norm - 1) < 1e-5,
            f"/embed: {embedding.size} numbers of norm {norm:.6f}",
            f"shape {embedding.shape}, norm {norm}",
        )
        labels = ["a cat", "a delivery truck", "a person walking"]
        found = client.post("/classify", json={"image": image, "labels": labels}).json()
        _expect(found["top_label"] == labels[1], f"/classify: {found['top_label']}", str(found))
        page = client.get("/metrics").raise_for_status().text
        _expect("clip_ready 1.0" in page, "/metrics: clip_ready 1.0", page)


@contextmanager
def _read_only(stage: Stage, image: Image) -> Iterator[None]:
    """The root read-only, but for ``/tmp`` and the volumes, which keep the image's folders."""
    root, (uid, gid) = image.root, image.user.split(":")
    volumes = [root / path.lstrip("/") for path in stage.last("VOLUME").words()]
    folders = {
        volume: [path.relative_to(volume) for path in volume.rglob("*")] for volume in volumes
    }
    with ExitStack() as stack:
        stack.enter_context(mounted("--bind", str(root), str(root)))
        subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
        stack.enter_context(kernel_file_systems(root))
        stack.enter_context(mounted("-t", "tmpfs", "-o", "mode=1777", "tmp", str(root / "tmp")))
        for volume in volumes:
            owner = f"uid={uid},gid={gid},mode=0755"
            stack.enter_context(mounted("-t", "tmpfs", "-o", owner, "volume", str(volume)))
            for folder in folders[volume]:
                (volume / folder).mkdir(parents=True)
                os.chown(volume / folder, int(uid), int(gid))
        yield


def _passes(image: Image, command: list[str], environment: dict[str, str]) -> bool:
    words = image.command(*command)
    return not subprocess.run(words, env=environment, check=False, capture_output=True).returncode


def _wait(until: Callable[[], bool], *, unless: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        if unless():
            raise click.ClickException("the server has ended")
        if time.monotonic() > deadline:
            raise click.ClickException(f"the server was not ready within {seconds:g} s")
        time.sleep(0.2)


def _expect(fact: bool, well: str, otherwise: str) -> None:
    if not fact:
        raise click.ClickException(f"not as it should be: {well}. {otherwise}")
    click.echo(f"ok: {well}")


def _mebibytes(directory: Path) -> int:
    words = ["du", "--summarize", "--one-file-system", "--block-size=1M", str(directory)]
    listing = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return int(listing.stdout.split()[0])


if __name__ == "__main__":
    main()
