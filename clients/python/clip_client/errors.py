"""All errors of the client, as one tree.

::

    ClipError
    ├── InvalidInput              an argument is not an image, a text or an embedding
    ├── InvalidAddress            the server's address or a proxy variable cannot be used
    ├── FingerprintMismatch       embeddings of two different checkpoints were compared
    ├── ConnectionFailed          no response came
    │   └── TimedOut
    ├── UnexpectedResponse        the response is not what the server's contract says
    └── Refused                   the server sent an error; has status, code, detail, request id
        ├── Unauthorized          401: the server wants an api_key, or another one
        ├── InvalidRequest        400, 403, 413, 415, 422: it will not help to send it again
        ├── Unavailable           503: starting, too busy or without a model; may succeed later
        └── ServerFault           500: the server's log has the reason under the request id
"""


class ClipError(Exception):
    """Root of the tree."""


class InvalidInput(ClipError, ValueError):
    """An argument cannot be an image, a text or an embedding; nothing was sent."""


class InvalidAddress(ClipError, ValueError):
    """The server's address, or a proxy that the environment names, cannot be used."""


class FingerprintMismatch(ClipError):
    """Embeddings of different checkpoints were compared; such a comparison has no meaning."""


class ConnectionFailed(ClipError):
    """The server was not reached, or closed the connection without a response."""


class TimedOut(ConnectionFailed):
    """The server did not respond within the time-out."""


class UnexpectedResponse(ClipError):
    """The response is not what the server's contract says; perhaps another program is there."""


class Refused(ClipError):
    """The server responded with an error (RFC 9457 problem details).

    Attributes:
        status: the HTTP status.
        code: stable identifier for programs, such as ``too_many_labels``.
        detail: for people; names the value and the limit it broke.
        request_id: finds the request in the server's log; None if the response had none.
    """

    def __init__(self, status: int, code: str, detail: str, request_id: str | None = None) -> None:
        where = "" if request_id is None else f", request {request_id}"
        super().__init__(f"{detail} ({status} {code}{where})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id


class Unauthorized(Refused):
    """The server needs a key, and the client's ``api_key`` is missing or wrong."""


class InvalidRequest(Refused):
    """The request breaks a rule; sending it again will not help."""


class ServerFault(Refused):
    """An unexpected error in the server."""


class Unavailable(Refused):
    """The server cannot respond now, and the retries are used up.

    Attributes:
        retry_after_s: seconds after which the server asked to be tried again; None if it did not.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, code, detail, request_id)
        self.retry_after_s = retry_after_s
