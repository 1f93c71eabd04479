"""Calls over a boto3 client, which block; and what botocore's errors say."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from botocore import xform_name
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ParamValidationError,
    ProxyConnectionError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError

from chatledger.library_logs import keep_messages_out_of_logs
from chatledger.stores.dynamodb.calls import (
    NO_ANSWER,
    PATIENCE,
    Call,
    CallFailed,
    Plan,
    patient,
    run,
)
from chatledger.stores.dynamodb.errors import NO_CREDENTIALS, answered, translated, unanswered
from chatledger.stores.dynamodb.table import Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

_ON_THE_WAY = (
    ChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoConnection,
    ResponseParserError,
)
_NOT_CONNECTED = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)


class Boto3Calls:
    """Makes each call with ``client``.

    One that fails for a while is tried again for ``patience`` seconds.
    """

    def __init__(self, client: "DynamoDBClient", *, patience: float = PATIENCE) -> None:
        keep_messages_out_of_logs()
        self._client = client
        self._patience = patience
        config: Any = client.meta.config
        self._tries_once = (config.retries or {}).get("total_max_attempts") == 1

    def run(self, plan: Plan[T], table: Table) -> T:
        """What the plan returns."""
        tried = patient(
            plan, seconds=self._patience, monotonic=table.monotonic, random=table.random
        )
        try:
            return run(tried, self.perform, time.sleep)
        except CallFailed as failed:
            raise translated(failed, table.name) from failed.__cause__

    def perform(self, call: Call) -> Any:
        """The reply. Raises ``CallFailed``."""
        try:
            reply = getattr(self._client, xform_name(call.operation))(**call.params)
            _check_origin(reply)
            return reply
        except ParamValidationError:
            raise  # a fault of ours, no answer of theirs
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            raise failure(error, call.operation, tries_once=self._tries_once) from error


def _check_origin(reply: Mapping[str, Any]) -> None:
    """Raise ``ResponseParserError`` where it is not of DynamoDB's: a page of a proxy's, say.

    botocore takes what is no JSON for a reply that says nothing, and so a write for done.
    """
    headers = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if "json" not in (kind := headers.get("content-type", "json")):
        raise ResponseParserError(f"The reply is of type {kind}.")


def failure(error: Exception, operation: str, *, tries_once: bool) -> CallFailed:
    """What botocore's error says of a call of that operation.

    ``tries_once`` says that botocore makes no tries of its own, of which the error tells nothing.
    """
    if isinstance(error, ClientError):
        return _refusal(error, operation)
    if isinstance(error, _ON_THE_WAY):
        connected = not isinstance(error, _NOT_CONNECTED)
        return unanswered(error, connected=connected, tries=1 if tries_once else 2)
    # What is left arises before anything is sent: a profile, a sign-in or a role that is missing.
    return CallFailed(NO_CREDENTIALS, str(error))


def _refusal(error: ClientError, operation: str) -> CallFailed:
    reply: Any = error.response
    about = reply.get("ResponseMetadata", {})
    failed = answered(
        reply["Error"].get("Code", ""),
        reply["Error"].get("Message", ""),
        status=about.get("HTTPStatusCode", 0),
        reply=reply,
        tries=1 + about.get("RetryAttempts", 0),
    )
    if error.operation_name == operation:
        return failed
    # It is the service that gives out credentials that refused.
    return CallFailed(NO_ANSWER if failed.unknown else NO_CREDENTIALS, str(error))
