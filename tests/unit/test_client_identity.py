"""Who counts as one client."""

from typing import Any

import pytest

from entrypoints.http.middleware.auth import ClientIdentity


def scope(address: str | None, *headers: tuple[bytes, bytes]) -> Any:
    return {"client": None if address is None else (address, 1234), "headers": headers}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("", "", True),
        ("a-unix-socket", "a-unix-socket", True),
        (None, None, True),
    ],
)
def test_addresses(one: str | None, other: str | None, same: bool) -> None:
    client_of = ClientIdentity(keyed=False)
    assert (client_of(scope(one)) == client_of(scope(other))) is same


def test_keys_count_only_where_there_are_keys() -> None:
    first, second = (b"x-api-key", b"first-secret-key"), (b"authorization", b"Bearer second-secret")
    keyed, open_to_all = ClientIdentity(keyed=True), ClientIdentity(keyed=False)
    assert keyed(scope("10.0.0.1", first)) != keyed(scope("10.0.0.1", second))
    assert keyed(scope("10.0.0.1", first)) != keyed(scope("10.0.0.2", first))
    assert open_to_all(scope("10.0.0.1", first)) == open_to_all(scope("10.0.0.1", second))
    assert "secret" not in keyed(scope("10.0.0.1", first))
