"""An error, as every path but OpenAI's answers it."""

from typing import Annotated

from msgspec import Struct

from entrypoints.http.schemas.fields import documented


class Problem(Struct):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: Annotated[str, documented("For people: names the value and the limit it broke.")]
    code: Annotated[str, documented("For programs: stable.")]
    request_id: Annotated[str, documented("Finds the request in the server's log.")]
