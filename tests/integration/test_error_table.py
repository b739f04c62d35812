"""The error table in process."""

import pytest

from tests.support.error_table import ERRORS, GOOD, Wrong
from tests.support.responses import Client


@pytest.fixture
def client(shared_client: Client) -> Client:
    return shared_client


@pytest.mark.parametrize("path", GOOD)
async def test_what_is_right_is_not_refused(client: Client, path: str) -> None:
    assert (await client.post(path, json=GOOD[path])).status_code == 200


@pytest.mark.parametrize("wrong", ERRORS, ids=str)
async def test_what_is_wrong_gets_its_error(client: Client, wrong: Wrong) -> None:
    response = await client.request(
        wrong.method, wrong.path, content=wrong.body, headers=wrong.headers
    )
    wrong.check(response)
