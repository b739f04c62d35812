"""The real server with a real model that it gives up and loads again."""

import time
from pathlib import Path
from typing import Any

import httpx

from tests.support.photos import as_base64, photo
from tests.support.servers import SERVE, running, wait_for


def test_the_next_request_waits_and_is_answered_the_same(tmp_path: Path) -> None:
    settings = {"CLIP_MODEL_PATH": "builtin:demo", "CLIP_IDLE_UNLOAD_SECONDS": "0.5"}
    request = {"image": as_base64(photo("cat")), "labels": ["a cat", "a dog"]}
    with (
        running(SERVE, tmp_path / "log", CLIP_ENCODER="openvino", **settings) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        wait_for(server, "/health/ready")

        def ask() -> dict[str, Any]:
            response = client.post("/classify", json=request)
            assert response.status_code == 200, response.text
            scores: dict[str, Any] = response.json()["scores"]
            return scores

        def unloaded() -> httpx.Response:
            deadline = time.monotonic() + 60
            while True:
                response = client.get("/health")
                if response.json()["unloaded_while_idle"]:
                    return response
                assert time.monotonic() < deadline, server.log
                time.sleep(0.05)

        scores = ask()
        loaded = client.get("/health").json()
        assert (loaded["model_loaded"], loaded["unloaded_while_idle"]) == (True, False)
        for _ in range(2):
            response = unloaded()
            assert response.headers["x-model-fingerprint"] == loaded["model_fingerprint"]
            health = response.json()
            assert health == {**loaded, "model_loaded": False, "unloaded_while_idle": True}
            assert client.get("/health/ready").status_code == 200
            assert "clip_model_loaded 0.0" in client.get("/metrics").text
            # On a busy machine it may have been unloaded before the first cycle too.
            loads = server.log.count("loading the model again")
            assert ask() == scores
            assert server.log.count("loading the model again") == loads + 1
        # This call looks at the model's name before it needs the model.
        name = loaded["model"]
        assert unloaded().json()["model"] == name
        response = client.post("/v1/embeddings", json={"input": "a cat", "model": name})
        assert response.status_code == 200, response.text
        assert server.stop() == 0
