"""Calls over a boto3 client, which block."""

import time
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from botocore import xform_name
from botocore.exceptions import ParamValidationError
from botocore.parsers import ResponseParserError

from chatledger.aws.errors import REQUEST_ERRORS
from chatledger.extras import keep_messages_out_of_logs
from chatledger.sansio import run
from chatledger.stores.dynamodb.calls import (
    PATIENCE,
    Call,
    CallFailed,
    Plan,
    Wait,
    patient,
    reported,
)
from chatledger.stores.dynamodb.errors import failure_from_error, store_error
from chatledger.stores.dynamodb.table import Table
from chatledger.stores.operations import OnCall

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

_JITTER = Random()  # noqa: S311  not used for anything secret


class Boto3Calls:
    """Runs plans with a boto3 client.

    A call that fails temporarily is tried again for ``patience`` seconds.
    """

    def __init__(
        self, client: "DynamoDBClient", *, patience: float = PATIENCE, on_call: OnCall | None = None
    ) -> None:
        keep_messages_out_of_logs("botocore")
        self._on_call = on_call
        self._client = client
        self._patience = patience
        config: Any = client.meta.config
        self._single_attempt = (config.retries or {}).get("total_max_attempts") == 1

    def run(self, plan: Plan[T], table: Table) -> T:
        """Run ``plan`` to its result, and translate a failure that it does not handle."""
        try:
            return self.run_untranslated(
                table.compare_clock(plan),
                monotonic=table.monotonic,
                random=table.random,
                clock=table.time,
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
        return run(reported(retrying, self._on_call), self.perform, catch=CallFailed)

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
            raise failure_from_error(
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
