"""Files that a process needs for itself only, where nothing is kept for the next start."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path


@functools.cache
def scratch_directory() -> Path:
    """This process's own directory; removed, with all that is in it, when the process ends."""
    directory = Path(tempfile.mkdtemp(prefix="clip-server-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
