"""What `/metrics` counts, in process."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient
from prometheus_client.parser import text_string_to_metric_families

from tests.support.photos import as_base64, photo

IMAGE = as_base64(photo("cat"))
Client = AsyncTestClient[Any]
Labels = frozenset[tuple[str, str]]


async def scrape(client: Client) -> dict[tuple[str, Labels], float]:
    page = await client.get("/metrics")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


def series(name: str, **labels: str) -> tuple[str, Labels]:
    return name, frozenset(labels.items())


async def test_requests_by_endpoint_and_outcome(client: Client) -> None:
    for _ in range(2):
        await client.post("/embed", json={"image": IMAGE})
    await client.post("/embed", json={"image": "aGVsbG8="})
    await client.post("/embed", content=b"{", headers={"content-type": "application/json"})
    counted = await scrape(client)
    for outcome, status, count in (
        ("ok", "200", 2),
        ("not_an_image", "422", 1),
        ("invalid_json", "400", 1),
    ):
        labels = {"endpoint": "/embed", "outcome": outcome, "status": status}
        assert counted[series("clip_requests_total", **labels)] == count
    assert counted[series("clip_request_duration_seconds_count", endpoint="/embed")] == 4


async def test_what_clients_choose_is_never_a_label(client: Client) -> None:
    for n in range(20):
        assert (await client.get(f"/nothing-{n}/here")).status_code == 404
        await client.request(f"BREW{n}", "/embed")
    counted = await scrape(client)
    labels = {"endpoint": "unrouted", "outcome": "not_found", "status": "404"}
    assert counted[series("clip_requests_total", **labels)] == 20
    assert not any(
        value.startswith(("/nothing", "BREW")) for _, labels in counted for _, value in labels
    )


async def test_stages_batches_and_the_text_cache(client: Client) -> None:
    for labels in (["a cat", "a dog"], ["a cat", "a bird"]):
        await client.post("/classify", json={"image": IMAGE, "labels": labels})
    counted = await scrape(client)
    for stage, count in (
        ("decode_queue", 2),
        ("decode", 2),
        ("image_queue", 2),
        ("image_encode", 2),
        ("text_queue", 2),
        ("text_encode", 2),
    ):
        assert counted[series("clip_stage_duration_seconds_count", stage=stage)] == count
    assert counted[series("clip_batch_size_images_sum")] == 2
    assert counted[series("clip_text_cache_hits_total")] == 1
    assert counted[series("clip_text_cache_misses_total")] == 3
    assert counted[series("clip_text_cache_entries")] == 3


async def test_what_the_service_is_now(client: Client) -> None:
    counted = await scrape(client)
    assert counted[series("clip_ready")] == 1
    assert counted[series("clip_model_loaded")] == 1
    assert counted[series("clip_queue_depth")] == 0
    assert counted[series("clip_requests_in_progress")] == 0
    assert counted[series("clip_requests_limit")] == 64
    assert counted[series("clip_device_memory_bytes")] == 0
    encoder = {
        "backend": "fake",
        "precision": "fp32",
        "device": "cpu",
        "model": "fake",
        "fingerprint": "fake000000000000",
    }
    assert counted[series("clip_backend_info", **encoder)] == 1
    assert counted[series("process_resident_memory_bytes")] > 1_000_000


async def test_the_former_names_say_the_same(client: Client) -> None:
    for _ in range(2):
        await client.post("/embed", json={"image": IMAGE})
    await client.post("/embed", json={"image": "aGVsbG8="})
    await client.get("/health")
    counted = await scrape(client)
    for status, count in (("success", 2), ("error", 1)):
        labels = {"endpoint": "/embed", "status": status}
        assert counted[series("clip_inference_requests_total", **labels)] == count
    for part in ("count", "sum"):
        ours = counted[series(f"clip_request_duration_seconds_{part}", endpoint="/embed")]
        former = counted[series(f"clip_inference_latency_seconds_{part}", endpoint="/embed")]
        assert former == ours > 0
    bucket = series("clip_inference_latency_seconds_bucket", endpoint="/embed", le="+Inf")
    assert counted[bucket] == 3
    assert series("clip_inference_latency_seconds_count", endpoint="/health") not in counted
    assert counted[series("clip_backend_type", backend="fake")] == 1
    assert counted[series("clip_gpu_memory_used_gb")] == 0


@pytest.mark.parametrize(
    ("accept", "content_type", "end"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", "\n"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# EOF\n",
        ),
    ],
)
async def test_the_format_is_the_one_asked_for(
    client: Client, accept: str, content_type: str, end: str
) -> None:
    page = await client.get("/metrics", headers={"accept": accept})
    assert page.headers["content-type"].startswith(content_type)
    assert page.text.endswith(end)
