"""OpenAPI, and an interactive page whose scripts come from this server: it works offline."""

from pathlib import Path
from typing import Final

import litestar_offline_docs
from litestar import Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.static_files import create_static_files_router

_ASSETS: Final = "/docs-assets"


def openapi_config(version: str) -> OpenAPIConfig:
    """The interactive page at ``/docs`` and the schema at ``/docs/openapi.json``."""
    return OpenAPIConfig(
        title="CLIP embedding server",
        version=version,
        description=(
            "Images and texts as CLIP embeddings, and the questions that camera software asks of "
            "them. Errors are RFC 9457 problem details with a stable `code`. Every answer carries "
            "`X-Request-ID` and `X-Model-Fingerprint`."
        ),
        path="/docs",
        use_handler_docstrings=True,
        render_plugins=[
            SwaggerRenderPlugin(
                path="/",
                js_url=f"{_ASSETS}/swagger-ui-bundle.js",
                css_url=f"{_ASSETS}/swagger-ui.css",
                standalone_preset_js_url=f"{_ASSETS}/swagger-ui-standalone-preset.js",
                favicon="<link rel='icon' href='data:,'>",
            ),
            JsonRenderPlugin(path="/openapi.json"),
        ],
    )


def documentation_assets() -> Router:
    """Serves the interactive page's scripts and styles."""
    directory = Path(litestar_offline_docs.__file__).parent / "static"
    return create_static_files_router(
        path=_ASSETS, directories=[directory], include_in_schema=False
    )
