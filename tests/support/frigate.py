"""Frigate's clients for embeddings: what its sources send, and how they read the response."""

import base64
from typing import Any

import httpx
import numpy as np
import openai
from openai.types import CreateEmbeddingResponse

TIMEOUT_S = 120
"""For embeddings; what it asks at the start has `_START_TIMEOUT_S`."""
_START_TIMEOUT_S = 10


class FrigateLlamaCpp:
    """Frigate's provider `llamacpp`: finds the model and the marker, then embeds."""

    def __init__(
        self, http: httpx.Client, base_url: str, model: str, key: str | None = None
    ) -> None:
        self._url = base_url.rstrip("/").replace("/v1", "")
        self._model = model
        self._http = http
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        models = self._get("/v1/models")["data"]
        (entry,) = [each for each in models if model in {each["id"], *each.get("aliases", [])}]
        assert "image" in entry["architecture"]["input_modalities"]
        props = self._get("/props", model=model)
        assert props["modalities"]["vision"]
        assert int(props["default_generation_settings"]["n_ctx"]) == 77
        self.marker = str(props["media_marker"])

    def _get(self, path: str, **query: str) -> Any:
        response = self._http.get(
            self._url + path, params=query, headers=self._headers, timeout=_START_TIMEOUT_S
        )
        return response.raise_for_status().json()

    def embed(self, texts: list[str], images: list[bytes]) -> list[np.ndarray]:
        """As Frigate does: nothing if the request fails."""
        content: list[dict[str, Any]] = [{"prompt_string": text} for text in texts]
        content += [
            {
                "prompt_string": f"{self.marker}\n",
                "multimodal_data": [base64.b64encode(image).decode()],
            }
            for image in images
        ]
        body = {"model": self._model, "content": content}
        response = self._http.post(f"{self._url}/embeddings", json=body, headers=self._headers)
        if response.is_error:
            self.refusal = response.text
            return []
        result = response.json()
        items = result.get("data", result) if isinstance(result, dict) else result
        return [np.array(item["embedding"], dtype=np.float32).flatten() for item in items]


def frigate_vllm(
    client: openai.OpenAI, text: str | None = None, image: bytes | None = None
) -> np.ndarray:
    """One request of Frigate's provider `vllm`."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": text or ""}]
    if image is not None:
        data = base64.b64encode(image).decode()
        url = {"url": f"data:image/jpeg;base64,{data}"}
        parts.insert(0, {"type": "image_url", "image_url": url})
    told = [{"type": "text", "text": "Represent the user's input."}]
    response = client.post(
        "/embeddings",
        cast_to=CreateEmbeddingResponse,
        body={
            "model": "clip",
            "messages": [
                {"role": "system", "content": told},
                {"role": "user", "content": parts},
                {"role": "assistant", "content": [{"type": "text", "text": ""}]},
            ],
            "encoding_format": "float",
            "dimensions": 768,
            "continue_final_message": True,
            "add_special_tokens": False,
        },
    )
    (entry,) = response.data
    return np.array(entry.embedding, dtype=np.float32)
