"""A peer: vLLM, started by its manual as a pooling model, on the port that ``PORT`` says.

Takes vLLM's command and more arguments for it.
"""

import os
import sys

if __name__ == "__main__":
    _, executable, *more = sys.argv
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.execv(  # noqa: S606
        executable,
        [
            executable,
            "serve",
            os.environ["CLIP_MODEL_PATH"],
            "--served-model-name",
            "clip",
            "--runner",
            "pooling",
            "--host",
            "127.0.0.1",
            "--port",
            os.environ["PORT"],
            # The load sends few pictures again and again; their embeddings must not be remembered.
            "--mm-processor-cache-gb",
            "0",
            "--no-enable-prefix-caching",
            *more,
        ],
    )
