"""The middleware that every request passes through; `app.py` has the order."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # the settings are checked before the framework loads
    from litestar.types import HTTPScope, Receive, Send

HttpApp: TypeAlias = "Callable[[HTTPScope, Receive, Send], Awaitable[None]]"
"""An ASGI application, or a middleware around one, that is given HTTP requests only."""
