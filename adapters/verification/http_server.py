"""Asks a running server of the contract over HTTP."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final

from application.use_cases.verify import EmbeddingServerPort, ServerFailure

_TIMEOUT_S: Final = 60.0
_LARGEST_RESPONSE: Final = 4 * 1024 * 1024
_SHOWN: Final = 200
"""Characters of an unexpected response that are shown."""


class HttpEmbeddingServer(EmbeddingServerPort):
    """``POST /embed`` and ``POST /batch-similarity`` as JSON."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        """Name a server.

        Args:
            url: its address, such as ``http://localhost:8093``.
            key: what it asks for, as a bearer token.

        Raises:
            ServerFailure: the address is not one of HTTP.
        """
        if not url.startswith(("http://", "https://")):
            raise ServerFailure(f"{url!r} is no address such as http://localhost:8093.")
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def embed(self, image: bytes) -> Sequence[float]:
        """See `EmbeddingServerPort.embed`."""
        numbers = self._ask("/embed", "embedding", image=_as_base64(image))
        if not isinstance(numbers, list) or not all(_is_number(each) for each in numbers):
            raise ServerFailure("/embed responds with an embedding that is not a list of numbers.")
        return [float(each) for each in numbers]

    def cosines(self, image: bytes, texts: Sequence[str]) -> Mapping[str, float]:
        """See `EmbeddingServerPort.cosines`."""
        found = self._ask(
            "/batch-similarity", "similarities", image=_as_base64(image), texts=list(texts)
        )
        if not isinstance(found, dict) or not all(_is_number(each) for each in found.values()):
            raise ServerFailure("/batch-similarity responds with no cosine for each text.")
        return {text: float(cosine) for text, cosine in found.items()}

    def _ask(self, path: str, field: str, **body: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._url + path, json.dumps(body).encode(), self._headers
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
                content = response.read(_LARGEST_RESPONSE)
        except urllib.error.HTTPError as refused:
            said = refused.read(_SHOWN).decode("utf-8", "replace")
            raise ServerFailure(f"{path} responds with status {refused.code}: {said}") from None
        except (OSError, ValueError) as failure:
            raise ServerFailure(f"{self._url} cannot be asked: {failure}") from failure
        try:
            return json.loads(content)[field]
        except (ValueError, KeyError, TypeError):
            said = content[:_SHOWN].decode("utf-8", "replace")
            raise ServerFailure(f"{path} responds without {field!r}: {said}") from None


def _as_base64(image: bytes) -> str:
    return base64.b64encode(image).decode("ascii")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
