"""The published fixture, offered to these tests alone, and one server for whoever only asks."""

from collections.abc import Iterator

import pytest

from chatledger.testing.bedrock_server import BedrockServer
from chatledger.testing.bedrock_server import bedrock_server as bedrock_server


@pytest.fixture(scope="module")
def shared() -> Iterator[BedrockServer]:
    """For tests that leave no script behind."""
    with BedrockServer() as running:
        yield running
