"""Sends alarms to a webhook, a command or a file."""

import asyncio
import base64
import json
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from adapters.images.thumbnail import thumbnail
from adapters.watching.records import as_record
from application.watch_ports import AlarmPort, WatchedFrame

logger = logging.getLogger(__name__)

_PICTURE_SIDE: Final = 320
_WEBHOOK_TIMEOUT_S: Final = 10.0
_WEBHOOK_PAUSES_S: Final = (1.0, 5.0, 25.0)
"""Pauses before the second try and later ones."""

_COMMAND_TIMEOUT_S: Final = 60.0


class Webhook(AlarmPort):
    """Posts the JSON object, with a small picture as base64 of a JPEG in ``picture``."""

    def __init__(self, url: str) -> None:
        """Name the address.

        Raises:
            ValueError: it is not one of HTTP.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError(url)
        self._url = url
        # Its path and query may be secret: chat services put their keys there.
        self._host = urlsplit(url).hostname

    async def tell(self, frame: WatchedFrame, picture: bytes) -> None:
        """See `AlarmPort.tell`. Four tries; a status of 4xx is not tried again."""
        small = await asyncio.to_thread(thumbnail, picture, side=_PICTURE_SIDE)
        record = as_record(frame)
        record["picture"] = None if small is None else base64.b64encode(small).decode("ascii")
        body = json.dumps(record).encode()
        for pause_s in (*_WEBHOOK_PAUSES_S, None):
            try:
                await asyncio.to_thread(self._post, body)
            except urllib.error.HTTPError as refused:
                refused.close()
                reason = f"it responds with status {refused.code}"
                if refused.code < 500 and refused.code != 429:
                    pause_s = None  # noqa: PLW2901 - the same request would be refused again
            except (OSError, ValueError) as failure:
                reason = str(getattr(failure, "reason", failure))
            else:
                return
            if pause_s is None:
                logger.warning("an alarm did not reach the webhook at %s: %s", self._host, reason)
                return
            await asyncio.sleep(pause_s)

    def _post(self, body: bytes) -> None:
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._url, body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=_WEBHOOK_TIMEOUT_S):  # noqa: S310
            pass


class Command(AlarmPort):
    """Runs a command line in the shell, with the JSON object on its standard input.

    Nothing of a frame becomes part of the command line.
    """

    def __init__(self, line: str) -> None:
        """Name the command line."""
        self._line = line

    async def tell(self, frame: WatchedFrame, picture: bytes) -> None:
        """See `AlarmPort.tell`. One try of at most a minute."""
        environment = {
            **os.environ,
            "CLIP_WATCH_SOURCE": frame.source,
            "CLIP_WATCH_SCORE": str(frame.anomaly_score),
        }
        try:
            process = await asyncio.create_subprocess_shell(
                self._line, stdin=asyncio.subprocess.PIPE, env=environment
            )
            try:
                async with asyncio.timeout(_COMMAND_TIMEOUT_S):
                    await process.communicate(json.dumps(as_record(frame)).encode())
            except TimeoutError:
                process.kill()
                await process.wait()
                logger.warning("the command was ended after %d s", _COMMAND_TIMEOUT_S)
        except OSError as failure:
            logger.warning("the command cannot be run: %s", failure.strerror)
            return
        if process.returncode:
            logger.warning("the command ended with status %d", process.returncode)


class JsonLinesFile(AlarmPort):
    """Appends the JSON object to a file."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is created with the first alarm."""
        self._path = path

    async def tell(self, frame: WatchedFrame, picture: bytes) -> None:
        """See `AlarmPort.tell`."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(as_record(frame), ensure_ascii=False) + "\n")
        except OSError as failure:
            logger.warning("%s cannot be written: %s", self._path, failure.strerror)
