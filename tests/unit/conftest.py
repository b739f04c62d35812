"""Requests to an encoder that records what it was told."""

from collections.abc import AsyncIterator

import pytest

from tests.support.encoders import RecordingEncoder, warm
from tests.support.requests import Requests


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
async def requests(encoder: RecordingEncoder) -> AsyncIterator[Requests]:
    requests = Requests(warm(encoder))
    yield requests
    requests.close()
