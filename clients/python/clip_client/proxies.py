"""Proxies that the environment names, for messages: httpx itself decides which one it uses."""

import urllib.request
from collections.abc import Callable
from typing import TypeVar

import httpx

from clip_client.errors import InvalidAddress

_Client = TypeVar("_Client")

_VARIABLES = "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY"


def made_with(url: str, make: Callable[[], _Client]) -> _Client:
    """An httpx client, or what is wrong with the address or the environment.

    Args:
        url: the server's.
        make: makes the client; it reads the environment.

    Raises:
        InvalidAddress: one of them cannot be used.
    """
    try:
        httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as invalid:
        raise InvalidAddress(
            f"{url!a} is not the address of a server, such as http://localhost:8093: {invalid}."
        ) from invalid
    try:
        return make()
    except ImportError as missing:
        raise InvalidAddress(
            f"the environment names a SOCKS proxy ({_names('socks')}), which needs one more "
            "package: pip install 'httpx[socks]'. If the server is reached without a proxy, unset "
            "the variable."
        ) from missing
    except (httpx.InvalidURL, ValueError) as invalid:
        raise InvalidAddress(
            f"a proxy variable of the environment ({_VARIABLES}) cannot be used: {_names('')}: "
            f"{invalid}. An IPv6 address in NO_PROXY is written without brackets: NO_PROXY=::1."
        ) from invalid


def proxy_for(url: str) -> str | None:
    """The proxy that requests to a URL pass, without its password; None if they go directly."""
    try:
        server = httpx.URL(url)
        proxies = urllib.request.getproxies_environment()
        if urllib.request.proxy_bypass(server.host):
            return None
        named = proxies.get(server.scheme) or proxies.get("all")
        if not named:
            return None
        proxy = httpx.URL(named if "://" in named else f"http://{named}")
        return str(proxy.copy_with(userinfo=b""))
    except (httpx.InvalidURL, ValueError):
        return None


def _names(scheme: str) -> str:
    """Proxy variables that are set, as ``ALL_PROXY=...``, of those that name such a proxy."""
    return ", ".join(
        f"{kind.upper()}_PROXY={_without_password(value)}"
        for kind, value in sorted(urllib.request.getproxies_environment().items())
        if scheme in value.lower()
    )


def _without_password(value: str) -> str:
    scheme, found, rest = value.rpartition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"
