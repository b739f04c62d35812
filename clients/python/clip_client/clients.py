"""The two clients. They differ only in how they wait and send; the rest is shared."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, ParamSpec, Self

import httpx

from clip_client import calls
from clip_client.calls import ImageOrVector
from clip_client.errors import Refused
from clip_client.exchange import Call, Exchange, Result, Retries, with_key
from clip_client.images import ImageSource
from clip_client.proxies import made_with, proxy_for
from clip_client.results import AnomalyScore, Baseline, Classification, Comparison, Health
from clip_client.vectors import Embedding, Vector, average_embedding, cosine_similarity

P = ParamSpec("P")

DEFAULT_URL: Final = "http://localhost:8093"
DEFAULT_TIMEOUT: Final = httpx.Timeout(60.0, connect=5.0)
DEFAULT_RETRIES: Final = Retries()


class ClipClient:
    """Client of a CLIP embedding server; each call waits for the response.

    ::

        with ClipClient("http://localhost:8093") as clip:
            print(clip.classify("porch.jpg", ["a person", "a parcel"]).top_label)

    May be shared between threads. Each call raises, besides what it says itself, the errors of
    `clip_client.errors`, and OSError if a file cannot be read.
    """

    average_embedding = staticmethod(average_embedding)
    cosine_similarity = staticmethod(cosine_similarity)

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        retries: Retries = DEFAULT_RETRIES,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Make one; nothing is sent yet.

        Raises:
            InvalidAddress: the URL, or a proxy variable of the environment, cannot be used.

        Args:
            url: where the server is, including a path in front of its own.
            api_key: one of the server's, where it has any; sent as a bearer token.
            timeout: seconds to wait for the connection to move on, or each of httpx's kinds.
            retries: how calls that the server could not take are tried again.
            headers: sent with every call, such as a proxy's own.
            transport: httpx's, for a proxy, a client certificate or a Unix socket.
        """
        self._retries = retries
        # httpx takes no proxy from the environment where it is given a transport.
        self._proxy = None if transport is not None else proxy_for(url)
        all_headers = with_key(headers, api_key)
        self._http = made_with(
            url,
            lambda: httpx.Client(
                base_url=url, timeout=timeout, headers=all_headers, transport=transport
            ),
        )

    def embed(self, image: ImageSource) -> Embedding:
        """The image as a unit vector, to be stored and compared."""
        return self._ask(calls.embed, image)

    def embed_batch(self, images: Sequence[ImageSource]) -> list[Embedding | Refused]:
        """For each of up to 64 images its embedding, or why it has none; in their order.

        One that cannot be embedded does not fail the others: look at each with ``isinstance``.
        Together they must fit into one request of 16 MiB, in base64.
        """
        return self._ask(calls.embed_batch, images)

    def anomaly_score(
        self, image: ImageSource, baseline: Vector, *, threshold: float | None = None
    ) -> AnomalyScore:
        """How far the image has moved from a baseline embedding.

        Args:
            image: the scene now.
            baseline: as `baseline` or `average_embedding` returns it.
            threshold: say also whether the score is above this.
        """
        return self._ask(calls.anomaly_score, image, baseline, threshold=threshold)

    def classify(
        self,
        image: ImageSource,
        labels: Sequence[str],
        *,
        use_ensemble: bool = False,
        camera_type: str | None = None,
        score: str | None = None,
    ) -> Classification:
        """Which of the labels fits the image, as probabilities.

        Args:
            image: the image.
            labels: 1 to 100 different ones.
            use_ensemble: put each label through five prompts for camera footage.
            camera_type: which prompts: ``standard`` (if not given), ``night_vision``, ``outdoor``,
                ``indoor`` or ``doorbell``.
            score: ``softmax`` (if not given), or ``sigmoid`` where the model has a logit bias: then
                each probability stands alone.
        """
        return self._ask(
            calls.classify,
            image,
            labels,
            use_ensemble=use_ensemble,
            camera_type=camera_type,
            score=score,
        )

    def similarity(self, image: ImageSource, text: str) -> float:
        """How well a text describes the image: cosine in [-1, 1]."""
        return self._ask(calls.similarity, image, text)

    def batch_similarity(self, image: ImageSource, texts: Sequence[str]) -> dict[str, float]:
        """How well each of several texts describes the image: text → cosine in [-1, 1]."""
        return self._ask(calls.batch_similarity, image, texts)

    def compare(
        self, a: ImageOrVector, b: ImageOrVector, *, threshold: float | None = None
    ) -> Comparison:
        """Whether two images, or embeddings of images, show the same person or vehicle.

        Args:
            a: one of them.
            b: the other.
            threshold: the similarity from which they count as the same; the server's, 0.85,
                unless given.
        """
        return self._ask(calls.compare, a, b, threshold=threshold)

    def baseline(self, frames: Sequence[ImageOrVector]) -> Baseline:
        """What a scene usually looks like: the average of frames, or of their embeddings."""
        return self._ask(calls.baseline, frames)

    def health(self) -> Health:
        """What is loaded and on what; answers also while no model is loaded."""
        return self._ask(calls.health)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(
        self, make_call: Callable[P, Call[Result]], *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        exchange = Exchange(make_call(*args, **kwargs), self._retries, self._proxy)
        while exchange.pause_s is not None:
            time.sleep(exchange.pause_s)
            try:
                exchange.record(self._http.request(**exchange.request))
            except httpx.TransportError as failure:
                exchange.record(failure)
        return exchange.result()


class AsyncClipClient:
    """The same for asyncio: every call of `ClipClient`, to be awaited.

    ::

        async with AsyncClipClient("http://localhost:8093") as clip:
            print((await clip.classify("porch.jpg", ["a person", "a parcel"])).top_label)

    Files are read and pixels packed in a thread, so the event loop stays free.
    """

    average_embedding = staticmethod(average_embedding)
    cosine_similarity = staticmethod(cosine_similarity)

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        retries: Retries = DEFAULT_RETRIES,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Make one, from what `ClipClient` takes."""
        self._retries = retries
        # httpx takes no proxy from the environment where it is given a transport.
        self._proxy = None if transport is not None else proxy_for(url)
        all_headers = with_key(headers, api_key)
        self._http = made_with(
            url,
            lambda: httpx.AsyncClient(
                base_url=url, timeout=timeout, headers=all_headers, transport=transport
            ),
        )

    async def embed(self, image: ImageSource) -> Embedding:
        """See `ClipClient.embed`."""
        return await self._ask(calls.embed, image)

    async def embed_batch(self, images: Sequence[ImageSource]) -> list[Embedding | Refused]:
        """See `ClipClient.embed_batch`."""
        return await self._ask(calls.embed_batch, images)

    async def anomaly_score(
        self, image: ImageSource, baseline: Vector, *, threshold: float | None = None
    ) -> AnomalyScore:
        """See `ClipClient.anomaly_score`."""
        return await self._ask(calls.anomaly_score, image, baseline, threshold=threshold)

    async def classify(
        self,
        image: ImageSource,
        labels: Sequence[str],
        *,
        use_ensemble: bool = False,
        camera_type: str | None = None,
        score: str | None = None,
    ) -> Classification:
        """See `ClipClient.classify`."""
        return await self._ask(
            calls.classify,
            image,
            labels,
            use_ensemble=use_ensemble,
            camera_type=camera_type,
            score=score,
        )

    async def similarity(self, image: ImageSource, text: str) -> float:
        """See `ClipClient.similarity`."""
        return await self._ask(calls.similarity, image, text)

    async def batch_similarity(self, image: ImageSource, texts: Sequence[str]) -> dict[str, float]:
        """See `ClipClient.batch_similarity`."""
        return await self._ask(calls.batch_similarity, image, texts)

    async def compare(
        self, a: ImageOrVector, b: ImageOrVector, *, threshold: float | None = None
    ) -> Comparison:
        """See `ClipClient.compare`."""
        return await self._ask(calls.compare, a, b, threshold=threshold)

    async def baseline(self, frames: Sequence[ImageOrVector]) -> Baseline:
        """See `ClipClient.baseline`."""
        return await self._ask(calls.baseline, frames)

    async def health(self) -> Health:
        """See `ClipClient.health`."""
        return await self._ask(calls.health)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _ask(
        self, make_call: Callable[P, Call[Result]], *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        call = await asyncio.to_thread(make_call, *args, **kwargs)
        exchange = Exchange(call, self._retries, self._proxy)
        while exchange.pause_s is not None:
            await asyncio.sleep(exchange.pause_s)
            try:
                exchange.record(await self._http.request(**exchange.request))
            except httpx.TransportError as failure:
                exchange.record(failure)
        return exchange.result()
