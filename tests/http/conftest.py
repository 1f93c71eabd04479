"""The client that the contract's tests talk through."""

from collections.abc import Iterator

import httpx
import pytest

from tests.http.client import connected


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """Whoever tests something else than a socket gives another, with a transport of its own."""
    with connected(url) as client:
        yield client
