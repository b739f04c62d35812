"""The page that ``clip-server search --html`` writes: thumbnails in one file, no script."""

import base64
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapters.images.thumbnail import thumbnail
from domain.limits import MAX_IMAGE_BYTES

if TYPE_CHECKING:
    from application.use_cases.search import Match, SearchResult

_SIDE: Final = 320

_STYLE: Final = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
ol { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr));
     list-style: none; padding: 0; }
li { border: 1px solid color-mix(in srgb, currentcolor 25%, transparent); border-radius: .5rem;
     overflow: hidden; }
img, .gone { aspect-ratio: 4 / 3; display: block; object-fit: contain; width: 100%;
             background: color-mix(in srgb, currentcolor 8%, transparent); }
.gone { display: grid; place-items: center; }
p { margin: .5rem .75rem; overflow-wrap: anywhere; }
b { font-variant-numeric: tabular-nums; }
"""


def found_page(query: str, result: "SearchResult", note: str) -> str:
    """One self-contained HTML document.

    Args:
        query: what was asked, in words.
        result: what was found.
        note: what the numbers mean.
    """
    title = f"Images like {query}"
    items = "\n".join(_item(place, match) for place, match in enumerate(result.matches, start=1))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p>{len(result.matches)} of {result.searched} images. {escape(note)}</p>
<ol>
{items}
</ol>
</main>
</body>
</html>
"""


def _item(place: int, match: "Match") -> str:
    return (
        f"<li>{_picture(match.path)}<p><b>{place}. &nbsp;{match.similarity:.3f}</b><br>"
        f"{escape(match.path)}</p></li>"
    )


def _picture(path: str) -> str:
    name = escape(Path(path).name)
    try:
        with open(path, "rb") as file:
            small = thumbnail(file.read(4 * MAX_IMAGE_BYTES), side=_SIDE)
    except (OSError, ValueError):
        return '<div class="gone">The file is no longer there</div>'
    if small is None:
        return '<div class="gone">The file cannot be shown</div>'
    address = f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"
    link = escape(Path(path).absolute().as_uri())
    return f'<a href="{link}"><img src="{address}" alt="{name}" loading="lazy"></a>'
