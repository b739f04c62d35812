"""The real server, with other parts than the environment names."""

from collections.abc import Callable

from adapters.system.memory import return_large_blocks_at_once
from application.ports import EncoderLoaderPort
from entrypoints.container import Container
from entrypoints.logs import configure_logging
from entrypoints.server.server import serve
from entrypoints.settings import read_settings


def serve_with(loader: Callable[[EncoderLoaderPort], EncoderLoaderPort]) -> None:
    """Serve as ``clip-server serve`` does, until a signal ends it.

    Args:
        loader: gives what loads the encoder, from what would have loaded it.
    """

    def change(container: Container) -> None:
        container.encoder_loader.override(loader(container.encoder_loader()))

    serve_changed(change)


def serve_changed(change: Callable[[Container], None]) -> None:
    """Serve as `serve_with` does.

    Args:
        change: overrides parts of the container, of which none was made yet.
    """
    settings = read_settings()
    configure_logging(settings.log_format, settings.log_level)
    return_large_blocks_at_once()
    container = Container(settings=settings)
    change(container)
    serve(container)
