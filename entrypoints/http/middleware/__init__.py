"""What every request passes on its way to an endpoint; `app.py` has the order."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # the settings are read, and refused, before the framework is loaded
    from litestar.types import HTTPScope, Receive, Send

HttpApp: TypeAlias = "Callable[[HTTPScope, Receive, Send], Awaitable[None]]"
"""An ASGI application, or a middleware around one, that is given HTTP requests only."""
