"""The files for TLS, checked before the server starts."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class UnusableTls(Exception):
    """A TLS file is not usable.

    Attributes:
        part: the attribute of `Tls` that is wrong.
        reason: what is wrong with it; nothing secret.
    """

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(reason)
        self.part = part
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate, and the authorities for client certificates.

    Attributes:
        certificate: PEM, the chain from the server's own certificate on.
        key: PEM; None if the certificate's file contains it.
        key_password: of the key, if it is encrypted.
        client_ca: PEM; clients must then show a certificate that one of these has signed.
    """

    certificate: Path
    key: Path | None
    key_password: str | None = field(repr=False)
    client_ca: Path | None

    def check(self) -> None:
        """Load all of it once.

        Raises:
            UnusableTls: something is missing, damaged or does not fit.
        """
        self._check_certificates("certificate", self.certificate)
        if self.client_ca is not None:
            self._check_certificates("client_ca", self.client_ca)
        part = "certificate" if self.key is None else "key"
        try:
            # Always pass a password: otherwise OpenSSL would ask for one on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                self.certificate, self.key, lambda: self.key_password or ""
            )
        except ssl.SSLError as unusable:
            if unusable.reason == "KEY_VALUES_MISMATCH":
                raise UnusableTls(part, "it holds the key of another certificate") from None
            raise UnusableTls(
                part,
                "it holds no private key as PEM that can be read"
                + (" with this CLIP_TLS_KEY_PASSWORD" if self.key_password else " as it is"),
            ) from None
        except (OSError, ValueError) as unusable:
            raise UnusableTls(part, f"its key cannot be read ({unusable})") from None

    @staticmethod
    def _check_certificates(part: str, path: Path) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
        except ssl.SSLError:
            raise UnusableTls(part, "it holds no certificate as PEM") from None
        except OSError as unreadable:
            raise UnusableTls(
                part, f"it cannot be read ({unreadable.strerror or unreadable})"
            ) from None

    def trust(self) -> ssl.SSLContext:
        """For a client on this machine that checks whether this very server is running."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = False  # the client uses the address
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust the certificate itself
        return context

    def for_uvicorn(self) -> dict[str, Any]:
        """The same as arguments of `uvicorn.Config`."""
        options: dict[str, Any] = {
            "ssl_certfile": self.certificate,
            "ssl_keyfile": self.key,
            "ssl_keyfile_password": self.key_password,
        }
        if self.client_ca is not None:
            options["ssl_ca_certs"] = self.client_ca
            options["ssl_cert_reqs"] = ssl.CERT_REQUIRED
        return options
