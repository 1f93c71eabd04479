"""A store over a client of its own."""

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from chatledger.errors import StoreUnavailable
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import PATIENCE, Plan
from chatledger.stores.dynamodb.clients import make_client, session_of
from chatledger.stores.dynamodb.store import DynamoDBStore

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")


def open_store(
    table: str,
    *,
    region: str | None,
    endpoint: str | None,
    patience: float = PATIENCE,
    **options: Any,
) -> DynamoDBStore:
    """``options`` are those of ``DynamoDBStore``. Raises as ``make_client``."""
    session = session_of(None)
    make = partial(make_client, session, region=region, endpoint=endpoint, patience=patience)
    return WithItsClient(make, table, patience=patience, **options)


class WithItsClient(DynamoDBStore):
    """Closes its client with itself, and makes another in a forked child."""

    def __init__(
        self, make: Callable[[], "DynamoDBClient"], table: str, *, patience: float, **options: Any
    ) -> None:
        self._make = make
        self._patience = patience
        self._client = make()
        self._process = os.getpid()
        self._closed = False
        super().__init__(self._client, table, patience=patience, **options)

    def close(self) -> None:
        self._closed = True
        self._client.close()

    def _run(self, plan: Plan[T]) -> T:
        if self._closed:
            raise StoreUnavailable("The DynamoDB store was closed; open it again.")
        if self._process != os.getpid():  # whose connections are still the parent's
            self._client = self._make()
            self._calls = Boto3Calls(self._client, patience=self._patience)
            self._process = os.getpid()
        return super()._run(plan)
