"""The contract suite on DynamoDB: through boto3, through aiohttp, and from several processes.

Each test has its own table: tables are cheap here, and a sweep scans the whole table.
"""

from typing import TYPE_CHECKING

import boto3
import pytest

from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from chatledger.testing.store_contract import Clock, ProcessesContract, StoreContract
from chatledger.testing.store_contract.appending import AppendingLaws
from chatledger.testing.store_contract.asynchronous import AsynchronousLaws
from chatledger.testing.store_contract.expiring import ExpiringLaws
from chatledger.testing.store_contract.iterating import IteratingLaws
from chatledger.testing.store_contract.keys import KeyLaws
from chatledger.testing.store_contract.lifecycle import LifecycleLaws
from chatledger.testing.store_contract.listing import ListingLaws
from chatledger.testing.store_contract.operation_rules import HistoryLaws
from chatledger.testing.store_contract.reading import ReadingLaws
from chatledger.testing.store_contract.restoring import RestoringLaws
from chatledger.testing.store_contract.rivals import RivalLaws
from chatledger.testing.store_contract.roundtrip import RoundtripLaws
from chatledger.testing.store_contract.scanning import ScanningLaws

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


class TestDynamoDBAsync(
    AsynchronousLaws,
    HistoryLaws,
    RivalLaws,
    RestoringLaws,
    IteratingLaws,
    ScanningLaws,
    RoundtripLaws,
    ExpiringLaws,
    ListingLaws,
    ReadingLaws,
    KeyLaws,
    AppendingLaws,
    LifecycleLaws,
):
    """The laws that depend on how calls are made.

    Both stores share the checks of arguments and the plans, on which the other laws depend;
    ``TestDynamoDB`` holds those, and all laws twice would take minutes. The random histories have
    every operation.
    """

    examples = EXAMPLES

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

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
