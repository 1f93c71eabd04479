"""The published fixture, and a shared server for tests that script nothing."""

from collections.abc import Iterator

import pytest

from chatledger.testing.bedrock_server import BedrockServer
from chatledger.testing.bedrock_server import bedrock_server as bedrock_server


@pytest.fixture(scope="module")
def shared() -> Iterator[BedrockServer]:
    """Yield a server for tests that leave no scripted responses."""
    with BedrockServer() as server:
        yield server
