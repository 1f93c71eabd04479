"""Plans: what to ask of DynamoDB, one call after another, without a client and without I/O.

A plan is a generator: it yields ``Call`` or ``Wait``, is sent the call's reply (or thrown
``CallFailed``), and returns its result. So the logic that goes wrong is written once, and is driven
by a boto3 client, by an async one, or by a simulation that interleaves many.
"""

from collections.abc import Awaitable, Callable, Generator
from random import Random
from typing import Any, NamedTuple, TypeAlias, TypeVar

from chatledger.errors import InvalidArgument, StoreUnavailable

Attribute: TypeAlias = dict[str, Any]
Item: TypeAlias = dict[str, Attribute]
"""An item as DynamoDB's own JSON has it, such as ``{"pk": {"S": "c#1"}}``; ``B`` holds bytes."""


class Call(NamedTuple):
    """A request: the operation by DynamoDB's name for it, such as ``PutItem``.

    ``once`` says that it must not be sent again where an earlier try may still arrive; the plan is
    thrown that failure.
    """

    operation: str
    params: dict[str, Any]
    once: bool = False


class Wait(NamedTuple):
    """A pause before the next call."""

    seconds: float


class CallFailed(Exception):
    """A call was answered with an error, or not at all.

    ``code`` is DynamoDB's (``ConditionalCheckFailedException``) or, where none came back,
    ``NoAnswer``. ``item`` is what stood in a failed condition's way. ``reasons`` are those of a
    cancelled transaction, an entry a part: a code and an item, or two times None. ``unknown`` says
    that the call may have taken effect all the same.
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

NO_ANSWER = "NoAnswer"
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
TRANSIENT = frozenset(
    {
        NO_ANSWER,
        "InternalServerError",
        "ServiceUnavailable",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
PATIENCE = 20.0
"""Seconds that a call is tried again for, while DynamoDB throttles or does not answer."""
FIRST_WAIT = 0.025
LONGEST_WAIT = 2.0


def run(plan: Plan[T], perform: Callable[[Call], Any], sleep: Callable[[float], None]) -> T:
    """Drive ``plan`` to its result with calls that block."""
    reply: Any = None
    failed: CallFailed | None = None
    while True:
        try:
            step = plan.throw(failed) if failed else plan.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
        reply, failed = None, None
        try:
            if isinstance(step, Wait):
                sleep(step.seconds)
            else:
                reply = perform(step)
        except CallFailed as error:
            failed = error


async def arun(
    plan: Plan[T],
    perform: Callable[[Call], Awaitable[Any]],
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """Drive ``plan`` to its result with calls that are awaited."""
    reply: Any = None
    failed: CallFailed | None = None
    while True:
        try:
            step = plan.throw(failed) if failed else plan.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
        reply, failed = None, None
        try:
            if isinstance(step, Wait):
                await sleep(step.seconds)
            else:
                reply = await perform(step)
        except CallFailed as error:
            failed = error


def patient(
    plan: Plan[T], *, seconds: float, monotonic: Callable[[], float], random: Random
) -> Plan[T]:
    """``plan``, each of its calls tried again while it fails for a while, with full jitter.

    Trying again is right for every call of a plan that is not to be sent ``once``: those that write
    are conditional and bear a token, so that a plan recognises its own. Where a call goes on
    failing for ``seconds``, the plan is thrown ``StoreUnavailable``; a failed condition it is
    thrown at once.
    """
    return through(plan, lambda step: _tried(step, monotonic() + seconds, monotonic, random))


def paced(plan: Plan[T], units_per_second: float | None) -> Plan[T]:
    """``plan``, made to pause so that it takes no more capacity units a second than that."""
    if units_per_second is None:
        return plan
    if not units_per_second > 0:
        raise InvalidArgument("units_per_second must be over 0.")
    return through(plan, lambda step: _slowly(step, units_per_second))


def through(plan: Plan[T], take: Callable[[Call | Wait], Plan[Any]]) -> Plan[T]:
    """``plan``, with each of its steps taken as ``take`` says, by further steps."""
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


def _slowly(step: Call | Wait, units_per_second: float) -> Plan[Any]:
    if isinstance(step, Wait):
        return (yield step)
    try:
        reply = yield step._replace(params=step.params | {"ReturnConsumedCapacity": "TOTAL"})
    except (CallFailed, StoreUnavailable):
        yield Wait(1 / units_per_second)
        raise
    consumed = reply.get("ConsumedCapacity", [])
    tables = consumed if isinstance(consumed, list) else [consumed]
    yield Wait(sum(table["CapacityUnits"] for table in tables) / units_per_second)
    return reply


def _tried(
    step: Call | Wait, deadline: float, monotonic: Callable[[], float], random: Random
) -> Plan[Any]:
    longest = FIRST_WAIT
    unknown = False
    while True:
        try:
            return (yield step)
        except CallFailed as failed:
            # What an earlier try may have done is as unknown as what this one may have.
            unknown = failed.unknown = _writes(step) and (failed.unknown or unknown)
            if not _is_transient(failed) or (isinstance(step, Call) and step.once and unknown):
                raise
            # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
            pause = random.uniform(0, longest)
            if monotonic() + pause > deadline:
                why = (failed.code == NO_ANSWER and failed.message) or failed.code
                raise StoreUnavailable(
                    f"DynamoDB did not do {_operation(step)} in time ({why}); try again later.",
                    may_have_landed=unknown,
                ) from failed
            yield Wait(pause)
            longest = min(longest * 2, LONGEST_WAIT)


READS = frozenset(
    {"GetItem", "BatchGetItem", "Query", "Scan", "DescribeTable", "DescribeTimeToLive"}
)


def _is_transient(failed: CallFailed) -> bool:
    # A transaction is cancelled as a whole; it is worth another try where nothing but others'
    # transactions or throttling stood in its way.
    codes = {code for code, _ in failed.reasons if code} or {failed.code}
    return all(code in TRANSIENT | _CANCELLED for code in codes)


_CANCELLED = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}


def _writes(step: Call | Wait) -> bool:
    return isinstance(step, Call) and step.operation not in READS


def _operation(step: Call | Wait) -> str:
    return step.operation if isinstance(step, Call) else "nothing"
