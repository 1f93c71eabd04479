"""boto3 clients that stores make themselves, and the store that owns its client."""

import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.exceptions import BotoCoreError, NoRegionError

from chatledger.aws.session import boto3_session, make_service_client
from chatledger.errors import AccessRefused, InvalidArgument
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import PATIENCE, Plan
from chatledger.stores.dynamodb.errors import closed_error
from chatledger.stores.dynamodb.store import DynamoDBStore
from chatledger.stores.operations import OnCall

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
"""The longest time (s) for opening a connection."""
READ_TIMEOUT = 10.0
"""The longest time (s) without a byte of the reply."""
POOL_SIZE = 50
"""The number of idle connections that boto3 keeps open for later calls."""


def make_client(
    session: boto3.Session, *, region: str | None, endpoint: str | None, patience: float = PATIENCE
) -> "DynamoDBClient":
    """Return a client that makes one attempt at each call and waits only briefly for a reply.

    The store itself makes further attempts, so that it knows of each.

    Args:
        session: The session with the configuration and the credentials.
        region: The AWS region; None for the session's own.
        endpoint: The endpoint's URL; None for that of AWS.
        patience: The longest time (s) to wait for a connection or for one reply, if it is less
            than ``CONNECT_TIMEOUT`` or ``READ_TIMEOUT``.

    Raises:
        InvalidArgument: No region is configured, or the region or endpoint is invalid.
        AccessRefused: The AWS configuration is invalid; a profile is missing, for example.
    """
    try:
        client: DynamoDBClient = make_service_client(
            session,
            "dynamodb",
            region=region,
            endpoint=endpoint,
            connect_timeout=min(CONNECT_TIMEOUT, patience),
            read_timeout=min(READ_TIMEOUT, patience),
            pool_size=POOL_SIZE,
        )
        return client
    except NoRegionError as failed:
        raise InvalidArgument(
            "No AWS region is configured; add region=, such as region=eu-west-1, or set "
            "AWS_DEFAULT_REGION."
        ) from failed
    except ValueError as failed:
        reason = str(failed).rstrip(".")
        raise InvalidArgument(f"The region or the endpoint is not valid: {reason}.") from failed
    except BotoCoreError as failed:
        reason = str(failed).rstrip(".")
        raise AccessRefused(
            f"AWS cannot be called with this configuration: {reason}. Correct the AWS "
            "configuration or the environment variables."
        ) from failed


class ClientOwningStore(DynamoDBStore):
    """A ``DynamoDBStore`` that closes its client with itself, and makes another after a fork.

    ``region`` and ``endpoint`` are those of ``make_client``, whose errors it raises; ``options``
    are those of ``DynamoDBStore``.
    """

    def __init__(
        self,
        table: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        patience: float = PATIENCE,
        on_call: OnCall | None = None,
        **options: Any,
    ) -> None:
        self._new_client = partial(
            make_client, boto3_session(None), region=region, endpoint=endpoint, patience=patience
        )
        self._on_call = on_call
        self._patience = patience
        self._client = self._new_client()
        self._process_id = os.getpid()
        self._closed = False
        super().__init__(self._client, table, patience=patience, on_call=on_call, **options)

    def close(self) -> None:
        self._closed = True
        self._client.close()

    def run(self, plan: Plan[T]) -> T:
        if self._closed:
            raise closed_error()
        if self._process_id != os.getpid():  # the client's connections belong to the parent
            self._client = self._new_client()
            self._calls = Boto3Calls(self._client, patience=self._patience, on_call=self._on_call)
            self._process_id = os.getpid()
        return super().run(plan)
