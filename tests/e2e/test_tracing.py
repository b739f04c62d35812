"""Traces as a collector receives them, over OTLP/HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from tests.support.photos import as_base64, photo
from tests.support.receivers import Receiver
from tests.support.servers import SERVE, free_port, running, wait_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with Receiver().listening() as collector:
        yield collector


def exported(collector: Receiver) -> list[ResourceSpans]:
    """What was sent, span by resource; checks that all of it came to the right place."""
    assert {delivery.path for delivery in collector.deliveries} == {"/v1/traces"}
    return [
        spans
        for delivery in collector.deliveries
        for spans in ExportTraceServiceRequest.FromString(delivery.body).resource_spans
    ]


def attributes(owner: Span | Resource) -> dict[str, object]:
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value")
        for item in owner.attributes
    }


def test_a_request_and_its_stages_under_the_callers_span(
    collector: Receiver, tmp_path: Path
) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "cameras"}
    with running(SERVE, tmp_path / "log", CLIP_ENCODER="fake", **settings) as server:
        wait_for(server, "/health/ready")
        image = as_base64(photo("cat"))
        traced = httpx.post(
            server.url + "/classify",
            json={"image": image, "labels": ["a cat", "a dog"]},
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "frame-1"},
            timeout=60,
        )
        assert traced.status_code == 200
        assert httpx.post(server.url + "/embed", json={"image": "x"}).status_code == 422
        assert httpx.get(server.url + "/secret-path").status_code == 404
        assert server.stop() == 0  # sends what was not sent yet
        (line,) = server.requests_to("/classify")
        assert (line["trace_id"], line["request_id"]) == (TRACE, "frame-1")
        assert all("trace_id" not in line for line in server.requests_to("/health/ready"))
    sent = exported(collector)
    assert attributes(sent[0].resource)["service.name"] == "cameras"
    spans = {
        span.name: span for group in sent for scope in group.scope_spans for span in scope.spans
    }
    stages = {
        *("decode_queue", "decode", "image_queue", "image_encode", "text_queue", "text_encode")
    }
    assert set(spans) == {"POST /classify", "POST /embed", "GET unrouted", *stages}
    request = spans["POST /classify"]
    assert request.kind == Span.SPAN_KIND_SERVER
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert {
        "http.request.method": "POST",
        "http.route": "/classify",
        "http.response.status_code": 200,
        "clip.request_id": "frame-1",
    }.items() <= attributes(request).items()
    for name in stages:
        stage = spans[name]
        assert stage.trace_id == request.trace_id
        assert stage.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= stage.start_time_unix_nano
        assert stage.start_time_unix_nano <= stage.end_time_unix_nano <= request.end_time_unix_nano
    refused = spans["POST /embed"]
    assert refused.trace_id.hex() != TRACE
    assert attributes(refused)["error.type"] == "invalid_base64"
    assert refused.status.code == Status.STATUS_CODE_UNSET  # the client's error, not ours


def test_a_collector_that_is_not_there_keeps_nobody_waiting(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": nobody}
    with running(SERVE, tmp_path / "log", CLIP_ENCODER="fake", **settings) as server:
        wait_for(server, "/health/ready")
        body = {"image": as_base64(photo("cat"))}
        assert httpx.post(server.url + "/embed", json=body, timeout=60).status_code == 200
        assert server.stop() == 0


def test_packages_that_are_not_installed_are_one_line_each(
    collector: Receiver, tmp_path: Path
) -> None:
    for package in ("opentelemetry", "pyroscope"):  # found before the real ones
        (tmp_path / f"{package}.py").write_text("raise ModuleNotFoundError('it is not here')\n")
    settings = {
        "PYTHONPATH": str(tmp_path),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "PYROSCOPE_URL": collector.url,
    }
    with running(SERVE, tmp_path / "log", CLIP_ENCODER="fake", **settings) as server:
        wait_for(server, "/health/ready")
        body = {"image": as_base64(photo("cat"))}
        assert httpx.post(server.url + "/embed", json=body, timeout=60).status_code == 200
        assert server.stop() == 0
        assert server.log.count("no traces: ") == 1
        assert server.log.count("no profiling") == 1
    assert collector.deliveries == []


def test_a_protocol_that_is_not_spoken_is_one_line(tmp_path: Path) -> None:
    settings = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with running(SERVE, tmp_path / "log", CLIP_ENCODER="fake", **settings) as server:
        wait_for(server, "/health/ready")
        assert server.log.count("OTLP over grpc is not supported") == 1
