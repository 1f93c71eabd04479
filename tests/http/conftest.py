"""The client that the contract's tests use."""

from collections.abc import Iterator

import httpx
import pytest

from tests.http.client import open_client


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """A client of ``url``; tests without a socket override it with another transport."""
    with open_client(url) as client:
        yield client
