"""The settings for readers: as ``docs/configuration.md`` and as a part of ``serve --help``.

``python -m entrypoints.configuration`` prints the document; ``make docs`` writes it.
"""

from collections.abc import Iterator
from itertools import groupby

from entrypoints.settings import DECLARED, STANDARD_VARIABLES
from entrypoints.variables import Declaration

_INTRODUCTION = """\
# Configuration

<!-- Made by `make docs` from entrypoints/settings.py; a test compares the two. -->

All commands of `clip-server` read these environment variables. An empty variable counts as unset. A
value that is not allowed stops the start with one line that names the variable, the value and what
is allowed, and with exit status 2. A variable that begins with `CLIP_` and is not in this list is a
warning in the log.

`clip-server serve` takes the most common ones as options too, which win over the environment:

    clip-server serve --model builtin:demo --host 127.0.0.1 --port 9000
"""


def as_markdown() -> str:
    """The whole document."""
    parts = [_INTRODUCTION]
    for group, members in groupby(DECLARED, key=lambda each: each.about.group):
        parts += [
            f"\n## {group}\n",
            "| variable | default | allowed | meaning |",
            "| --- | --- | --- | --- |",
            *(_row(each) for each in members),
        ]
    parts += [
        "\n## Variables of other software that count too\n",
        "| variable | meaning |",
        "| --- | --- |",
        *(f"| `{name}` | {meaning} |" for name, meaning in STANDARD_VARIABLES.items()),
    ]
    return "\n".join(parts) + "\n"


def help_entries() -> Iterator[tuple[str, str]]:
    """Each variable, and what ``serve --help`` says about it."""
    for each in DECLARED:
        about = each.about
        default = f"Default: {each.default_text}." if each.default_text else "Not set by default."
        allowed = "" if each.allowed in ("text", "a path") else f" Allowed: {each.allowed}."
        yield about.name, f"{about.meaning} {default}{allowed}".replace("`", "")
    for name, meaning in STANDARD_VARIABLES.items():
        yield name, meaning.replace("`", "")


def _row(each: Declaration) -> str:
    about = each.about
    name = f"`{about.name}`" + (f", `{about.option}`" if about.option else "")
    default = each.default_text
    if default and " " not in default:
        default = f"`{default}`"
    return f"| {name} | {default or 'not set'} | {each.allowed} | {about.meaning} |"


if __name__ == "__main__":
    print(as_markdown(), end="")  # noqa: T201 what the module is run for
