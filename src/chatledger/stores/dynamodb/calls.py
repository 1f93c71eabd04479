"""Plans: operations as a series of calls to DynamoDB, without a client and without I/O.

A plan is a generator: it yields ``Call`` or ``Wait``, is sent the call's reply (or has
``CallFailed`` thrown into it), and returns its result. So the logic that can go wrong is written
once, and runs over a boto3 client, over an async one, or in a simulation that interleaves plans.
"""

from collections.abc import Callable, Generator
from random import Random
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias, TypeVar

from chatledger.backoff import backoff
from chatledger.errors import InvalidArgument, StoreUnavailable
from chatledger.stores.operations import CallOutcome, OnCall, StoreCall, report

Attribute: TypeAlias = dict[str, Any]
Item: TypeAlias = dict[str, Attribute]
"""An item in DynamoDB's own JSON, such as ``{"pk": {"S": "c#1"}}``; ``B`` holds bytes."""


class Call(NamedTuple):
    """A request to DynamoDB."""

    operation: str
    """DynamoDB's name of the operation, such as ``PutItem``."""
    params: dict[str, Any]
    patience: float | None = None
    """How long (s) the call is retried; None for as long as the store is set to."""


class Wait(NamedTuple):
    """A pause before the next call."""

    seconds: float


class CallFailed(Exception):
    """The reply to a call was an error, or there was no reply.

    Attributes:
        code: DynamoDB's error code, or ``NoReply`` if there was no reply.
        message: DynamoDB's error message, or the reason why there was no reply.
        item: The item that did not meet the condition.
        reasons: The reasons why a transaction was cancelled. For each of its parts, the code and
            the existing item, or None and None if the part was not the reason.
        unknown: True if the outcome is unknown: the call may have taken effect.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        item: Item | None = None,
        reasons: "tuple[tuple[str | None, Item | None], ...]" = (),
        unknown: bool = False,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.item = item
        self.reasons = reasons
        self.unknown = unknown


T = TypeVar("T")
Plan: TypeAlias = Generator[Call | Wait, Any, T]

NO_REPLY = "NoReply"
CONDITION_FAILED = "ConditionalCheckFailedException"
CANCELLED = "TransactionCanceledException"
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
TRANSIENT = frozenset(
    {
        NO_REPLY,
        "InternalServerError",
        "ReplicatedWriteConflictException",
        "ServiceUnavailable",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
_TRANSIENT_REASONS = frozenset(
    {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
)
"""The reasons, among those of a cancelled transaction, that may be gone in another attempt."""
_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ThrottlingException",
    }
)
_CONFLICTS = frozenset(
    {
        CONDITION_FAILED,
        "ConditionalCheckFailed",
        "ReplicatedWriteConflictException",
        "TransactionConflict",
        "TransactionConflictException",
    }
)
"""The codes and reasons of calls that failed because another writer was first."""
REPORTING_UNITS = frozenset(
    {
        *("GetItem", "Query", "Scan", "PutItem", "UpdateItem", "DeleteItem"),
        *("BatchGetItem", "BatchWriteItem", "TransactGetItems", "TransactWriteItems"),
    }
)
"""The operations that can report the capacity units that they consume."""
READS = frozenset(
    {"GetItem", "BatchGetItem", "Query", "Scan", "DescribeTable", "DescribeTimeToLive"}
)
"""The operations that change nothing."""
PATIENCE = 20.0
"""How long (s) a call is retried while DynamoDB throttles or does not reply."""
FIRST_WAIT, LONGEST_WAIT = 0.025, 2.0
"""Bounds (s) of the waits between attempts."""
LONGEST_RETRY = 600_000
"""For how long (ms) by the wall clock a write is retried."""


def through(plan: Plan[T], take: Callable[[Call | Wait], Plan[Any]]) -> Plan[T]:
    """Run ``plan``, with each of its steps replaced by the plan that ``take`` returns for it."""
    reply: Any = None
    failed: Exception | None = None
    while True:
        try:
            step = plan.throw(failed) if failed else plan.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
        reply, failed = None, None
        try:
            reply = yield from take(step)
        except (CallFailed, StoreUnavailable) as error:
            failed = error


def patient(
    plan: Plan[T],
    *,
    seconds: float,
    monotonic: Callable[[], float],
    random: Random,
    time: Callable[[], int],
) -> Plan[T]:
    """Run ``plan``, and retry each of its calls that fails temporarily.

    Every call of a plan may be retried: a write is conditional and has a token, by which the plan
    recognises it, or may safely be made twice. If a call keeps failing for ``seconds``,
    ``StoreUnavailable`` is thrown into the plan; other failures, such as a failed condition, are
    thrown into it at once.

    Args:
        plan: The plan.
        seconds: How long a call is retried.
        monotonic: The monotonic clock, in seconds.
        random: The source of jitter.
        time: The wall clock, in ms, by which a write is no longer retried after
            ``LONGEST_RETRY``: the monotonic clock stands still while the process is frozen, and
            what the write relies on holds for an hour only.
    """
    return through(plan, lambda step: _retry(step, seconds, monotonic, random, time))


def paced(plan: Plan[T], units_per_second: float | None) -> Plan[T]:
    """Run ``plan`` with pauses, so that it consumes at most that many capacity units a second.

    Raises:
        InvalidArgument: ``units_per_second`` is not greater than 0.
    """
    if units_per_second is None:
        return plan
    if not units_per_second > 0:
        raise InvalidArgument("units_per_second must be greater than 0.")
    return through(plan, lambda step: _throttle(step, units_per_second))


def _throttle(step: Call | Wait, units_per_second: float) -> Plan[Any]:
    if isinstance(step, Wait):
        return (yield step)
    try:
        reply = yield step._replace(params=step.params | {"ReturnConsumedCapacity": "TOTAL"})
    except (CallFailed, StoreUnavailable):
        yield Wait(1 / units_per_second)
        raise
    yield Wait((_consumed_units(reply) or 0.0) / units_per_second)
    return reply


def _consumed_units(reply: dict[str, Any]) -> float | None:
    """Return the capacity units that the reply reports, or None if it does not report any."""
    consumed = reply.get("ConsumedCapacity", [])
    tables = consumed if isinstance(consumed, list) else [consumed]
    return sum(table["CapacityUnits"] for table in tables) if tables else None


def reported(plan: Plan[T], on_call: OnCall | None) -> Plan[T]:
    """Run ``plan``, and report each of its calls to ``on_call``, if any, with its units."""
    return plan if on_call is None else through(plan, _Reporter(on_call))


class _Reporter:
    """Reports the calls of one plan."""

    def __init__(self, on_call: OnCall) -> None:
        self._on_call = on_call
        self._last: Call | Wait | None = None
        self._attempt = 0

    def __call__(self, step: Call | Wait) -> Plan[Any]:
        if isinstance(step, Wait):
            return (yield step)
        # ``patient`` yields the same object for every attempt.
        self._attempt = self._attempt + 1 if step is self._last else 1
        self._last = step
        call = step
        if step.operation in REPORTING_UNITS:
            call = step._replace(params=step.params | {"ReturnConsumedCapacity": "TOTAL"})
        started, failure = perf_counter(), None
        try:
            reply = yield call
        except CallFailed as failed:
            reply, failure = {}, failed
        outcome = StoreCall(
            operation=step.operation,
            outcome="ok" if failure is None else _outcome_of(failure),
            seconds=perf_counter() - started,
            attempt=self._attempt,
            units=_consumed_units(reply),
            error=None if failure is None else failure.code,
        )
        report(self._on_call, outcome)
        if failure is not None:
            raise failure
        return reply


def _retry(
    step: Call | Wait,
    patience: float,
    monotonic: Callable[[], float],
    random: Random,
    time: Callable[[], int],
) -> Plan[Any]:
    if isinstance(step, Wait):
        return (yield step)
    deadline = monotonic() + (patience if step.patience is None else step.patience)
    started = None if step.operation in READS else time()
    unknown, attempt = False, 0
    while True:
        try:
            return (yield step)
        except CallFailed as failed:
            # An earlier attempt may have taken effect, even if this one did not.
            unknown = failed.unknown = step.operation not in READS and (failed.unknown or unknown)
            if not _is_transient(failed):
                raise
            pause = backoff(random, attempt, first=FIRST_WAIT, longest=LONGEST_WAIT)
            if monotonic() + pause > deadline:
                why = (failed.code == NO_REPLY and failed.message) or failed.code
                raise StoreUnavailable(
                    f"DynamoDB did not complete {step.operation} in time ({why}); try again later.",
                    may_have_landed=unknown,
                ) from failed
            yield Wait(pause)
            if started is not None and time() - started > LONGEST_RETRY:
                raise StoreUnavailable(
                    f"{step.operation} was interrupted for minutes; try again.",
                    may_have_landed=unknown,
                ) from failed
            attempt += 1


def try_write(call: Call) -> Plan[bool]:
    """Make a conditional write; return False if its condition failed."""
    try:
        yield call
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
        return False
    return True


def _is_transient(failed: CallFailed) -> bool:
    # A transaction is cancelled as a whole; retry it if the only reasons are other transactions or
    # throttling.
    return _codes(failed) <= TRANSIENT | _TRANSIENT_REASONS


def _outcome_of(failed: CallFailed) -> CallOutcome:
    codes = _codes(failed)
    if codes & _THROTTLED:
        return "throttled"
    return "conflict" if codes & _CONFLICTS else "failed"


def _codes(failed: CallFailed) -> set[str]:
    """Return the codes of the reasons why a transaction was cancelled, or else the error's own."""
    return {code for code, _ in failed.reasons if code} or {failed.code}
