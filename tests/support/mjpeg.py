"""A camera that sends MJPEG over HTTP, and that can be cut off."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

_BOUNDARY: Final = b"--frame"


class MjpegCamera:
    """Sends its pictures again and again, at its own pace, to everybody who asks with its password.

    Attributes:
        connections: how many clients have connected so far.
        sent: pictures sent so far, to all of them.
    """

    def __init__(self, pictures: list[bytes], *, each_s: float = 0.02) -> None:
        self.connections = 0
        self.sent = 0
        self._pictures = pictures
        self._each_s = each_s
        self._cut = threading.Event()
        self._ended = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers.get("authorization") != "Basic dXNlcjpzZWNyZXQ=":
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.end_headers()
                    return
                camera.connections += 1
                camera._cut.clear()
                self.send_response(200)
                self.send_header("content-type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                number = 0
                try:
                    while not (camera._cut.is_set() or camera._ended.is_set()):
                        picture = camera._pictures[number % len(camera._pictures)]
                        head = b"\r\ncontent-type: image/jpeg\r\ncontent-length: %d\r\n\r\n"
                        self.wfile.write(_BOUNDARY + head % len(picture) + picture + b"\r\n")
                        camera.sent += 1
                        number += 1
                        camera._ended.wait(camera._each_s)
                except OSError:
                    return  # the client has left

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://user:secret@127.0.0.1:{self._server.server_port}/video?key=secret"

    def cut(self) -> None:
        """Drop who is connected."""
        self._cut.set()

    @contextmanager
    def running(self) -> Iterator["MjpegCamera"]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()
