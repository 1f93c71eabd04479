"""Fixtures: stores of each kind, sync and async, for the LangChain classes on them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from chatledger import AsyncStore, Store, open_async_store, open_store
from chatledger.testing.dynamodb_local import REGION, DynamoDBLocal
from tests.langchain.histories import boto_session, hash_only, histories, requests
from tests.stores.dynamodb.conftest import aws_environment, client
from tests.stores.dynamodb.tables import new_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["aws_environment", "boto_session", "client", "hash_only", "histories", "requests"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def log_table(client: "DynamoDBClient") -> Iterator[str]:
    """A table with Chatledger's own layout; each test uses its own conversations in it."""
    name = new_table(client)
    yield name
    client.delete_table(TableName=name)


@pytest.fixture(params=["sqlite", "dynamodb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an SQLite store, then of a DynamoDB store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/chatledger.db"
    request.getfixturevalue("aws_environment")
    local: DynamoDBLocal = request.getfixturevalue("dynamodb_local")
    table: str = request.getfixturevalue("log_table")
    return f"dynamodb://{table}?region={REGION}&endpoint={local.endpoint}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store


@pytest.fixture
def async_store(url: str) -> AsyncStore:
    """An async store that the test must enter, in its own event loop."""
    return open_async_store(url)


@pytest.fixture
def run_page(
    aws_environment: None,
    dynamodb_local: DynamoDBLocal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], None]:
    """Run all examples of a page, those with ``py`` too, with DynamoDB Local as DynamoDB.

    The ``python`` blocks also run with the rest of the documentation. A ``py`` block needs a table,
    or a warning filter that another block sets.
    """
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_local.endpoint)
    monkeypatch.chdir(tmp_path)

    def run(text: str) -> None:
        page = tmp_path / "page.md"
        page.write_text(text.replace("```py\n", "```python\n"))
        for example in Sybil(parsers=[PythonCodeBlockParser()]).parse(page).examples():
            example.evaluate()

    return run
