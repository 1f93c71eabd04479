"""pytest fixtures, which pytest finds by itself once Chatledger is installed.

Everything else is imported when a fixture is used, so that pytest starts as fast as without them.
``-p no:chatledger`` leaves them out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from chatledger import Store
    from chatledger.testing import ScriptedModel
    from chatledger.testing.bedrock_server import BedrockServer
    from chatledger.testing.dynamodb_local import DynamoDBLocal


@pytest.fixture
def chatledger_url(tmp_path: Path) -> str:
    """The URL of a store in a new SQLite file, for ``open_async_store`` or a server."""
    return f"sqlite:///{tmp_path / 'chatledger.db'}"


@pytest.fixture
def chatledger_store(chatledger_url: str) -> "Iterator[Store]":
    """An open store in a new SQLite file, the one of ``chatledger_url``."""
    from chatledger import open_store

    with open_store(chatledger_url) as store:
        yield store


@pytest.fixture
def chatledger_model() -> "ScriptedModel":
    """A model with an empty script: ``chatledger_model.script("Hello!")`` adds a reply."""
    from chatledger.testing import ScriptedModel

    return ScriptedModel()


@pytest.fixture
def chatledger_bedrock(monkeypatch: pytest.MonkeyPatch) -> "Iterator[BedrockServer]":
    """A fake of Amazon Bedrock, to which the environment leads every AWS client of the test."""
    from chatledger.testing.bedrock_server import BedrockServer

    with BedrockServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
        yield server


@pytest.fixture(scope="session")
def chatledger_dynamodb() -> "Iterator[DynamoDBLocal]":
    """The DynamoDB Local of this test session; see its ``endpoint`` and ``client()``."""
    from chatledger.testing.dynamodb_local import DynamoDBLocal

    with DynamoDBLocal() as running:
        yield running
