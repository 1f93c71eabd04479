"""A DynamoDB store that makes, owns and closes its boto3 client."""

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from chatledger.aws.session import boto3_session
from chatledger.errors import StoreUnavailable
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import PATIENCE, Plan
from chatledger.stores.dynamodb.clients import make_client
from chatledger.stores.dynamodb.store import DynamoDBStore

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")


def open_dynamodb_store(
    table: str,
    *,
    region: str | None,
    endpoint: str | None,
    patience: float = PATIENCE,
    **options: Any,
) -> DynamoDBStore:
    """Return a store with a client of its own.

    ``options`` are those of ``DynamoDBStore``. Raises the errors of ``make_client``.
    """
    session = boto3_session(None)
    new_client = partial(make_client, session, region=region, endpoint=endpoint, patience=patience)
    return ClientOwningStore(new_client, table, patience=patience, **options)


class ClientOwningStore(DynamoDBStore):
    """A ``DynamoDBStore`` that closes its client with itself, and makes another after a fork."""

    def __init__(
        self,
        new_client: Callable[[], "DynamoDBClient"],
        table: str,
        *,
        patience: float,
        **options: Any,
    ) -> None:
        self._new_client = new_client
        self._patience = patience
        self._client = new_client()
        self._process_id = os.getpid()
        self._closed = False
        super().__init__(self._client, table, patience=patience, **options)

    def close(self) -> None:
        self._closed = True
        self._client.close()

    def run(self, plan: Plan[T]) -> T:
        if self._closed:
            raise StoreUnavailable("The DynamoDB store was closed; open it again.")
        if self._process_id != os.getpid():  # the client's connections belong to the parent
            self._client = self._new_client()
            self._calls = Boto3Calls(self._client, patience=self._patience)
            self._process_id = os.getpid()
        return super().run(plan)
