"""A peer: infinity-emb from PyPI, started as its manual says, on the port that ``PORT`` says.

On the processor, or where ``INFINITY_DEVICE`` says.
"""

import os
import sys

if __name__ == "__main__":
    _, executable = sys.argv
    os.environ["DO_NOT_TRACK"] = "1"
    os.execv(  # noqa: S606
        executable,
        [
            executable,
            "v2",
            "--model-id",
            os.environ["CLIP_MODEL_PATH"],
            "--served-model-name",
            "clip",
            "--engine",
            "torch",
            "--device",
            os.environ.get("INFINITY_DEVICE", "cpu"),
            "--host",
            "127.0.0.1",
            "--port",
            os.environ["PORT"],
        ],
    )
