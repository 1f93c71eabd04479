"""The client that the contract's tests use."""

from collections.abc import Callable, Iterator
from functools import cache

import httpx
import pytest

from chatledger.testing.bedrock_server import BedrockServer
from tests.http.client import open_client, read_description
from tests.http.description import Description


@pytest.fixture(scope="module")
def bedrock() -> Iterator[BedrockServer]:
    with BedrockServer() as bedrock:
        yield bedrock


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """A client of ``url``; tests without a socket override it with another transport."""
    with open_client(url) as client:
        yield client


@pytest.fixture(scope="module")
def description_of() -> Callable[[str], Description]:
    """Read the ``/openapi.json`` of the server at a URL, once for all tests of a module."""

    @cache
    def read(url: str) -> Description:
        with open_client(url) as client:
            return read_description(client)

    return read
