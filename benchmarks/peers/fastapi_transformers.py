"""A peer: the contract on FastAPI and transformers, written in the usual way.

One ``async def`` per endpoint, model and processor as globals, PyTorch called in the handler. It
has ``/embed``, ``/classify`` and ``/health``; limits and errors are left out, which makes it
faster, if anything.
"""

import base64
import io
import os
import time
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

app = FastAPI()
model: Any = AutoModel.from_pretrained(os.environ["CLIP_MODEL_PATH"]).eval()
image_processor: Any = AutoImageProcessor.from_pretrained(os.environ["CLIP_MODEL_PATH"])
tokenizer: Any = AutoTokenizer.from_pretrained(os.environ["CLIP_MODEL_PATH"])


class EmbedRequest(BaseModel):
    """One image as base64."""

    image: str


class ClassifyRequest(EmbedRequest):
    """One image and the labels to choose from."""

    labels: list[str]


def _photo(image: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")


@app.get("/health")
async def health() -> dict[str, Any]:
    """Whether it runs, and in what it computes."""
    precision = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return {"status": "healthy", "backend": "torch", "precision": precision[model.dtype]}


@app.post("/embed")
async def embed(request: EmbedRequest) -> dict[str, Any]:
    """The image as a unit vector."""
    start = time.perf_counter()
    inputs = image_processor(images=_photo(request.image), return_tensors="pt")
    with torch.inference_mode():
        output = model.get_image_features(**inputs)
    features = getattr(output, "pooler_output", output)
    features = features / features.norm(dim=-1, keepdim=True)
    return {
        "embedding": features[0].tolist(),
        "inference_time_ms": (time.perf_counter() - start) * 1000,
    }


@app.post("/classify")
async def classify(request: ClassifyRequest) -> dict[str, Any]:
    """Which of the labels fits."""
    start = time.perf_counter()
    # SigLIP was trained with texts of one length.
    padding = "max_length" if model.config.model_type == "siglip" else True
    texts = tokenizer(request.labels, padding=padding, return_tensors="pt")
    inputs = image_processor(images=_photo(request.image), return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=texts["input_ids"], **inputs).logits_per_image
        scores = logits.softmax(dim=1)[0].tolist()
    best = max(range(len(scores)), key=scores.__getitem__)
    return {
        "scores": dict(zip(request.labels, scores, strict=True)),
        "top_label": request.labels[best],
        "inference_time_ms": (time.perf_counter() - start) * 1000,
    }


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
