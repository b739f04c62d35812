"""The server with decoders that do what a picture says, see `tests.support.decoders`.

The limits of one picture are `MEMORY_BYTES` and `CPU_S`, small so that breaking them is quick.
"""

from typing import Final

from dependency_injector import providers

from adapters.images.decoding_workers import Budget, DecodingWorkers
from entrypoints.container import Container
from tests.support import decoders
from tests.support.other_encoders import serve_changed

MEMORY_BYTES: Final = 100 * 2**20
CPU_S: Final = 0.5
WORKERS: Final = 2


def _obey(container: Container) -> None:
    container.image_preparation_port.override(
        providers.Singleton(
            DecodingWorkers,
            workers=WORKERS,
            budget=Budget(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S),
            decoder=decoders.NAME,
        )
    )


if __name__ == "__main__":
    serve_changed(_obey)
