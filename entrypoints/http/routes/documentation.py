"""OpenAPI, and an interactive page whose scripts come from this server: it works offline."""

from pathlib import Path
from typing import Any, Final

import litestar_offline_docs
from litestar import Request, Router
from litestar.datastructures import CacheControlHeader
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.static_files import create_static_files_router

from entrypoints.http.middleware.auth import KEY_HEADER, OPEN_TO_ALL

_PATH: Final = "/docs"
_ASSETS: Final = "/docs-assets"
_SCHEMA: Final = "/openapi.json"
_OWN_FILES: Final = Path(__file__).parent / "swagger"

_PAGE: Final = f"""<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>CLIP embedding server: its API</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="{_ASSETS}/swagger-ui.css">
    <script defer src="{_ASSETS}/swagger-ui-bundle.js"></script>
    <script defer src="{_ASSETS}/swagger-ui-standalone-preset.js"></script>
    <script defer src="{_ASSETS}/start.js"></script>
  </head>
  <body>
    <div id="swagger-container" data-schema="{_PATH}{_SCHEMA}"></div>
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


def openapi_config(version: str, *, keys: bool) -> OpenAPIConfig:
    """The interactive page at ``/docs`` and the schema at ``/docs/openapi.json``.

    Both are open to all: they are the same for every server of this version.

    Args:
        version: of this server.
        keys: whether requests need a key, which the page then asks for.
    """
    config = OpenAPIConfig(
        title="CLIP embedding server",
        version=version,
        description=(
            "Images and texts as CLIP embeddings, and the questions that camera software asks of "
            "them. Errors are RFC 9457 problem details with a stable `code`. Every answer carries "
            "`X-Request-ID` and `X-Model-Fingerprint`."
        ),
        use_handler_docstrings=True,
        openapi_router=Router(
            _PATH,
            route_handlers=[],
            include_in_schema=False,
            opt=OPEN_TO_ALL,
            response_headers={"Content-Security-Policy": _POLICY},
        ),
        render_plugins=[_SwaggerPage(), JsonRenderPlugin(path=_SCHEMA)],
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


def documentation_assets() -> Router:
    """Serves the interactive page's scripts and styles."""
    theirs = Path(litestar_offline_docs.__file__).parent / "static"
    return create_static_files_router(
        path=_ASSETS,
        directories=[_OWN_FILES, theirs],
        include_in_schema=False,
        opt=OPEN_TO_ALL,
        cache_control=CacheControlHeader(max_age=3600),
    )
