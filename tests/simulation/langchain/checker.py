"""Checks what a schedule does to a history, after each change of the table and for each answer.

The checker decodes the items itself. Each change must be one that an operation under way may make,
and each answer must be what the history was at a moment during its operation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chatledger.errors import ChatledgerError, StoreUnavailable
from chatledger.stores.dynamodb.calls import Item
from tests.simulation.items import Key
from tests.simulation.langchain.table import TTL_ATTRIBUTE

PARTITION = "user#bob"


class Violation(Exception):
    """Something happened that must never happen; its text says what."""


@dataclass(slots=True, eq=False)
class HistoryOperation:
    """An operation on a history, by the drop-in or by the old class."""

    number: int
    client: str
    kind: str
    """``append``, ``read``, ``clear``, ``old append`` or ``old clear``."""
    conversation: str
    arguments: dict[str, Any]
    """``ids`` of new messages, ``keep``, ``consistent``."""
    clock_low: float
    """The time on its client's clock when it began, in seconds since 1970."""
    clock_high: float
    start_step: int
    hints: dict[str, int] = field(default_factory=dict)
    """Unused; the network fills it."""
    is_acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """A history, as its items say that it is."""

    step: int
    exists: bool
    archived: tuple[str, ...] = ()
    """The ids of the messages in archives."""
    recent: tuple[str, ...] = ()
    expires_at: int | None = None
    min_ttl: int | None = None
    is_torn: bool = False
    """True if an archive is missing."""

    @property
    def ids(self) -> tuple[str, ...]:
        return self.archived + self.recent


def state_of(items: Callable[[Key], Item | None], session: str, step: int) -> State:
    """Return the state of a history of a table with a sort key."""
    first = items((PARTITION, session))
    if first is None:
        return State(step, exists=False)
    archives = first.get("chatledger_archives", {}).get("M")
    archived: list[str] = []
    min_ttl: int | None = None
    is_torn = False
    if archives is not None:
        min_ttl = int(archives["min_ttl"]["N"]) if "min_ttl" in archives else None
        for number in range(int(archives["start"]["N"]), int(archives["end"]["N"])):
            archive = items((PARTITION, f"chatledger#{archives['id']['S']}#{number}"))
            is_torn = is_torn or archive is None
            archived += _ids_in(archive)
    ttl = first.get(TTL_ATTRIBUTE)
    return State(
        step,
        exists=True,
        archived=() if is_torn else tuple(archived),
        recent=tuple(_ids_in(first)),
        expires_at=None if ttl is None else int(ttl["N"]),
        min_ttl=min_ttl,
        is_torn=is_torn,
    )


def _ids_in(item: Item | None) -> list[str]:
    elements = (item or {}).get("History", {"L": []})["L"]
    return [element["M"]["data"]["M"]["id"]["S"] for element in elements]


class Checker:
    """Follows one history.

    Args:
        session: Its session.
        max_skew: The most by which a client's clock is ahead (s).
    """

    def __init__(self, session: str, max_skew: float) -> None:
        self.session = session
        self.states = [State(0, exists=False)]
        self.may_leave_archives = False
        """True if the first item was deleted without its archives: by the old class, or by TTL."""
        self._max_skew = max_skew
        self._landed: dict[int, int] = {}
        """For each append that is in the history, the number of times its item was deleted."""
        self._deletions = 0
        self._old_class_wrote = False

    def check_change(self, state: State, operation: HistoryOperation | None, now: float) -> None:
        """Check that the operation, or TTL if it is None, may change the history to ``state``."""
        old = self.states[-1]
        if old.exists and not state.exists:
            self._deletions += 1
            if operation is None or operation.kind == "old clear":
                self.may_leave_archives = True
        if operation is not None and operation.kind == "old append":
            self._old_class_wrote = True
        if not self._old_class_wrote:
            state = replace(state, min_ttl=None)  # the archives live as long as the history
        if replace(state, step=old.step) == old:
            return
        self.states.append(state)
        latest = now + self._max_skew
        may_expire = [ttl for ttl in (state.min_ttl, state.expires_at) if ttl is not None]
        if state.is_torn and not (may_expire and min(may_expire) <= latest):
            raise Violation(f"an archive of {self.session} is missing")
        if state.ids != old.ids:
            self._check_messages(old, state, operation, latest)

    def _check_messages(
        self, old: State, new: State, operation: HistoryOperation | None, latest: float
    ) -> None:
        expired = old.expires_at is not None and old.expires_at <= latest
        archives_expired = expired or (old.min_ttl is not None and old.min_ttl <= latest)
        if (expired and not new.ids) or (archives_expired and new.ids == old.recent):
            return
        if operation is None:
            raise Violation(f"TTL deletes messages of {self.session}: {old} -> {new}")
        ids = operation.arguments.get("ids", ())
        keep = operation.arguments.get("keep")
        match operation.kind:
            case "append" if new.ids == old.ids + ids:
                self._land(operation, old)
            case "append" if keep and len(new.ids) >= keep and _ends_with(old.ids, new.ids):
                pass
            case "clear" | "old clear" if not new.ids:
                pass
            case "old append":
                pass  # it writes what it read, and the new messages
            case _:
                raise Violation(f"{operation.kind} {ids} changes {old.ids} to {new.ids}")

    def _land(self, operation: HistoryOperation, old: State) -> None:
        before = self._landed.get(operation.number)
        # An append that is repeated may land again if the item was deleted meanwhile.
        if before is not None and (before == self._deletions or operation.is_acknowledged):
            raise Violation(f"append {operation.arguments['ids']} is stored twice")
        if old.expires_at is not None and old.ids and old.expires_at <= operation.clock_low:
            raise Violation(f"append {operation.arguments['ids']} revives an expired history")
        self._landed[operation.number] = self._deletions

    def check_answer(self, operation: HistoryOperation, answer: Any) -> None:
        """Check what an operation returned or raised."""
        if isinstance(answer, StoreUnavailable):
            if "Other writers" in str(answer):  # nobody loses a hundred races
                raise Violation(f"{operation.kind} of {self.session} does not end")
            return
        operation.is_acknowledged = True
        if isinstance(answer, ChatledgerError):
            raise Violation(f"{operation.kind} of {self.session} raised {answer!r}")
        current = [n for n, state in enumerate(self.states) if state.step < operation.start_step]
        states = self.states[max(current, default=0) :]
        match operation.kind:
            case "append" if operation.number not in self._landed:
                raise Violation(f"append {operation.arguments['ids']} is lost")
            case "clear" if all(state.ids for state in states):
                raise Violation(f"{self.session} was not cleared")
            case "read":
                seen = states if operation.arguments["consistent"] else self.states
                if not any(_explains(state, answer, operation) for state in seen):
                    raise Violation(f"a read returned {answer}, not one of {_lists(seen)}")

    def check_final(self, read: Sequence[str], time: float) -> None:
        """Check what a new client reads when all others are done."""
        state = self.states[-1]
        expected = [state.ids]
        if state.expires_at is not None and state.expires_at <= time:
            expected = [()]
        elif state.min_ttl is not None and state.min_ttl <= time:
            expected = [state.recent]
        if tuple(read) not in expected:
            raise Violation(f"{self.session} ends as {read}, not {expected}")


def _explains(state: State, answer: Sequence[str], operation: HistoryOperation) -> bool:
    """Return whether a read of a history in this state may return ``answer``."""
    if not answer and state.expires_at is not None and state.expires_at <= operation.clock_high:
        return True
    if state.expires_at is not None and state.expires_at <= operation.clock_low:
        return False
    without_archives = state.min_ttl is not None and state.min_ttl <= operation.clock_high
    return tuple(answer) == state.ids or (without_archives and tuple(answer) == state.recent)


def _ends_with(whole: Sequence[str], end: Sequence[str]) -> bool:
    return whole[len(whole) - len(end) :] == end


def _lists(states: Sequence[State]) -> str:
    return " or ".join(str(list(state.ids)) for state in states)
