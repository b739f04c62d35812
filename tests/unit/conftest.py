"""A queue in front of an encoder that records what it was told."""

from collections.abc import AsyncIterator

import pytest

from application.inference.batcher import EncodingQueue
from tests.support.encoders import RecordingEncoder, Warm


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
async def queue(encoder: RecordingEncoder) -> AsyncIterator[EncodingQueue]:
    queue = EncodingQueue(Warm(encoder), max_batch=4)
    yield queue
    queue.close()
