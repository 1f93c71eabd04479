"""The client that the contract's tests use."""

from collections.abc import Iterator

import httpx
import pytest

from chatledger.testing.bedrock_server import BedrockServer
from tests.http.client import open_client


@pytest.fixture(scope="module")
def bedrock() -> Iterator[BedrockServer]:
    with BedrockServer() as bedrock:
        yield bedrock


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """A client of ``url``; tests without a socket override it with another transport."""
    with open_client(url) as client:
        yield client
