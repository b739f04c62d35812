"""The Python client's rules for retries and errors, without a server and without waiting."""

import email.utils
import json
import time
from typing import Any

import httpx
import pytest
from clip_client import (
    ConnectionFailed,
    FingerprintMismatch,
    InvalidRequest,
    Refused,
    Retries,
    ServerFault,
    TimedOut,
    Unavailable,
    UnexpectedResponse,
)
from clip_client.calls import health, similarity
from clip_client.clients import DEFAULT_RETRIES
from clip_client.exchange import Call, Exchange, Outcome, read_as

REQUEST = httpx.Request("POST", "http://server:8093/similarity")
ANSWER: dict[str, Any] = {"similarity": 0.25, "inference_time_ms": 1.0}


def response(status: int, body: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, content=content, headers=named, request=REQUEST)


def busy(**headers: str) -> httpx.Response:
    body = {"detail": "too busy.", "code": "queue_full", "request_id": "r1"}
    return response(503, body, **headers)


def failed(kind: type[httpx.TransportError]) -> httpx.TransportError:
    return kind("gone", request=REQUEST)


def exchange(
    *outcomes: Outcome, retries: Retries = DEFAULT_RETRIES
) -> "tuple[Exchange[float], list[float]]":
    """The exchange after these outcomes, and the pause before each attempt."""
    under_way = Exchange(similarity(b"image", "text"), retries)
    pauses = []
    for outcome in outcomes:
        assert under_way.pause_s is not None
        pauses.append(under_way.pause_s)
        under_way.record(outcome)
    return under_way, pauses


def test_an_answer_ends_it() -> None:
    done, pauses = exchange(response(200, ANSWER))
    assert (pauses, done.pause_s, done.result()) == ([0.0], None, 0.25)


def test_nothing_is_answered_before_it_is_sent() -> None:
    with pytest.raises(RuntimeError, match="nothing was sent"):
        exchange()[0].result()


def test_503_is_sent_again_after_what_it_asks_for() -> None:
    done, pauses = exchange(busy(retry_after="3"), busy(retry_after="1"), response(200, ANSWER))
    assert done.result() == 0.25
    assert pauses[0] == 0.0
    assert 3.0 <= pauses[1] <= 3.75
    assert 1.0 <= pauses[2] <= 1.25


def test_retry_after_may_be_a_date() -> None:
    date = email.utils.formatdate(time.time() + 5, usegmt=True)
    waiting, _ = exchange(busy(retry_after=date))
    assert waiting.pause_s is not None
    assert 3.5 < waiting.pause_s < 6.5
    waiting, _ = exchange(busy(retry_after=email.utils.formatdate(0, usegmt=True)))
    assert waiting.pause_s == 0.0


@pytest.mark.parametrize("headers", [{}, {"retry_after": "soon"}, {"retry_after": "-1"}])
def test_without_a_retry_after_pauses_double(headers: dict[str, str]) -> None:
    refusal = busy(**headers)
    _, pauses = exchange(*[refusal] * 5)
    for pause, expected in zip(pauses[1:], (0.5, 1.0, 2.0, 4.0), strict=True):
        assert expected <= pause <= expected * 1.25


def test_retries_are_bounded_in_number() -> None:
    done, pauses = exchange(*[busy(retry_after="0")] * 3, retries=Retries(times=2))
    assert len(pauses) == 3
    assert done.pause_s is None
    with pytest.raises(Unavailable) as caught:
        done.result()
    assert caught.value.retry_after_s == 0.0
    assert exchange(busy(), retries=Retries(times=0))[0].pause_s is None


def test_retries_are_bounded_in_time() -> None:
    assert exchange(busy(retry_after="21"))[0].pause_s is None
    done, pauses = exchange(busy(retry_after="15"), busy(retry_after="15"))
    assert (len(pauses), done.pause_s) == (2, None)


@pytest.mark.parametrize("kind", [httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError])
def test_a_connection_that_broke_off_is_tried_again(kind: type[httpx.TransportError]) -> None:
    done, pauses = exchange(failed(kind), response(200, ANSWER))
    assert done.result() == 0.25
    assert pauses[1] > 0


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (httpx.ConnectError, ConnectionFailed),
        (httpx.ReadTimeout, TimedOut),
        (httpx.ConnectTimeout, TimedOut),
    ],
)
def test_an_unreachable_server_is_told_at_once(
    kind: type[httpx.TransportError], error: type[ConnectionFailed]
) -> None:
    done, _ = exchange(failed(kind))
    assert done.pause_s is None
    with pytest.raises(error, match="http://server:8093/similarity: gone") as caught:
        done.result()
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (413, InvalidRequest),
        (415, InvalidRequest),
        (422, InvalidRequest),
        (500, ServerFault),
        (503, Unavailable),
    ],
)
def test_problem_details_become_errors(status: int, kind: type[Refused]) -> None:
    body = {"detail": "101 labels.", "code": "too_many_labels", "request_id": "abc", "more": 1}
    done, _ = exchange(response(status, body), retries=Retries(times=0))
    with pytest.raises(kind) as caught:
        done.result()
    error = caught.value
    assert (error.status, error.code) == (status, "too_many_labels")
    assert (error.detail, error.request_id) == ("101 labels.", "abc")
    assert str(error) == f"101 labels. ({status} too_many_labels, request abc)"


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff", {"detail": "Not Found"}, [1]])
def test_errors_that_are_not_the_servers(body: Any) -> None:
    done, _ = exchange(response(404, body))
    with pytest.raises(UnexpectedResponse, match="404"):
        done.result()


def test_a_proxy_without_a_server_is_unavailable() -> None:
    done, _ = exchange(response(503, b"<html>"), retries=Retries(times=0))
    with pytest.raises(Unavailable, match="no server") as caught:
        done.result()
    assert (caught.value.code, caught.value.request_id) == ("service_unavailable", None)


@pytest.mark.parametrize("body", [b"<html>", b"", {"similarity": "high"}, {}, [0.25]])
def test_answers_that_are_not_the_servers(body: Any) -> None:
    done, _ = exchange(response(200, body))
    with pytest.raises(UnexpectedResponse, match="not this server's"):
        done.result()


def test_redirects_are_not_followed_silently() -> None:
    with pytest.raises(UnexpectedResponse, match="302"):
        exchange(response(302, b"", location="/login"))[0].result()


@pytest.mark.parametrize(("sent", "answered", "fits"), [("a", "a", True), ("a", "b", False)])
def test_embeddings_of_another_checkpoint_are_noticed(sent: str, answered: str, fits: bool) -> None:
    call = Call("POST", "/compare", read_as(dict[str, float]), b"{}", fingerprint=sent)
    under_way = Exchange(call, Retries())
    under_way.record(response(200, {"similarity": 1.0}, x_model_fingerprint=answered))
    if fits:
        assert under_way.result() == {"similarity": 1.0}
    else:
        with pytest.raises(FingerprintMismatch, match="checkpoint a, but the server has b"):
            under_way.result()


def test_a_call_without_a_body_declares_none() -> None:
    assert Exchange(health(), Retries()).request["headers"] == {}
    sent = Exchange(similarity(b"image", "text"), Retries()).request
    assert sent["headers"] == {"Content-Type": "application/json"}
    assert json.loads(sent["content"]) == {"image": "aW1hZ2U=", "text": "text"}
