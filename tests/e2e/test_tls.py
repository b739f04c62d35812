"""The real server over real TLS, client certificates included, and what stops its start."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from checks.image.dockerfile import decode_list, read_stages
from tests.support.certificates import Authority, Certified
from tests.support.servers import SERVE, Server, launched, wait_for

PASSWORD = "s3cr3t of the key"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def trusting(authority: Authority, shown: Certified | None = None) -> ssl.SSLContext:
    """A client's context that trusts the authority and no other."""
    context = ssl.create_default_context(cafile=authority.certificate)
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


def over_tls(server: Server) -> Server:
    return Server(server.process, server.url.replace("http:", "https:"), server.log_file)


def test_https_with_an_encrypted_key(authority: Authority, tmp_path: Path) -> None:
    made = authority.sign("server", password=PASSWORD)
    with launched(
        SERVE,
        tmp_path / "log",
        CLIP_ENCODER="fake",
        CLIP_TLS_CERTIFICATE=str(made.certificate),
        CLIP_TLS_KEY=str(made.key),
        CLIP_TLS_KEY_PASSWORD=PASSWORD,
    ) as server:
        secured, context = over_tls(server), trusting(authority)
        wait_for(secured, "/health/ready", verify=context)
        response = httpx.get(f"{secured.url}/health", verify=context)
        assert response.json()["status"] == "healthy"
        assert response.headers["Strict-Transport-Security"] == "max-age=86400"
        assert "server" not in response.headers
        # Who does not know the authority is not fooled, and what is not TLS gets nothing.
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{secured.url}/health")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url}/health")
        old = trusting(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert httpx.get(f"{secured.url}/health/live", verify=old).status_code == 200
        # The container's health check needs neither key nor authority.
        health = decode_list(read_stages()["cpu"].last("HEALTHCHECK").value.removeprefix("CMD"))
        port = server.url.rpartition(":")[2]
        for tls, status in ({"CLIP_TLS_CERTIFICATE": str(made.certificate)}, 0), ({}, 1):
            check = subprocess.run(
                [sys.executable, *health[1:]],
                env={**os.environ, "PORT": port, **tls},
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert check.returncode == status, check.stderr
        assert server.stop() == 0
        assert PASSWORD not in server.log


def test_clients_must_show_a_certificate(authority: Authority, tmp_path: Path) -> None:
    made, camera = authority.sign("server-for-cameras"), authority.sign("camera")
    (tmp_path / "elsewhere").mkdir()
    stranger = Authority(tmp_path / "elsewhere", "elsewhere").sign("stranger")
    with launched(
        SERVE,
        tmp_path / "log",
        CLIP_ENCODER="fake",
        CLIP_TLS_CERTIFICATE=str(made.certificate),
        CLIP_TLS_KEY=str(made.key),
        CLIP_TLS_CLIENT_CA=str(authority.certificate),
    ) as server:
        secured = over_tls(server)
        context = trusting(authority, camera)
        wait_for(secured, "/health/ready", verify=context)
        for unknown in (
            trusting(authority),
            trusting(authority, stranger),
        ):
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{secured.url}/health/live", verify=unknown)
        assert httpx.get(f"{secured.url}/health/live", verify=context).status_code == 200
        assert server.stop() == 0
        assert "Traceback" not in server.log


def refusal(**variables: str | Path) -> str:
    """The one line that a start ends with, and exit status 2."""
    run = subprocess.run(
        SERVE,
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert PASSWORD not in run.stderr
    return run.stderr


def test_files_that_do_not_do_stop_the_start(authority: Authority, tmp_path: Path) -> None:
    made, other = authority.sign("one"), authority.sign("other")
    locked = authority.sign("locked", password=PASSWORD)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("not a certificate")
    certificate = {"CLIP_TLS_CERTIFICATE": made.certificate}
    assert "there is no such file" in refusal(CLIP_TLS_CERTIFICATE=tmp_path / "nothing.pem")
    assert "there is no such file" in refusal(**certificate, CLIP_TLS_KEY=tmp_path)
    assert "CLIP_TLS_CERTIFICATE is not" in refusal(CLIP_TLS_KEY=made.key)
    assert "no certificate as PEM" in refusal(CLIP_TLS_CERTIFICATE=nonsense)
    assert "CLIP_TLS_CERTIFICATE=" in refusal(**certificate)  # which holds no key
    line = refusal(**certificate, CLIP_TLS_KEY=other.key)
    assert line.startswith(f"CLIP_TLS_KEY='{other.key}' is not allowed")
    assert "the key of another certificate" in line
    assert "no private key" in refusal(**certificate, CLIP_TLS_KEY=nonsense)
    line = refusal(**certificate, CLIP_TLS_KEY=made.key, CLIP_TLS_CLIENT_CA=nonsense)
    assert line.startswith("CLIP_TLS_CLIENT_CA=")
    for password in ({}, {"CLIP_TLS_KEY_PASSWORD": f"not {PASSWORD}"}):
        line = refusal(CLIP_TLS_CERTIFICATE=locked.certificate, CLIP_TLS_KEY=locked.key, **password)
        assert line.startswith("CLIP_TLS_KEY=")


def test_a_bad_api_key_stops_the_start_unseen() -> None:
    line = refusal(CLIP_API_KEYS=f"0123456789abcdef,{PASSWORD}")
    assert line.startswith("CLIP_API_KEYS is not allowed: key number 2 of the list")


def test_both_keys_in_one_file_will_do(authority: Authority, tmp_path: Path) -> None:
    made = authority.sign("in-one-file")
    both = tmp_path / "both.pem"
    both.write_bytes(made.key.read_bytes() + made.certificate.read_bytes())
    variables = {"CLIP_ENCODER": "fake", "CLIP_TLS_CERTIFICATE": str(both)}
    with launched(SERVE, tmp_path / "log", **variables) as server:
        wait_for(over_tls(server), "/health/ready", verify=trusting(authority))
        # doctor asks over TLS too, and trusts the certificate itself.
        port = server.url.rpartition(":")[2]
        run = subprocess.run(
            [*SERVE[:-1], "doctor"],
            env={**os.environ, **variables, "HOST": "127.0.0.1", "PORT": port},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert run.returncode == 1, run.stdout + run.stderr
        assert "is taken by another clip-server, with model fake" in run.stdout
        assert server.stop() == 0
