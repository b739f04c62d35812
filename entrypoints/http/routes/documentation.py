"""OpenAPI, and an interactive page whose scripts come from this server, so it works offline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import litestar_offline_docs
import msgspec
from litestar import MediaType, Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath

from entrypoints.http.middleware.auth import KEY_HEADER, OPEN_TO_ALL

_PATH: Final = "/docs"
_ASSETS: Final = "/docs-assets"
_SCHEMA: Final = "/openapi.json"
_OWN_FILES: Final = Path(__file__).parent / "swagger"
_THEIR_FILES: Final = Path(litestar_offline_docs.__file__).parent / "static"
_ASSET_FILES: Final = {
    "start.js": (_OWN_FILES, "text/javascript; charset=utf-8"),
    "contrast.css": (_OWN_FILES, "text/css; charset=utf-8"),
    "swagger-ui.css": (_THEIR_FILES, "text/css; charset=utf-8"),
    "swagger-ui-bundle.js": (_THEIR_FILES, "text/javascript; charset=utf-8"),
    "swagger-ui-standalone-preset.js": (_THEIR_FILES, "text/javascript; charset=utf-8"),
}
"""The page's files: their place and media type."""

_PAGE: Final = f"""<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>CLIP embedding server: its API</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="{_ASSETS}/swagger-ui.css">
    <link rel="stylesheet" href="{_ASSETS}/contrast.css">
    <script defer src="{_ASSETS}/swagger-ui-bundle.js"></script>
    <script defer src="{_ASSETS}/swagger-ui-standalone-preset.js"></script>
    <script defer src="{_ASSETS}/start.js"></script>
  </head>
  <body>
    <main>
      <h1 class="page-title">CLIP embedding server: its API</h1>
      <div id="swagger-container" data-schema="{_PATH}{_SCHEMA}"></div>
    </main>
  </body>
</html>
"""

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI writes styles into its elements
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


class _SwaggerPage(OpenAPIRenderPlugin):
    """Swagger UI without Litestar's inline script, which the page's policy would not run."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page; it fetches the schema itself."""
        return _PAGE.encode()


class _SchemaFile(JsonRenderPlugin):
    """The schema as JSON. Encoded only once, since it blocks the event loop for milliseconds."""

    def __init__(self) -> None:
        super().__init__(path=_SCHEMA)
        self._encoded = b""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The bytes; an application's schema never changes."""
        self._encoded = self._encoded or super().render(request, openapi_schema)
        return self._encoded


def openapi_config(version: str, *, keys: bool) -> OpenAPIConfig:
    """The interactive page at ``/docs`` and the schema at ``/docs/openapi.json``.

    Both are open to all: they are the same for every server of this version.

    Args:
        version: of this server.
        keys: whether requests need a key; then the page asks for one.
    """
    config = OpenAPIConfig(
        title="CLIP embedding server",
        version=version,
        description=(
            "CLIP embeddings of images and texts, and what camera software does with them: "
            "re-identification, anomaly scores, classification, similarity. Errors are RFC 9457 "
            "problem details with a stable `code`. Every response has `X-Request-ID` and "
            "`X-Model-Fingerprint`; `X-Unknown-Field` names a field of the request that has no "
            "meaning."
        ),
        use_handler_docstrings=True,
        openapi_router=Router(
            _PATH,
            route_handlers=[],
            include_in_schema=False,
            opt=OPEN_TO_ALL,
            response_headers={"Content-Security-Policy": _POLICY},
        ),
        render_plugins=[_SwaggerPage(), _SchemaFile()],
    )
    if keys:
        config.components = Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer"),
                "header": SecurityScheme(
                    type="apiKey", name=KEY_HEADER, security_scheme_in="header"
                ),
            }
        )
        config.security = [{"bearer": []}, {"header": []}]
    return config


def documentation_routes() -> Sequence[HTTPRouteHandler]:
    """The interactive page's scripts and styles, and the schema at its usual path."""
    # A fixed list, read once: a name from a client never reaches the file system.
    files = {
        name: ((folder / name).read_bytes(), media_type)
        for name, (folder, media_type) in _ASSET_FILES.items()
    }

    @get(f"{_ASSETS}/{{name:path}}", include_in_schema=False, sync_to_thread=False, opt=OPEN_TO_ALL)
    def asset(name: FromPath[str]) -> Response[bytes]:
        """One file of the interactive page."""
        if (found := files.get(name.removeprefix("/"))) is None:
            raise NotFoundException
        content, media_type = found
        return Response(
            content, headers={"Content-Type": media_type, "Cache-Control": "max-age=3600"}
        )

    schema = b""

    @get(_SCHEMA, include_in_schema=False, sync_to_thread=False, opt=OPEN_TO_ALL)
    def schema_at_the_root(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The same schema, at FastAPI's path."""
        nonlocal schema
        schema = schema or msgspec.json.encode(request.app.openapi_schema.to_schema())
        return Response(schema, media_type=MediaType.JSON)

    return (asset, schema_at_the_root)
