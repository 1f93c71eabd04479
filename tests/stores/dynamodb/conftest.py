"""Fixtures: a client of DynamoDB Local, a table for each test, and a clock set by hand."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import KEY, DynamoDBLocal
from tests.stores.dynamodb.tables import new_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class ManualClock:
    """A clock that stands still until a test advances it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 5, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, **by: float) -> None:
        self.time += timedelta(**by)


@pytest.fixture(scope="session")
def client(dynamodb_local: DynamoDBLocal) -> Iterator["DynamoDBClient"]:
    client = dynamodb_local.client()
    yield client
    client.close()


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide this machine's AWS configuration, and set credentials that every test server accepts."""
    for name in [*os.environ]:
        if name.upper().startswith("AWS_") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)


@pytest.fixture
def table(client: "DynamoDBClient") -> Iterator[str]:
    """The name of a table that only this test uses."""
    name = new_table(client)
    yield name
    client.delete_table(TableName=name)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


OpenStore = Callable[..., DynamoDBStore]


@pytest.fixture
def open_store(client: "DynamoDBClient", table: str, clock: ManualClock) -> OpenStore:
    """``open_store(**options)`` opens another store over the test's table, with an empty cache."""

    def open(client: "DynamoDBClient" = client, **options: object) -> DynamoDBStore:
        return DynamoDBStore(client, table, **({"clock": clock} | options))  # type: ignore[arg-type]

    return open
