"""A peer: faster-clip from PyPI, a library, behind FastAPI on the port that ``PORT`` says.

It reads a CLIP ViT-B/32 alone, and only from its own cache, where the weights in
``CLIP_MODEL_PATH`` are put under the name that it looks for. It releases the interpreter while it
computes, so that requests are served by threads.
"""

import base64
import os
import tempfile
from pathlib import Path
from typing import Any

WEIGHTS = "sentence-transformers__clip-ViT-B-32/0_CLIPModel/model.safetensors"
"""Where faster-clip 0.4.0 looks in its cache."""


def serve(cache: Path) -> None:
    """Put the weights into the cache and serve them."""
    weights = cache / WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.symlink_to(Path(os.environ["CLIP_MODEL_PATH"]).absolute() / "model.safetensors")
    os.environ["FASTER_CLIP_CACHE"] = str(cache)

    # Only the environment of its own has these.
    import uvicorn
    from fastapi import Body, FastAPI
    from faster_clip import ClipModel

    app = FastAPI()
    model: Any = ClipModel()

    def embed(image: str = Body(embed=True)) -> dict[str, Any]:
        return {"embedding": model.encode_image([base64.b64decode(image)])[0]}

    async def health() -> dict[str, Any]:
        return {"status": "healthy"}

    app.post("/embed")(embed)
    app.get("/health")(health)
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        serve(Path(directory))
