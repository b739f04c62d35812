"""Stops working for clients that have hung up, and answers those whom a shutdown cut off."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from litestar import Request
from litestar.exceptions import ClientException

from domain.errors import Draining

_Result = TypeVar("_Result")


class ClientGone(ClientException):
    """The client closed the connection before it was answered; nobody reads this."""

    status_code = 499


async def unless_gone(
    request: Request[Any, Any, Any], work: Coroutine[Any, Any, _Result]
) -> _Result:
    """Await ``work``, but cancel it as soon as the client hangs up.

    Args:
        request: whose body has been read to its end.
        work: what is done for it.

    Raises:
        ClientGone: the client hung up first.
        Draining: the server ends, and the grace for accepted requests is over.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone("the client hung up")
    except asyncio.CancelledError:  # by the server, which waits no longer
        raise Draining(
            "the server shut down before it could finish this request.", code="not_finished"
        ) from None
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
