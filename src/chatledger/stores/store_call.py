"""The calls that a store makes, as it reports them to a function of the program."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, TypeAlias

from chatledger.errors import AlreadyExists, ChatledgerError, Conflict, StoreUnavailable

CallOutcome: TypeAlias = Literal["ok", "conflict", "throttled", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCall:
    """A request to DynamoDB, or a transaction in SQLite, that has ended.

    Attributes:
        operation: DynamoDB's name of the request, such as ``PutItem``; in SQLite the name of the
            store's operation, such as ``Append``.
        outcome: ``conflict`` if another writer was first, ``throttled`` if DynamoDB asked to slow
            down, ``failed`` if there was no answer or another error, else ``ok``.
        seconds: The time that it took. In SQLite this includes the wait for other writers.
        attempt: 1, or more for a request that is made again.
        units: The capacity units that it consumed, as DynamoDB reports them; None if it does not,
            as for a request that failed.
        error: DynamoDB's code of the error, or the type of the error in SQLite; None if ``ok``.
    """

    operation: str
    outcome: CallOutcome
    seconds: float
    attempt: int = 1
    units: float | None = None
    error: str | None = None


OnCall: TypeAlias = Callable[[StoreCall], None]
"""A function that is called after each call of a store, in the thread that made the call.

It should return quickly. An error that it raises changes nothing; its type is logged. It is not
called for a call whose caller did not wait for the end.
"""


def report(on_call: OnCall, call: StoreCall) -> None:
    """Call ``on_call``; log its error instead of raising it."""
    try:
        on_call(call)
    except Exception as error:
        import logging  # here, because most programs that import Chatledger have no use for it

        logger = logging.getLogger("chatledger.stores")
        logger.error("The on_call function of a store raised %s.", type(error).__name__)


def timed(on_call: OnCall | None, operation: str) -> AbstractContextManager[None]:
    """Return a context for a transaction in SQLite, which is reported to ``on_call``, if any."""
    return nullcontext() if on_call is None else _Timed(on_call, operation)


class _Timed:
    def __init__(self, on_call: OnCall, operation: str) -> None:
        self._on_call = on_call
        self._operation = operation

    def __enter__(self) -> None:
        self._started_at = perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and not isinstance(error, Exception):
            return  # the caller left, and the outcome is unknown
        outcome = _outcome(error)
        call = StoreCall(
            operation=self._operation,
            outcome=outcome,
            seconds=perf_counter() - self._started_at,
            error=None if outcome == "ok" else type(error).__name__,
        )
        report(self._on_call, call)


def _outcome(error: Exception | None) -> CallOutcome:
    match error:
        case Conflict() | AlreadyExists():
            return "conflict"
        case StoreUnavailable():
            return "failed"
        case None | ChatledgerError():  # such as NotFound, which is an answer
            return "ok"
    return "failed"
