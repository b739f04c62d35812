"""``clip-server doctor``."""

import asyncio
import json
import os
import sys
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Final

import click

from entrypoints.commands.progress import working
from entrypoints.commands.starting import compose, settings_or_exit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapters.encoders.selection import EncoderSelection
    from application.ports import EncoderDescription, EncoderPort
    from entrypoints.container import Container
    from entrypoints.settings import Settings

_GIB: Final = 1024**3
_MOST_TIMED_CALLS: Final = 5
_TIMED_S: Final = 4.0
"""No further call is timed after this many seconds."""


@click.command()
@click.option(
    "--measure",
    is_flag=True,
    help="Also measure the model with every encoder and precision on this processor, and save the "
    "fastest runtime for CLIP_ENCODER=auto; on a GPU, measure every batch size. Takes a minute or "
    "two, longer the first time.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 600),
    default=3.0,
    show_default=True,
    help="With --measure: how long to measure each batch size.",
)
def doctor(*, measure: bool, seconds: float) -> None:
    """Check the machine and the settings before serving.

    Prints the hardware; the model, encoder and precision that the server would use, and why; the
    time for an image; and what would be faster. Loads the model as serve does. The exit status is 1
    if the server could not start.

    \u0008
    Examples:
      clip-server doctor
      clip-server doctor --measure
      CLIP_MODEL_PATH=/models/clip-vit-l CLIP_PRECISION=int8 clip-server doctor
    """
    settings = settings_or_exit()
    container = compose(settings)
    _hardware()
    problems = _model(container, settings)
    if measure and not problems:
        device = container.encoder_loader().probe_device()
        if device.cuda_available and device.gpu_wanted:
            _measured_on_card(settings, seconds)
        else:
            _measured(container.encoder_loader(), settings, seconds)
    problems += _address(settings)
    click.echo()
    if problems:
        click.secho("Serving with these settings would fail:", fg="red", bold=True)
        for problem in problems:
            click.echo(f"  - {problem}")
        sys.exit(1)
    click.secho("No problems found: the server can start.", fg="green", bold=True)


def _hardware() -> None:
    from adapters.system.hardware import (
        memory,
        nvidia_cards,
        nvidia_driver_present,
        nvidia_driver_version,
        processor,
        usable_cores,
    )

    _heading("Hardware")
    found = processor()
    cores = usable_cores()
    _line("processor", f"{found.name}, {cores} core{'s' if cores > 1 else ''} for this process")
    _line("instructions", " ".join(found.instructions) or "none that speed up encoding")
    if (main := memory()) is not None:
        _line("memory", f"{main.total / _GIB:.1f} GiB, {main.available / _GIB:.1f} GiB available")
    # Other work on the machine makes all times below longer, and nothing else would show it.
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > cores:
        _line("load", f"{busy:.1f}: this machine is busy, so the times below are too long")
    cards = ", ".join(nvidia_cards()) or "a driver that does not list its cards"
    if version := nvidia_driver_version():
        cards += f"; driver {version}"
    _line("NVIDIA", cards if nvidia_driver_present() else "no driver")


def _model(container: "Container", settings: "Settings") -> list[str]:
    """Load the model, print its properties, and return the problems."""
    _heading("Model")
    _line("checkpoint", f"{settings.model_path} (CLIP_MODEL_PATH)")
    choice, reason = container.encoder_loader().preferred()
    _line("encoder", f"{choice}: {reason}")
    model = container.model()
    start = time.perf_counter()
    with working("loading the model; the first time it is compiled, which can take a minute"):
        asyncio.run(model.load())
    if (encoder := model.encoder) is None:
        _line("loaded", "no")
        return [str(model.reason)]
    described = encoder.description
    _line("loaded", f"{described.model} in {time.perf_counter() - start:.1f} s")
    _line("fingerprint", described.fingerprint)
    _line("runs on", f"{described.backend} on {described.device.name}")
    chosen = "set by CLIP_PRECISION" if settings.precision else "chosen automatically"
    _line("precision", f"{described.precision} ({chosen})")
    if described.backend != str(choice):
        _line("", f"not {choice}: see the warning above")
    if (unused := model.gpu_reason) is not None:
        _line("GPU", f"not used: {unused}")
    _line("engine", described.engine_path or _why_no_engine(container, described))
    _speed(encoder, settings.max_batch)
    _what_else(described)
    return []


def _why_no_engine(container: "Container", described: "EncoderDescription") -> str:
    from application.ports import EncoderUnavailable

    try:
        if container.tensorrt().wanted(described):
            return "none that is up to date; the server will build one in the background"
    except EncoderUnavailable as unavailable:
        return f"none: {unavailable}"
    return "none: TensorRT is turned off (CLIP_ENCODER, CLIP_USE_TENSORRT)"


def _speed(encoder: "EncoderPort", batch: int) -> None:
    import numpy as np

    side = encoder.description.image_input.size

    def seconds(count: int) -> float:
        """Time per image, for ``count`` images in one call."""
        pixels = np.zeros((count, 3, side, side), dtype=np.float32)
        encoder.encode_images(pixels)
        times: list[float] = []
        while len(times) < _MOST_TIMED_CALLS and sum(times) < _TIMED_S:
            start = time.perf_counter()
            encoder.encode_images(pixels)
            times.append(time.perf_counter() - start)
        return min(times) / count

    for count in dict.fromkeys((1, batch)):
        with working(f"timing calls with {count} image{'s' if count > 1 else ''}"):
            each = seconds(count)
        name = "one image" if count == 1 else f"batches of {count}"
        _line(name, f"{_two_digits(each)} s an image, {_two_digits(1 / each)} images a second")


def _what_else(described: "EncoderDescription") -> None:
    from adapters.encoders.advice import faster, surroundings
    from adapters.encoders.expected_speed import (
        gains,
        multiplication_rate,
        seconds_per_image,
    )
    from adapters.models.catalogue import IMAGE_TOWERS

    around = surroundings()
    _heading("What would be faster")
    for advice in faster(described, around) or ["Nothing that this command knows."]:
        click.echo(f"  - {advice}")
    if described.device.name != "cpu":
        return
    _heading("Other models and precisions on this processor, on OpenVINO")
    with working("measuring this processor's multiplication rate"):
        rate = multiplication_rate()
    possible = gains(around.instructions)
    click.echo("  " + f"{'seconds an image':<18}" + "".join(f"{each:>8}" for each in possible))
    for name, tower in IMAGE_TOWERS.items():
        times = (seconds_per_image(tower.operations, rate, gain) for gain in possible.values())
        click.echo("  " + f"{name:<18}" + "".join(f"{_two_digits(each):>8}" for each in times))
    click.echo(f"  (estimated, from {_two_digits(rate / 1e9)} billion float32 operations a second)")


def _measured(selection: "EncoderSelection", settings: "Settings", seconds: float) -> None:
    from adapters.encoders.advice import surroundings
    from adapters.encoders.kept_choice import keep_choice
    from adapters.encoders.measuring import (
        BUSY,
        Order,
        candidates,
        clearly_faster,
        considered_by_auto,
        cosine,
        fastest_runtime,
        measure,
    )
    from adapters.system.hardware import multiplies_bfloat16, multiplies_int8, usable_cores
    from application.ports import EncoderUnavailable

    batches = list(dict.fromkeys((1, settings.max_batch)))
    possible = candidates(
        surroundings().installed,
        bf16=multiplies_bfloat16(),
        int8=multiplies_int8(),
        cores=usable_cores(),
    )
    considered = considered_by_auto(selection)
    cache = None if settings.cache is None else str(settings.cache)
    _heading("Measured on this processor, each in its own process")
    columns = [*(f"{size} at once" for size in batches), "cosine", "memory"]
    click.echo(f"  {'images a second':<26}" + "".join(f"{each:>12}" for each in columns))
    found = {}
    for candidate in dict.fromkeys((*possible, *considered)):
        try:
            with working(f"measuring {candidate.name}"):
                figures = measure(
                    Order(candidate, settings.model_path, cache, batches, seconds=seconds)
                )
        except EncoderUnavailable as unavailable:
            click.echo(f"  {candidate.name:<26}  {unavailable}")
            continue
        found[candidate] = figures
        values = [_two_digits(figures.per_second[size]) for size in batches]
        exact = found[next(iter(found))]
        values += [f"{cosine(figures, exact):.5f}", f"{figures.peak_bytes / _GIB:.2f} GiB"]
        click.echo(f"  {candidate.name:<26}" + "".join(f"{each:>12}" for each in values))
    if (waited := max((each.waited for each in found.values()), default=0.0)) > BUSY:
        click.echo(
            f"  Other programs used the cores for up to {100 * waited:.0f} % of the time, so these "
            "figures mean little. Measure again when the machine is idle."
        )
    if not considered or considered[0] not in found:
        return
    now = considered[0]
    fastest = fastest_runtime(considered, found, batches[-1])
    click.echo(f"  From the next start on, CLIP_ENCODER=auto uses {fastest} in {now.precision}.")
    if settings.cache is not None:
        keep_choice(settings.cache, settings.model_path, now.precision, fastest)
    for size in batches:
        better = clearly_faster(found, now, size)
        if better is not None:
            times = found[better].per_second[size] / found[now].per_second[size]
            click.echo(
                f"  - {size} at once: {better.name} is {times:.1f} times as fast. "
                f"Set {better.settings}."
            )


def _measured_on_card(settings: "Settings", seconds: float) -> None:
    from adapters.encoders.measuring import CARD_BATCHES, Candidate, Order, measure
    from adapters.encoders.selection import EncoderChoice
    from adapters.models.precision import Precision
    from application.ports import EncoderUnavailable

    candidate = Candidate(EncoderChoice.TORCH, settings.precision or Precision.FP16)
    _heading(f"Measured on the GPU with {candidate.name}, in its own process")
    try:
        with working(f"measuring {candidate.name}"):
            cache = None if settings.cache is None else str(settings.cache)
            figures = measure(
                Order(candidate, settings.model_path, cache, CARD_BATCHES, seconds=seconds)
            )
    except EncoderUnavailable as unavailable:
        click.echo(f"  {unavailable}")
        return
    for line in batches_on_card(figures.per_second, settings.max_batch):
        click.echo(f"  {line}")


def batches_on_card(per_second: "Mapping[int, float]", now: int) -> list[str]:
    """The measured rates, and the best ``CLIP_MAX_BATCH_SIZE``, as lines to print.

    Args:
        per_second: images a second, by batch size.
        now: the batch size in the settings.
    """
    from adapters.encoders.measuring import best_batch

    best = best_batch(per_second)
    lines = [
        f"{size:>4} at once: {_two_digits(rate)} images/s" for size, rate in per_second.items()
    ]
    if best == now:
        return [*lines, f"CLIP_MAX_BATCH_SIZE={best} is already the best for this card."]
    return [*lines, f"Set CLIP_MAX_BATCH_SIZE={best}, the best for this card; it is {now} now."]


def _address(settings: "Settings") -> list[str]:
    """Print whether the server could listen on its address, and return the problems."""
    from entrypoints.server.listener import CannotListen, bind

    _heading("Address")
    where = f"{settings.host}:{settings.port}"
    try:
        for listening in bind(settings.host, settings.port):
            listening.close()
    except CannotListen as reason:
        problem = str(reason)
    else:
        _line("port", f"{where} is free")
        return []
    if (running := _running_server(settings)) is not None:
        _line("port", f"{where} is taken by {running}")
        return [
            f"{where} is taken by {running}. Stop it, or choose another port with PORT or --port."
        ]
    _line("port", f"{where} cannot be used")
    return [problem]


def _running_server(settings: "Settings") -> str | None:
    """How a clip-server that already runs at the address describes itself; None if there is none.

    The request bypasses any proxy from the environment, since the port is on this machine.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    connection = (
        HTTPConnection(host, settings.port, timeout=2)
        if settings.tls is None
        else HTTPSConnection(host, settings.port, timeout=2, context=settings.tls.trust())
    )
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        body = json.loads(response.read(65536))
        if response.status == 401 and "api_key" in body["code"]:
            return "another clip-server, which needs a key"
        return f"another clip-server, with model {body['model'] or 'not loaded'}"
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def _two_digits(number: float) -> str:
    """Two significant digits, without an exponent: 0.28, 4.0, 240."""
    text = f"{number:#.2g}"
    return f"{float(text):.0f}" if float(text) >= 10 else text


def _heading(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _line(name: str, value: str) -> None:
    click.echo(f"  {name:<14}{value}")
