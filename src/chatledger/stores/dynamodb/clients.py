"""A boto3 client as a store wants it; region, address and credentials as botocore finds them."""

from typing import TYPE_CHECKING, TypeAlias

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, NoRegionError

from chatledger.errors import AccessRefused, InvalidArgument
from chatledger.stores.dynamodb.calls import PATIENCE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Session: TypeAlias = boto3.Session | botocore.session.Session

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
CONNECTIONS = 50


def session_of(given: Session | None) -> boto3.Session:
    """The session that was given, or a new one."""
    if isinstance(given, botocore.session.Session):
        return boto3.Session(botocore_session=given)
    # Not boto3's default one: clients may not be made of it in two threads at a time.
    return given or boto3.Session()


def make_client(
    session: boto3.Session, *, region: str | None, endpoint: str | None, patience: float = PATIENCE
) -> "DynamoDBClient":
    """A client that fails early and once: a store makes the further tries, and knows of each.

    It waits no longer than ``patience`` seconds for one reply.

    Raises ``InvalidArgument`` and ``AccessRefused``.
    """
    config = Config(
        connect_timeout=min(CONNECT_SECONDS, patience),
        read_timeout=min(READ_SECONDS, patience),
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    try:
        return session.client("dynamodb", region_name=region, endpoint_url=endpoint, config=config)
    except NoRegionError as failed:
        raise InvalidArgument(
            "No AWS region is named; write region=eu-west-1, say, or set AWS_DEFAULT_REGION."
        ) from failed
    except ValueError as failed:
        why = str(failed).rstrip(".")
        raise InvalidArgument(f"DynamoDB cannot be reached there: {why}.") from failed
    except BotoCoreError as failed:
        raise AccessRefused(f"AWS cannot be called with this configuration: {failed}") from failed
