"""Fixtures: tables with the layout of the old class, and histories in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from langchain_core.chat_history import BaseChatMessageHistory

from chatledger.langchain import DynamoDBChatMessageHistory
from chatledger.langchain.connections import shared_client
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from chatledger.values import new_id
from tests.langchain.community_history import community_history

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, Any]


@dataclass(frozen=True)
class Histories:
    """A table with or without a sort key, and the histories in it."""

    client: "DynamoDBClient"
    session: boto3.Session
    endpoint: str
    table: str
    key_names: tuple[str, ...]

    def open(self, session_id: str = "1", **options: Any) -> DynamoDBChatMessageHistory:
        if len(self.key_names) == 2 and "key" not in options:
            options["key"] = self.key(session_id)
        arguments: dict[str, Any] = {
            "table_name": self.table,
            "session_id": session_id,
            "endpoint_url": self.endpoint,
            "boto3_session": self.session,
        }
        return DynamoDBChatMessageHistory(**(arguments | options))

    def open_old(self, session_id: str = "1", **options: Any) -> BaseChatMessageHistory:
        """Open a history with the old class, which needs an option to accept floats."""
        arguments: dict[str, Any] = {
            "table_name": self.table,
            "session_id": session_id,
            "key": self.key(session_id),
            "boto3_session": self.session,
            "endpoint_url": self.endpoint,
            "coerce_float_to_decimal": True,
        }
        return community_history(**(arguments | options))

    def key(self, session_id: str = "1") -> dict[str, str]:
        if len(self.key_names) == 1:
            return {"SessionId": session_id}
        return {"PK": "user#bob", "SK": f"session#{session_id}"}

    def item(self, session_id: str = "1") -> Item | None:
        """Return the first item of a session in DynamoDB's JSON format."""
        key = {name: {"S": value} for name, value in self.key(session_id).items()}
        found: Any = self.client.get_item(TableName=self.table, Key=key, ConsistentRead=True)
        item: Item | None = found.get("Item")
        return item

    def put(self, item: Item, session_id: str = "1") -> None:
        key = {name: {"S": value} for name, value in self.key(session_id).items()}
        self.client.put_item(TableName=self.table, Item=item | key)

    def items(self) -> list[Item]:
        """Return all items of the table."""
        pages: Any = self.client.get_paginator("scan").paginate(TableName=self.table)
        return [item for page in pages for item in page["Items"]]


@pytest.fixture(scope="session")
def boto_session() -> boto3.Session:
    return boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=KEY, region_name=REGION)


@contextmanager
def open_histories(
    local: DynamoDBLocal,
    client: "DynamoDBClient",
    session: boto3.Session,
    key_names: tuple[str, ...],
) -> Iterator[Histories]:
    table = f"langchain-{new_id()}"
    kinds = ("HASH", "RANGE")
    client.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": name, "KeyType": kind}  # type: ignore[typeddict-item]
            for name, kind in zip(key_names, kinds, strict=False)
        ],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in key_names],
    )
    yield Histories(client, session, local.endpoint, table, key_names)
    client.delete_table(TableName=table)


@pytest.fixture(params=[("SessionId",), ("PK", "SK")], ids=["hash-only", "composite"])
def histories(
    request: pytest.FixtureRequest,
    dynamodb_local: DynamoDBLocal,
    client: "DynamoDBClient",
    boto_session: boto3.Session,
    aws_environment: None,
) -> Iterator[Histories]:
    """A table for one test, first without and then with a sort key."""
    with open_histories(dynamodb_local, client, boto_session, request.param) as made:
        yield made


@pytest.fixture
def hash_only(
    dynamodb_local: DynamoDBLocal,
    client: "DynamoDBClient",
    boto_session: boto3.Session,
    aws_environment: None,
) -> Iterator[Histories]:
    """A table for one test, created as LangChain's documentation says."""
    with open_histories(dynamodb_local, client, boto_session, ("SessionId",)) as made:
        yield made


@pytest.fixture
def requests(dynamodb_local: DynamoDBLocal, boto_session: boto3.Session) -> Iterator[list[str]]:
    """The operations that histories requested of DynamoDB since the list was last cleared."""
    events = shared_client(boto_session, dynamodb_local.endpoint).meta.events
    operations: list[str] = []

    def record(model: Any, **_: object) -> None:
        operations.append(model.name)

    events.register("before-call.dynamodb", record)
    yield operations
    events.unregister("before-call.dynamodb", record)


@contextmanager
def lose_responses(histories: Histories, operation: str, *, times: int = 1) -> Iterator[list[str]]:
    """Lose the next responses to an operation that succeeded; yield the list of lost ones."""
    events = shared_client(histories.session, histories.endpoint).meta.events
    lost: list[str] = []

    def lose(**_: object) -> None:
        if len(lost) < times:
            lost.append(operation)
            raise ReadTimeoutError(endpoint_url=histories.endpoint)

    name = f"response-received.dynamodb.{operation}"
    events.register(name, lose)
    yield lost
    events.unregister(name, lose)
