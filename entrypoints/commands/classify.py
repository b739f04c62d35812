"""``clip-server classify``."""

from typing import TYPE_CHECKING, BinaryIO, Final

import click

from domain.limits import MAX_IMAGE_BYTES
from entrypoints.commands.starting import (
    compose,
    fail,
    loaded_model,
    result_or_exit,
    settings_or_exit,
)
from entrypoints.commands.terminal import as_json, drawn, fits

if TYPE_CHECKING:
    from application.use_cases.classify import ClassifiedImage
    from entrypoints.container import Container

_BAR: Final = 30
"""Characters of a bar that stands for 100 %."""


@click.command()
@click.argument("photo", type=click.File("rb"))
@click.argument("labels", nargs=-1, required=True, metavar="LABEL...")
@click.option(
    "--camera-type",
    metavar="TYPE",
    help="Put each label through five prompts for this kind of footage: standard, night_vision, "
    "outdoor, indoor or doorbell.",
)
@click.option(
    "--score",
    metavar="SCORE",
    default="softmax",
    show_default=True,
    help="softmax: which of the labels it is; sigmoid: whether each fits (SigLIP).",
)
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON instead of a table.")
def classify(
    *,
    photo: BinaryIO,
    labels: tuple[str, ...],
    camera_type: str | None,
    score: str,
    json_wanted: bool,
) -> None:
    """Say which label fits a photo.

    PHOTO is an image file, or - for standard input. The probabilities are those of POST
    /classify and sum to 1 over the labels: they compare labels, so give at least two. With --score
    sigmoid each is independent.

    \u0008
    Examples:
      clip-server classify photo.jpg 'a cat' 'a delivery truck' 'a person walking'
      clip-server classify door.jpg 'a parcel' 'nobody' --camera-type doorbell
      ffmpeg -i rtsp://camera -frames:v 1 -f mjpeg - | clip-server classify - day night --json
    """
    for place, label in enumerate(labels, start=1):
        if not fits(label, "utf-8"):
            fail(
                f"label {place} ({label.encode('utf-8', 'backslashreplace').decode()}) is not "
                "UTF-8 text; convert it from the encoding it is in, for example with iconv."
            )
    container = compose(settings_or_exit())
    image = photo.read(MAX_IMAGE_BYTES + 1)  # one byte more than allowed is enough to refuse it
    result = result_or_exit(_classify(container, image, labels, camera_type, score))
    scores = result.classification.scores
    if len(scores) == 1 and score == "softmax":
        click.echo(
            "With a single label the score is always 100 % and says nothing about the photo; add "
            "labels for what else it could show.",
            err=True,
        )
    if json_wanted:
        click.echo(as_json({"scores": scores, "top_label": result.classification.top_label}))
        return
    width = max(len(label) for label in scores)
    for label, share in sorted(scores.items(), key=lambda pair: -pair[1]):
        line = f"{label:<{width}}  {share:8.2%}  {drawn('█' * round(share * _BAR))}"
        click.secho(line.rstrip(), bold=label == result.classification.top_label)


async def _classify(
    container: "Container",
    image: bytes,
    labels: tuple[str, ...],
    camera_type: str | None,
    score: str,
) -> "ClassifiedImage":
    from domain.classification import Score
    from domain.prompts import CameraType
    from entrypoints.container import decode_in_this_process

    kind = None if camera_type is None else CameraType.named(camera_type)
    how = Score.named(score)
    decode_in_this_process(container)
    async with loaded_model(container):
        return await container.classify_image()(image, labels, camera_type=kind, score=how)
