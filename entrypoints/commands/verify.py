"""``clip-server verify``."""

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from entrypoints.commands.progress import working
from entrypoints.commands.starting import fail, settings_or_exit
from entrypoints.commands.terminal import as_json, shown

if TYPE_CHECKING:
    from application.use_cases.verify import Agreement, VerifyServer


@click.command()
@click.argument("url")
@click.option(
    "--model",
    metavar="NAME",
    help="The checkpoint that the server should serve. Default: CLIP_MODEL_PATH.",
)
@click.option("--key", metavar="KEY", help="The server's API key.")
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object.")
def verify(url: str, *, model: str | None, key: str | None, json_wanted: bool) -> None:
    """Compare a running server's embeddings with those that a checkpoint should have.

    URL is any server with this API, this one or another. It gets pictures on which servers differ
    (wide, turned by EXIF, transparent, tiny, huge, …) and texts (long, in other scripts). If its
    embeddings differ from the checkpoint's in float32, this says what the server does instead:
    another crop, filter, normalisation, … Exit status 1 if any differ.

    \u0008
    Examples:
      clip-server verify http://localhost:8093
      clip-server verify http://old-server:8093 --model openai/clip-vit-large-patch14
    """
    # Imports in functions keep `--help` and completion fast.
    from adapters.verification.http_server import HttpEmbeddingServer
    from adapters.verification.questions import TEXTS, pictures
    from application.ports import ServerFailure

    try:
        server = HttpEmbeddingServer(url, key=key)
        with working("loading the checkpoint"):
            verification, name = _verification(model)
        with working("comparing"):
            agreement = verification(server, pictures(), TEXTS)
    except ServerFailure as failure:
        fail(f"{shown(url)} does not serve this checkpoint: {failure}")
    agrees = agreement.pictures_agree and agreement.texts_agree
    if json_wanted:
        deviation = agreement.deviation
        click.echo(
            as_json(
                {
                    "model": name,
                    "agrees": agrees,
                    "pictures": dict(agreement.pictures),
                    "texts": dict(agreement.texts),
                    "stage": None if deviation is None else deviation.stage,
                    "deviation": None if deviation is None else deviation.what,
                }
            )
        )
    else:
        _print(agreement, name)
    sys.exit(0 if agrees else 1)


def _verification(model: str | None) -> "tuple[VerifyServer, str]":
    from adapters.encoders.selection import EncoderChoice, EncoderSelection
    from adapters.images.pillow_preparation import prepare_picture
    from adapters.models.checkpoint_files import InvalidCheckpoint
    from adapters.models.precision import Precision
    from adapters.models.reading import preprocessing_of
    from adapters.verification.deviations import deviations_from
    from application.ports import EncoderUnavailable
    from application.use_cases.verify import VerifyServer

    settings = settings_or_exit()
    source = model or settings.model_path
    try:
        encoder = EncoderSelection(
            EncoderChoice.AUTO, source, precision=Precision.FP32, cache=settings.cache
        ).load()
        preprocessing = preprocessing_of(source)
    except (EncoderUnavailable, InvalidCheckpoint) as failure:
        fail(str(failure))
    verification = VerifyServer(
        encoder,
        partial(
            prepare_picture,
            image_input=preprocessing.image_input,
            max_pixels=settings.max_decoded_pixels,
        ),
        deviations_from(preprocessing),
    )
    return verification, encoder.description.model


def _print(agreement: "Agreement", model: str) -> None:
    click.secho(f"Cosine with {model} in float32", bold=True)
    for name, cosine in agreement.pictures.items():
        click.echo(f"  {name:<26}{cosine:8.5f}")
    click.secho("Difference of the cosine of an image and a text", bold=True)
    for name, difference in agreement.texts.items():
        click.echo(f"  {name:<26}{difference:8.5f}")
    click.echo()
    if agreement.deviation is not None:
        click.echo(
            f"Pictures differ in their {agreement.deviation.stage}: the server "
            f"{agreement.deviation.what}. With the same, the cosines are at least "
            f"{agreement.explained:.5f}."
        )
    elif agreement.only_rounded:
        click.echo("Pictures agree: the differences are no larger than from another precision.")
    elif agreement.pictures_agree:
        click.echo("Pictures agree.")
    else:
        click.echo(
            "Pictures differ, and nothing that this command knows explains it: the server may have "
            "other weights."
        )
    if agreement.texts_agree:
        click.echo("Texts agree.")
    else:
        worst = max(agreement.texts, key=agreement.texts.__getitem__)
        click.echo(f"Texts differ, most of all “{worst}”: check the server's tokenizer.")
