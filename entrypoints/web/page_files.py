"""The page at ``/``: the files of one folder, without a build step."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from litestar import MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from domain.limits import MAX_IMAGE_BYTES, MAX_JPEG_PIXELS
from entrypoints.http.middleware.auth import OPEN_TO_ALL

_FOLDER: Final = Path(__file__).parent / "page"

_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}

_LINKS_TO_DOCS: Final = {
    b'<a href="docs">API</a>': b"",
    b'see <a href="docs">the API</a>': b"see its README",
}
"""Replacements in the page if ``/docs`` is switched off."""

_SECURITY: Final = {
    # Scripts and styles only from this server's files, none inline; requests only to this server.
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            "media-src blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


@dataclass(frozen=True, slots=True)
class _File:
    """One file of the page, read when the server starts.

    Attributes:
        content: its bytes.
        headers: media type, ETag and others.
    """

    content: bytes
    headers: dict[str, str]

    @classmethod
    def read(cls, path: Path, replaced: Mapping[bytes, bytes]) -> "_File":
        content = path.read_bytes()
        for text, instead in replaced.items():
            content = content.replace(text, instead)
        headers = {
            "Content-Type": _MEDIA_TYPES[path.suffix],
            "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            # Cached but revalidated each time, so that an old script never runs in a new page.
            "Cache-Control": "no-cache",
            **_SECURITY,
        }
        return cls(content, headers)


def page_routes(*, docs: bool, max_pixels: int) -> Sequence[HTTPRouteHandler]:
    """The page at ``/`` and its files below ``/page/``.

    Args:
        docs: whether to link to ``/docs``.
        max_pixels: of an image that the server decodes; the page scales larger ones down.
    """
    replaced = {
        b'data-max-image-bytes=""': b'data-max-image-bytes="%d"' % MAX_IMAGE_BYTES,
        b'data-max-pixels=""': b'data-max-pixels="%d"' % max_pixels,
        b'data-max-jpeg-pixels=""': b'data-max-jpeg-pixels="%d"' % MAX_JPEG_PIXELS,
        **({} if docs else _LINKS_TO_DOCS),
    }
    files = {
        path.relative_to(_FOLDER).as_posix(): _File.read(path, replaced)
        for path in sorted(_FOLDER.rglob("*"))
        if path.suffix in _MEDIA_TYPES
    }

    # Open to all, since the page itself asks for a key.
    @get("/", include_in_schema=False, sync_to_thread=False, opt=OPEN_TO_ALL)
    def page(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The page itself."""
        return _served(request, files["index.html"])

    @get("/page/{name:path}", include_in_schema=False, sync_to_thread=False, opt=OPEN_TO_ALL)
    def page_file(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        """A style sheet, script or picture of the page."""
        found = files.get(name.lstrip("/"))
        if found is None or name == "/index.html":
            raise NotFoundException
        return _served(request, found)

    return (page, page_file)


def _served(request: Request[Any, Any, Any], file: _File) -> Response[bytes]:
    """The file, or 304 for a browser that has it already (RFC 9110, section 13.1.2)."""
    held = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/") for tag in held.split(",")}
    if file.headers["ETag"] in tags or held.strip() == "*":
        return Response(b"", status_code=304, headers=file.headers, media_type=MediaType.TEXT)
    return Response(file.content, headers=file.headers)
