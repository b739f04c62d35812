"""An encoder in other processes: calls the encoder deployment of a Ray Serve application."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.handle import DeploymentHandle

from adapters.images.preprocessing import levels_of
from application.ports import (
    Device,
    EncoderDescription,
    EncoderLoaderPort,
    EncoderPort,
    PixelBatch,
    RawEmbeddings,
    TokenCount,
)
from domain.errors import ServiceUnavailable

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 30.0
"""How long a call may take, including retries on other replicas."""

_PAUSE_S: Final = 0.1
"""Seconds between two tries, so that the router can notice that the replica has died."""


@dataclass(frozen=True, slots=True)
class RemoteEmbeddings:
    """What an encoder replica returns.

    Attributes:
        rows: float32 ``[n, dimension]``.
        fingerprint: of the model that computed them.
    """

    rows: RawEmbeddings
    fingerprint: str


class RemoteEncoder(EncoderPort):
    """Stands for all replicas of the encoder deployment; may be called from several threads.

    A call whose replica dies is retried on another one, since encoding has no side effects. Rows
    from a model other than the one described, as during a roll-out, are never returned.
    """

    def __init__(
        self,
        handle: "DeploymentHandle[Any]",
        description: EncoderDescription,
        *,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """Use a deployment.

        Args:
            handle: of a deployment with the methods of `entrypoints.ray.serving.Encoder`.
            description: as its replicas report it.
            patience_s: how long a call may take, including retries.
        """
        self._handle = handle
        self._patience_s = patience_s
        self._description = description

    @property
    def description(self) -> EncoderDescription:
        """See `EncoderPort.description`."""
        return self._description

    def encode_images(self, batch: PixelBatch) -> RawEmbeddings:
        """See `EncoderPort.encode_images`.

        Raises:
            ServiceUnavailable: no replica responded in time, or the model is being changed.
        """
        if len(batch) == 0:
            return self._none()
        levels = levels_of(batch)  # a quarter of the bytes
        sent = batch if levels is None else levels
        return self._rows(lambda: self._handle.encode_images.remote(sent))

    def encode_texts(self, texts: Sequence[str]) -> RawEmbeddings:
        """See `EncoderPort.encode_texts`. Raises as `encode_images` does."""
        if not texts:
            return self._none()
        return self._rows(lambda: self._handle.encode_texts.remote(list(texts)))

    def count_tokens(self, texts: Sequence[str]) -> TokenCount:
        """See `EncoderPort.count_tokens`. Raises as `encode_images` does."""
        count: TokenCount = result_of(
            lambda: self._handle.count_tokens.remote(list(texts)), self._patience_s
        )
        return count

    def device_memory_used(self) -> int | None:
        """Always None: the memory is in other processes."""
        return None

    def _rows(self, call: Callable[[], Any]) -> RawEmbeddings:
        result: RemoteEmbeddings = result_of(call, self._patience_s)
        if result.fingerprint != self._description.fingerprint:
            raise ServiceUnavailable(
                f"the model is being changed from {self._description.fingerprint} to "
                f"{result.fingerprint}.",
                code="model_changing",
                retry_after_s=5,
            )
        return result.rows

    def _none(self) -> RawEmbeddings:
        return np.empty((0, self._description.embedding_dimension), dtype=np.float32)


class RemoteEncoderLoader(EncoderLoaderPort):
    """Waits for the encoder deployment instead of loading a model."""

    def __init__(self, handle: "DeploymentHandle[Any]") -> None:
        self._handle = handle

    def probe_device(self) -> Device:
        """The replicas' device."""
        return self._describe().device

    def load(self) -> RemoteEncoder:
        """See `EncoderLoaderPort.load`. Waits until there is a replica, however long it takes."""
        return RemoteEncoder(self._handle, self._describe())

    def _describe(self) -> EncoderDescription:
        while True:
            try:
                description: EncoderDescription = result_of(
                    self._handle.describe.remote, _PATIENCE_S
                )
            except ServiceUnavailable:
                logger.info("still waiting for a replica of the encoder")
            else:
                return description


def result_of(call: Callable[[], Any], patience_s: float) -> Any:
    """The result of a call, which is retried if its replica dies.

    Args:
        call: makes the call and returns Ray's ``DeploymentResponse``.
        patience_s: for all tries together.

    Raises:
        ServiceUnavailable: there was no result within ``patience_s`` seconds.
    """
    deadline = time.monotonic() + patience_s
    while (left := deadline - time.monotonic()) > 0:
        response = call()
        try:
            return response.result(timeout_s=left)
        except TimeoutError:
            response.cancel()
        except (ActorDiedError, ActorUnavailableError) as death:
            logger.warning("an encoder replica is gone, trying another: %s", type(death).__name__)
            time.sleep(min(_PAUSE_S, left))
    raise ServiceUnavailable(
        f"no replica of the encoder responded within {patience_s:g} seconds.",
        code="encoder_unreachable",
        retry_after_s=5,
    )
