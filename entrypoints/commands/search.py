"""``clip-server search``."""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from domain.limits import MAX_IMAGE_BYTES, MAX_SEARCH_RESULTS
from entrypoints.commands.starting import compose, loaded_model, result_or_exit, settings_or_exit
from entrypoints.commands.terminal import as_json, shown

if TYPE_CHECKING:
    from application.use_cases.search import SearchResult
    from entrypoints.container import Container


@click.command()
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("query", required=False)
@click.option("--photo", type=click.File("rb"), help="Find images like this one; - for stdin.")
@click.option(
    "--top",
    type=click.IntRange(1, MAX_SEARCH_RESULTS),
    default=10,
    show_default=True,
    help="How many results to show.",
)
@click.option("--json", "json_wanted", is_flag=True, help="Print a JSON object for each result.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Also write a page with thumbnails, in one file.",
)
def search(
    *,
    index: Path,
    query: str | None,
    photo: BinaryIO | None,
    top: int,
    json_wanted: bool,
    html: Path | None,
) -> None:
    """Find images by words, by a photo, or by both.

    INDEX is a file that `clip-server embed` wrote (.npz, .jsonl or .parquet), made with the same
    model as is loaded now. QUERY is what the image should show, in words.

    \u0008
    Examples:
      clip-server embed photos/ --output photos.npz
      clip-server search photos.npz 'a red car at night'
      clip-server search photos.npz --photo car.jpg --top 3
      clip-server search photos.npz 'in snow' --photo car.jpg --html found.html
    """
    if query is None and photo is None:
        raise click.UsageError("Give a QUERY in words, a --photo, or both.")
    if query is not None and not query.strip():
        raise click.UsageError("QUERY is blank; say what the image should show.")
    container = compose(settings_or_exit())
    # One byte more than allowed is enough to refuse it.
    image = None if photo is None else photo.read(MAX_IMAGE_BYTES + 1)
    result = result_or_exit(_search(container, index, query, image, top))
    for match in result.matches:
        row = {"path": match.path, "similarity": match.similarity}
        line = f"{match.similarity:7.3f}  {shown(match.path)}"
        click.echo(as_json(row) if json_wanted else line)
    note = _meaning(text=query is not None, photo=photo is not None)
    if not json_wanted:
        click.echo(f"\nSearched {result.searched} images. {note}", err=True)
    if result.without_embedding:
        click.echo(
            f"{result.without_embedding} rows of {index} have an error instead of an embedding "
            "and were ignored.",
            err=True,
        )
    if html is not None:
        from entrypoints.commands.found_page import found_page

        asked = " and ".join(
            ([f"“{query}”"] if query is not None else [])
            + ([f"the photo {photo.name}"] if photo is not None else [])
        )
        html.write_text(found_page(asked, result, note), encoding="utf-8")
        click.echo(f"Wrote {html}.", err=True)


async def _search(
    container: "Container", index: Path, query: str | None, photo: bytes | None, top: int
) -> "SearchResult":
    from entrypoints.container import decode_in_this_process

    decode_in_this_process(container)
    opened = container.index_file(index)  # before the model loads: a wrong name fails fast
    async with loaded_model(container):
        return await container.search_index()(opened, text=query, photo=photo, top=top)


def _meaning(*, text: bool, photo: bool) -> str:
    """What the numbers mean and what they do not."""
    if text and photo:
        return (
            "The number is the mean of two cosines, with the words and with the photo. Only the "
            "order matters."
        )
    if text:
        return (
            "The number is a cosine. Between words and photos it stays low even for a perfect fit "
            "(about 0.2 to 0.35 with CLIP ViT-L/14): only the order matters, and something is "
            "always first, even if nothing fits."
        )
    return (
        "The number is a cosine: 1 for the same picture, and about 0.85 or more for much the same "
        "thing with CLIP ViT-L/14. It does not prove that two photos show the same individual."
    )
