"""The service on Ray Serve: HTTP and decoding in one deployment, the model in another.

``serve run deploy/ray/serve.yaml`` starts it. Every replica reads the same environment variables as
a single server does (see docs/configuration.md).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from dependency_injector import providers
from ray import serve

from adapters.ray.remote_encoder import RemoteEmbeddings, RemoteEncoderLoader
from adapters.ray.shared_batch import encode_together
from application.model.supervisor import Supervisor
from application.ports import EncoderDescription, EncoderPort, PixelBatch, TokenCount
from entrypoints.container import Container, http_service
from entrypoints.ray.lost_bodies import LostBodies
from entrypoints.settings import read_settings

if TYPE_CHECKING:
    from litestar.types import ASGIApp

logger = logging.getLogger(__name__)

_Input = TypeVar("_Input")
_Output = TypeVar("_Output")

_CONCURRENT_CALLS: Final = 16
"""Concurrent calls of one ingress replica, each of up to ``CLIP_MAX_BATCH_SIZE`` images."""


def _images(batches: Sequence[Any]) -> int:
    return sum(len(batch) for batch in batches)


class EncoderReplica:
    """One model on one accelerator. Calls from all ingress replicas share its batches."""

    def __init__(self) -> None:
        """Load the model; until then the replica takes no calls.

        Raises:
            RuntimeError: it cannot be loaded; `serve status` shows why.
        """
        container = Container(settings=read_settings())
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")
        self._encoder = _loaded(container.model(), self._thread)
        self._fingerprint = self._encoder.description.fingerprint
        self._last_took_s = 0.0
        self._free_at_s = 0.0  # by `time.monotonic`, estimated
        # Ray's type hints lack what its decorator adds.
        self._ray_batches = cast(Any, self._batched)
        self._ray_batches.set_max_batch_size(container.settings().max_batch)

    async def describe(self) -> EncoderDescription:
        """What is loaded."""
        return self._encoder.description

    async def encode_texts(self, texts: Sequence[str]) -> RemoteEmbeddings:
        """Text tower, as `EncoderPort.encode_texts`."""
        rows = await self._call(self._encoder.encode_texts, texts)
        return RemoteEmbeddings(rows, self._fingerprint)

    async def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """As `EncoderPort.count_tokens`."""
        return await asyncio.to_thread(self._encoder.count_tokens, texts)

    async def encode_images(self, batch: PixelBatch) -> RemoteEmbeddings:
        """Image tower, as `EncoderPort.encode_images`."""
        # Ray forms a batch without checking whether the encoder is free. So a batch waits for more
        # calls for as long as the previous batch takes, and not at all if the encoder is idle.
        busy_s = max(self._free_at_s - time.monotonic(), 0.0)
        self._ray_batches.set_batch_wait_timeout_s(busy_s)
        result: RemoteEmbeddings | Exception = await self._batched(batch)
        if isinstance(result, Exception):
            raise result
        return result

    @serve.batch(batch_wait_timeout_s=0, batch_size_fn=_images)
    async def _batched(self, batches: list[PixelBatch]) -> list[RemoteEmbeddings | Exception]:
        """The results of several calls, in their order; Ray forms the batch."""
        return await self._call(self._encode_together, batches)

    def _encode_together(self, batches: Sequence[PixelBatch]) -> list[RemoteEmbeddings | Exception]:
        start_s = time.monotonic()
        self._free_at_s = start_s + self._last_took_s
        results = encode_together(self._encoder, batches)
        self._free_at_s = time.monotonic()
        self._last_took_s = self._free_at_s - start_s
        return results

    async def _call(self, tower: Callable[[_Input], _Output], inputs: _Input) -> _Output:
        """Run a tower in the encoder's thread, so that the replica can still accept calls."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, tower, inputs)


def _ingress() -> "ASGIApp":
    """The application of an ingress replica, with the remote encoder behind its port.

    Raises:
        RuntimeError: the encoder cannot be used; `serve status` shows why.
    """
    application = serve.get_replica_context().app_name
    container = Container(settings=read_settings())
    settings = container.settings()
    if settings.api_keys is None:
        logger.warning("CLIP_API_KEYS is not set: anyone who reaches Ray's proxy may use the API")
    if settings.tls is not None:
        logger.warning("CLIP_TLS_CERTIFICATE has no effect here: Ray's proxy speaks plain HTTP")
    container.encoder_loader.override(
        providers.Singleton(
            RemoteEncoderLoader, handle=serve.get_deployment_handle("Encoder", application)
        )
    )
    container.concurrent_calls.override(providers.Object(_CONCURRENT_CALLS))
    # The remote encoder has its own time-out, and a hanging replica blocks no thread here.
    container.call_timeout_s.override(providers.Object(None))
    # Ray sends requests here as soon as this returns, so wait for the encoder first.
    with ThreadPoolExecutor(max_workers=1) as thread:
        _loaded(container.model(), thread)
    return LostBodies(http_service(container))


def _loaded(model: Supervisor, thread: ThreadPoolExecutor) -> EncoderPort:
    """The encoder once it is ready. Loaded in ``thread``, since Ray's thread runs an event loop."""
    thread.submit(asyncio.run, model.load()).result()
    if model.encoder is None:
        raise RuntimeError(f"no model is loaded: {model.reason}")
    return model.encoder


_deployment: Any = serve.deployment  # Ray's type hints say that it returns a function

Encoder = _deployment(EncoderReplica, name="Encoder", max_ongoing_requests=16)
# More than 1.25 times CLIP_MAX_REQUESTS (64), so that the service itself refuses when it is full.
Ingress = _deployment(serve.ingress(_ingress)(), name="Ingress", max_ongoing_requests=96)

app = Ingress.bind(Encoder.bind())
"""The application that `deploy/ray` names."""
