"""The contract suite on DynamoDB: through boto3, through aiohttp, and from several processes.

Each test has its own table: tables are cheap here, and a sweep scans the whole table.
"""

from typing import TYPE_CHECKING

import boto3
import pytest

from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from chatledger.testing.store_contract import (
    AsyncStoreContract,
    Clock,
    ProcessesContract,
    StoreContract,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

EXAMPLES = 8

pytestmark = pytest.mark.usefixtures("aws_environment")


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    """A session for all tests, because each new one reads botocore's large files again."""
    return boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=KEY)


class TestDynamoDB(StoreContract):
    examples = EXAMPLES

    @pytest.fixture
    def store(self, client: "DynamoDBClient", table: str, clock: Clock) -> Store:
        return DynamoDBStore(client, table, clock=clock)


class TestDynamoDBAsync(AsyncStoreContract):
    examples = EXAMPLES

    @pytest.fixture
    def store(
        self, dynamodb_local: DynamoDBLocal, session: boto3.Session, table: str, clock: Clock
    ) -> AsyncStore:
        return AsyncDynamoDBStore(
            table, region=REGION, endpoint=dynamodb_local.endpoint, session=session, clock=clock
        )


class TestDynamoDBProcesses(ProcessesContract):
    @pytest.fixture
    def store_url(self, dynamodb_local: DynamoDBLocal, table: str) -> str:
        return f"dynamodb://{table}?region={REGION}&endpoint={dynamodb_local.endpoint}"
