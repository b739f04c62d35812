"""Text for a terminal or a pipe whose encoding may lack characters."""

import json
import sys
from typing import Any, Final

_PLAIN: Final = str.maketrans("█▏▎▍▌▋▊▉–◀", "########-<")
"""Characters of bars and ranges, and their replacements if they cannot be shown."""


def fits(text: str, encoding: str | None) -> bool:
    """Whether the encoding has every character of the text."""
    try:
        text.encode(encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def drawn(text: str) -> str:
    """Bars and ranges, in plain characters if standard output lacks the others."""
    return text if fits(text, sys.stdout.encoding) else text.translate(_PLAIN)


def as_json(value: Any) -> str:
    """JSON that standard output can show: readable if its encoding allows it, else escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if fits(text, sys.stdout.encoding) else json.dumps(value)


def shown(text: str) -> str:
    """Text such as a path, with escapes for characters that standard output cannot show."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)
