"""``clip-server doctor``."""

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from entrypoints.commands.starting import compose, settings_or_exit

if TYPE_CHECKING:
    from application.ports import EncoderDescription, EncoderPort
    from entrypoints.container import Container
    from entrypoints.settings import Settings

_GIB: Final = 1024**3
_TIMED_CALLS: Final = 5


@click.command()
def doctor() -> None:
    """Check machine and settings before serving.

    Tells what hardware, checkpoint and encoder the server would use and why, and what would be
    faster. Loads the model as `serve` does, and times it. The exit status is 1 if the server
    could not answer as things are.

    \u0008
    Examples:
      clip-server doctor
      CLIP_MODEL_PATH=/models/clip-vit-l CLIP_PRECISION=int8 clip-server doctor
    """
    settings = settings_or_exit()
    container = compose(settings)
    _hardware()
    problems = [*_model(container, settings), *_address(settings)]
    click.echo()
    if problems:
        click.secho("The server could not answer:", fg="red", bold=True)
        for problem in problems:
            click.echo(f"  - {problem}")
        sys.exit(1)
    click.secho("The server is fit to start.", fg="green", bold=True)


def _hardware() -> None:
    from adapters.system.hardware import (
        memory,
        nvidia_cards,
        nvidia_driver_present,
        processor,
        usable_cores,
    )

    _heading("Hardware")
    found = processor()
    cores = usable_cores()
    _line("processor", f"{found.name}, {cores} core{'s' if cores > 1 else ''} for this process")
    _line("instructions", " ".join(found.instructions) or "none that matter here")
    if (main := memory()) is not None:
        _line(
            "memory", f"{main.total / _GIB:.1f} GiB, of which {main.available / _GIB:.1f} available"
        )
    cards = ", ".join(nvidia_cards()) or "a driver, whose cards are not listed"
    _line("NVIDIA", cards if nvidia_driver_present() else "no driver")


def _model(container: "Container", settings: "Settings") -> list[str]:
    """Load it, tell what it is, and return what is wrong with it."""
    _heading("Model")
    _line("checkpoint", f"{settings.model_path} (CLIP_MODEL_PATH)")
    choice, reason = container.encoder_loader().preferred()
    _line("encoder", f"{choice}: {reason}")
    model = container.model()
    start = time.perf_counter()
    asyncio.run(model.load())
    if (encoder := model.encoder) is None:
        _line("loaded", "no")
        return [str(model.reason)]
    from adapters.encoders.advice import faster, surroundings

    described = encoder.description
    _line("loaded", f"{described.model} in {time.perf_counter() - start:.1f} s")
    _line("fingerprint", described.fingerprint)
    chosen = "CLIP_PRECISION" if settings.precision else "the fastest that needs no calibration"
    _line("runs on", f"{described.backend} on {described.device.name}")
    _line("precision", f"{described.precision} ({chosen})")
    if described.backend != str(choice):
        _line("", f"not {choice}: see the warning above")
    _line("engine", described.engine_path or _why_no_engine(container, described))
    _line("speed", _speed(encoder, settings.max_batch))
    _heading("What would be faster")
    for advice in faster(described, surroundings()) or ["Nothing that this command knows of."]:
        click.echo(f"  - {advice}")
    return []


def _why_no_engine(container: "Container", described: "EncoderDescription") -> str:
    from application.ports import EncoderUnavailable

    try:
        if container.tensorrt().wanted(described):
            return "none that is current; the server builds it in the background"
    except EncoderUnavailable as unavailable:
        return f"none: {unavailable}"
    return "none: TensorRT is not asked for (CLIP_ENCODER, CLIP_USE_TENSORRT)"


def _speed(encoder: "EncoderPort", batch: int) -> str:
    import numpy as np

    from domain.limits import IMAGE_SIZE

    def milliseconds(count: int) -> float:
        pixels = np.zeros((count, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
        encoder.encode_images(pixels)
        times = []
        for _ in range(_TIMED_CALLS):
            start = time.perf_counter()
            encoder.encode_images(pixels)
            times.append(time.perf_counter() - start)
        return min(times) * 1000

    one, many = milliseconds(1), milliseconds(batch)
    return f"{one:.1f} ms for one image, {batch / many * 1000:.0f} images/s in batches of {batch}"


def _address(settings: "Settings") -> list[str]:
    """Whether the port can be had, or one of these servers has it already."""
    import json
    import socket
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    _heading("Address")
    where = f"{settings.host}:{settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((settings.host, settings.port))
    except OSError as refused:
        reason = refused.strerror
    else:
        _line(where, "free")
        return []
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
    scheme, context = ("http", None) if settings.tls is None else ("https", settings.tls.trust())
    try:
        with urlopen(  # noqa: S310 the scheme is http or https
            f"{scheme}://{host}:{settings.port}/health", timeout=2, context=context
        ) as answer:
            running = json.load(answer)["model"]
    except HTTPError as refused:
        if refused.code == 401:
            _line(where, "a server is running there already, which wants a key")
            return []
        running = None
    except (URLError, OSError, ValueError, KeyError, TypeError):
        running = None
    if running is None:
        _line(where, f"cannot be had: {reason}")
        return [f"HOST and PORT: {where} cannot be had ({reason})."]
    _line(where, f"a server is running there already, with model {running}")
    return []


def _heading(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _line(name: str, value: str) -> None:
    click.echo(f"  {name:<14}{value}")
