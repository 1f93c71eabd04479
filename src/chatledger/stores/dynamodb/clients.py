"""boto3 clients for stores, with region, endpoint and credentials as botocore finds them."""

from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import BotoCoreError, NoRegionError

from chatledger.aws.session import make_service_client
from chatledger.errors import AccessRefused, InvalidArgument
from chatledger.stores.dynamodb.calls import PATIENCE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

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
