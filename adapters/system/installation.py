"""How this program is installed, and the command that adds what is missing."""

import importlib.util
import json
import shlex
import sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_DISTRIBUTION: Final = "clip-embedding-server"


def is_installed(module: str) -> bool:
    """Whether a top-level module can be imported; nothing is imported."""
    return importlib.util.find_spec(module) is not None


def install_command(*extras: str) -> str:
    """The command line that adds extras to this installation.

    It names this Python, since another one's pip would install into another environment, and the
    directory that the program was installed from, if it was installed from a directory.

    Args:
        extras: such as ``torch``.
    """
    source, editable = _source()
    python = sys.executable or "python3"
    command = [python, "-m", "pip", "install"]
    # Not `is_installed`: asked for pip, a finder that setuptools adds replaces distutils.
    if PathFinder.find_spec("pip") is None:
        command = ["uv", "pip", "install", "--python", python]
    if (constraints := Path(source) / "constraints.txt").is_file():
        command += ["-c", str(constraints)]
    requirement = f"{source}[{','.join(extras)}]"
    return shlex.join([*command, *(["-e"] if editable else []), requirement])


def _source() -> tuple[str, bool]:
    """What pip should install, and whether it is an editable installation (PEP 610)."""
    try:
        recorded = distribution(_DISTRIBUTION).read_text("direct_url.json")
        origin = json.loads(recorded or "{}")
        url = urlsplit(str(origin.get("url", "")))
    except (PackageNotFoundError, ValueError, AttributeError):
        return _DISTRIBUTION, False
    directory = unquote(url.path)
    if "dir_info" not in origin or url.scheme != "file" or not Path(directory).is_dir():
        return _DISTRIBUTION, False
    return directory, bool(origin["dir_info"].get("editable"))
