"""What people give the Python client in place of a file, an address or a proxy."""

import base64
import os
import socket
from pathlib import Path

import pytest
from clip_client import (
    AsyncClipClient,
    ClipClient,
    ClipError,
    ConnectionFailed,
    InvalidAddress,
    InvalidInput,
)
from clip_client.calls import classify, embed
from clip_client.proxies import proxy_for

JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(6000)).decode()
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("https://cameras.example/porch.jpg", "is an address, and the client reads files only"),
        ("HTTP://cameras.example/porch.jpg", "is an address"),
        ("rtsp://camera/stream", "is an address"),
        (f"data:image/jpeg;base64,{JPEG}", "is a data URI; pass the bytes"),
        (JPEG, "is base64, not a path; pass the bytes: base64.b64decode"),
        (JPEG[:80], "is base64, not a path"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(9000)).decode(), "is base64, not a path"),
        ("photo\0.jpg", r"'photo\\x00.jpg' cannot be a path"),
        ("photo\ud800.jpg", r"'photo\\ud800.jpg' cannot be a path"),
    ],
)
def test_what_is_no_path_is_an_error_that_says_what_it_is(path: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        embed(path)
    assert len(str(caught.value)) < 250


def test_a_path_that_leads_nowhere_stays_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        embed(tmp_path / "missing.jpg")
    with pytest.raises(OSError, match="too long"):
        embed("x" * 5000)
    named = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    named.write_bytes(b"bytes")
    assert embed(named).body == b'{"image":"Ynl0ZXM="}'


def test_text_with_half_a_character_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"'caf\\udce9' holds half a character .* position 3"):
        classify(b"image", ["a cat", "caf\udce9"])


@pytest.mark.parametrize("url", ["http://[::1", "http://localhost:port", "http://a\nb"])
def test_a_url_that_is_none_is_named(url: str) -> None:
    for kind in (ClipClient, AsyncClipClient):
        with pytest.raises(InvalidAddress, match="is not the address of a server"):
            kind(url)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ALL_PROXY", "socks5://me:secret@proxy:1080", "ALL_PROXY=socks5://proxy:1080"),
        ("HTTP_PROXY", "socks4://proxy:1080", "HTTP_PROXY=socks4://proxy:1080"),
        ("HTTP_PROXY", "ftp://proxy:21", "HTTP_PROXY=ftp://proxy:21"),
        ("NO_PROXY", "[::1]", "NO_PROXY=::1"),
    ],
)
def test_a_proxy_variable_that_cannot_be_used_is_named(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    for kind in (ClipClient, AsyncClipClient):
        with pytest.raises(ClipError) as caught:
            kind()
        assert isinstance(caught.value, InvalidAddress)
        assert told in str(caught.value)
        assert "secret" not in str(caught.value)


def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_proxy_that_does_not_answer_is_blamed_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = f"http://me:secret@127.0.0.1:{unused_port()}"
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with (
        ClipClient("http://clip.example:8093") as client,
        pytest.raises(ConnectionFailed) as caught,
    ):
        client.health()
    said = str(caught.value)
    assert said.startswith("no response from http://clip.example:8093/health: ")
    assert f"the proxy {proxy.replace('me:secret@', '')}" in said
    assert said.endswith("set NO_PROXY=clip.example.")


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"http_proxy": "proxy:3128"}, "http://proxy:3128"),
        ({"ALL_PROXY": "http://u:p@proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "localhost"}, None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "example.com"}, "http://proxy:3128"),
    ],
)
def test_the_proxy_of_an_address(
    variables: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for("http://localhost:8093") == proxy
