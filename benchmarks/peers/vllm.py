"""A peer: vLLM, started by its manual as a pooling model, on the port that ``PORT`` says.

In the precision that ``VLLM_DTYPE`` says, by vLLM's names.
"""

import os
import sys

if __name__ == "__main__":
    _, executable = sys.argv
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.execv(  # noqa: S606
        executable,
        [
            executable,
            "serve",
            os.environ["CLIP_MODEL_PATH"],
            "--served-model-name",
            "bench",
            "--runner",
            "pooling",
            "--dtype",
            os.environ.get("VLLM_DTYPE", "auto"),
            "--host",
            "127.0.0.1",
            "--port",
            os.environ["PORT"],
        ],
    )
