"""Calls over a boto3 client, which block, and the meaning of botocore's errors."""

import time
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError
from botocore.parsers import ResponseParserError

from chatledger.aws.errors import CONNECTION_PROBLEMS, REQUEST_ERRORS, Problem, problem_of
from chatledger.aws.session import keep_messages_out_of_logs
from chatledger.sansio import run
from chatledger.stores.dynamodb.calls import PATIENCE, Call, CallFailed, Plan, Wait, patient
from chatledger.stores.dynamodb.errors import (
    NO_CREDENTIALS,
    failure_from_reply,
    failure_without_reply,
    store_error,
)
from chatledger.stores.dynamodb.table import Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

_JITTER = Random()  # noqa: S311  not used for anything secret


class Boto3Calls:
    """Runs plans with a boto3 client.

    A call that fails temporarily is tried again for ``patience`` seconds.
    """

    def __init__(self, client: "DynamoDBClient", *, patience: float = PATIENCE) -> None:
        keep_messages_out_of_logs()
        self._client = client
        self._patience = patience
        config: Any = client.meta.config
        self._single_attempt = (config.retries or {}).get("total_max_attempts") == 1

    def run(self, plan: Plan[T], table: Table) -> T:
        """Run ``plan`` to its result, and translate a failure that it does not handle."""
        try:
            return self.run_untranslated(
                plan, monotonic=table.monotonic, random=table.random, clock=table.time
            )
        except CallFailed as failed:
            raise store_error(failed, table.name) from failed.__cause__

    def run_untranslated(
        self,
        plan: Plan[T],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        random: Random = _JITTER,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> T:
        """Run ``plan`` to its result; raise ``CallFailed`` for a failure that it does not handle.

        Args:
            plan: The plan.
            monotonic: The monotonic clock (s).
            random: The source of jitter.
            clock: The wall clock (ms).
        """
        retrying = patient(
            plan, seconds=self._patience, monotonic=monotonic, random=random, time=clock
        )
        return run(retrying, self.perform, catch=CallFailed)

    def perform(self, call: Call | Wait) -> Any:
        """Make one call and return the reply, or wait. Raises ``CallFailed``."""
        if isinstance(call, Wait):
            return time.sleep(call.seconds)
        try:
            reply = getattr(self._client, xform_name(call.operation))(**call.params)
            _check_content_type(reply)
            return reply
        except ParamValidationError:
            raise  # a bug of the plan; nothing was sent
        except REQUEST_ERRORS as error:
            raise failure_from_boto3(
                error, call.operation, single_attempt=self._single_attempt
            ) from error


def _check_content_type(reply: Mapping[str, Any]) -> None:
    """Raise ``ResponseParserError`` unless the reply is JSON.

    botocore turns a body that is not JSON, such as the page of a proxy, into an empty reply; a
    write would then seem to have succeeded.
    """
    headers = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    content_type = headers.get("content-type", "json")
    if "json" not in content_type:
        raise ResponseParserError(f"The reply has the content type {content_type}.")


def failure_from_boto3(error: Exception, operation: str, *, single_attempt: bool) -> CallFailed:
    """Return the failure of a call that raised one of botocore's errors.

    Args:
        error: The error.
        operation: The call's operation.
        single_attempt: Whether the client makes only one attempt. The error does not say how many
            it made, and an earlier one may have taken effect.
    """
    if isinstance(error, ClientError) and error.operation_name == operation:
        return _failure_from_client_error(error)
    problem = problem_of(error)
    if problem not in CONNECTION_PROBLEMS:
        # Nothing was sent: a profile, a sign-in or a role is missing, or the service that issues
        # credentials refused to.
        return CallFailed(NO_CREDENTIALS, str(error))
    return failure_without_reply(
        error, connected=problem is not Problem.UNREACHABLE, attempts=1 if single_attempt else 2
    )


def _failure_from_client_error(error: ClientError) -> CallFailed:
    reply: Any = error.response
    metadata = reply.get("ResponseMetadata", {})
    return failure_from_reply(
        reply["Error"].get("Code", ""),
        reply["Error"].get("Message", ""),
        status=metadata.get("HTTPStatusCode", 0),
        reply=reply,
        attempts=1 + metadata.get("RetryAttempts", 0),
    )
