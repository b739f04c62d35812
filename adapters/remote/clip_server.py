"""Asks a running server of the contract over HTTP."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

from application.ports import ServerFailure

_TIMEOUT_S: Final = 60.0
_LARGEST_RESPONSE: Final = 4 * 1024 * 1024
_SHOWN: Final = 200
"""Characters of an unexpected response that are shown."""


class ClipServer:
    """A server's calls that take and return JSON. They block."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        """Name a server.

        Args:
            url: its address, such as ``http://localhost:8093``.
            key: what it asks for, as a bearer token.

        Raises:
            ServerFailure: the address is not one of HTTP.
        """
        if not url.startswith(("http://", "https://")):
            raise ServerFailure(f"{url!r} is not a URL such as http://localhost:8093.")
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, path: str, **body: Any) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The response to a request, and its headers.

        Args:
            path: of the endpoint.
            body: fields; bytes are sent as base64.

        Raises:
            ServerFailure: it cannot be reached, refuses, or does not respond with a JSON object.
        """
        fields = {
            name: base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
            for name, value in body.items()
        }
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._url + path, json.dumps(fields).encode(), self._headers
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
                content = response.read(_LARGEST_RESPONSE)
                headers = dict(response.headers)
        except urllib.error.HTTPError as refused:
            with refused:
                said = refused.read(_SHOWN).decode("utf-8", "replace")
            raise ServerFailure(
                f"{path} responds with status {refused.code}: {said}", status=refused.code
            ) from None
        except (OSError, ValueError) as failure:
            raise ServerFailure(f"{self._url} cannot be reached: {failure}") from failure
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            said = content[:_SHOWN].decode("utf-8", "replace")
            raise ServerFailure(f"{path} did not respond with a JSON object: {said}")
        return found, headers

    def embedding(self, image: bytes) -> tuple[list[float], str | None]:
        """The embedding of an image file, and the fingerprint of the model that made it.

        Raises:
            ServerFailure: see `ask`.
        """
        found, headers = self.ask("/embed", image=image)
        numbers = found.get("embedding")
        if not isinstance(numbers, list) or not all(_is_number(each) for each in numbers):
            raise ServerFailure("/embed responds with an embedding that is not a list of numbers.")
        fingerprint = next(
            (value for name, value in headers.items() if name.lower() == "x-model-fingerprint"),
            None,
        )
        return [float(each) for each in numbers], fingerprint

    def numbers_of_texts(self, path: str, field: str, **body: Any) -> dict[str, float]:
        """A response's field that has a number for each text.

        Raises:
            ServerFailure: see `ask`.
        """
        found = self.ask(path, **body)[0].get(field)
        if not isinstance(found, dict) or not all(_is_number(each) for each in found.values()):
            raise ServerFailure(
                f"{path} responds without {field!r} that has a number for each text."
            )
        return {text: float(number) for text, number in found.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
