"""The encoder's process, in a thread of the test."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dependency_injector import providers

from adapters.encoders.process.encoder import EncoderConnection, ProcessEncoderLoader
from application.ports import EncoderLoaderPort
from entrypoints.container import Container
from entrypoints.processes.encoder import EncoderProcess
from entrypoints.settings import Settings


@contextmanager
def encoder_process(directory: Path, loader: EncoderLoaderPort) -> Iterator[ProcessEncoderLoader]:
    """A loader of the encoder that ``loader`` loads in the other process.

    Args:
        directory: for the socket; its path must be short.
        loader: of the encoder's process.
    """
    container = Container(settings=Settings(max_batch=4))
    container.encoder_loader.override(providers.Object(loader))
    address = directory / "encoder.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(address))
        listening.listen()
        listening.setblocking(False)
        process = EncoderProcess(container)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=[process.serve(listening)])
        thread.start()
        connection = EncoderConnection(address)
        try:
            yield ProcessEncoderLoader(connection)
        finally:
            connection.close()
            loop.call_soon_threadsafe(process.end)
            thread.join()
            loop.close()
