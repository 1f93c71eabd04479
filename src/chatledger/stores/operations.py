"""The operations of the contract as values, and the calls that a store makes to perform them.

The fields of operations are checked and in the form in which stores keep them: an empty title is
None, and messages are JSON texts. A store does not change them. ``Store`` documents what each
operation does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar, dataclass_transform

from chatledger.conversations import (
    Appended,
    Conversation,
    Description,
    Found,
    Listing,
    Page,
    Tail,
    given_fields_of,
)
from chatledger.entries import Entries, Entry
from chatledger.errors import Conflict, NotFound
from chatledger.messages import StoredMessage
from chatledger.stores.cursors import SearchPlace
from chatledger.stores.idempotency import Creation
from chatledger.stores.words import Query
from chatledger.values import Json

T_co = TypeVar("T_co", covariant=True)


@dataclass_transform(eq_default=False)
class Operation(Generic[T_co]):
    """An operation with its arguments; ``T_co`` is the type of its result.

    Subclasses are written as dataclasses are, but need no decorator, which would generate code for
    each of them at every import. They have no ``repr``, which would show messages.
    """

    def __init__(self, *values: Any, **named: Any) -> None:
        names, fields = type(self).__annotations__, self.__dict__
        fields.update(zip(names, values, strict=False))
        fields.update(named)
        if fields.keys() != names.keys() or len(names) != len(values) + len(named):
            raise TypeError(f"{type(self).__name__} takes exactly {', '.join(names)}.")


class Beginning(NamedTuple):
    """The fields with which a conversation begins."""

    description: Description
    expires_in: timedelta | None
    """Its lifetime; None gives it the store's."""

    @property
    def identity(self) -> tuple[object, ...]:
        """The values by which ``Creation`` tells calls apart; each must be JSON or timedelta.

        A field that was added to descriptions later counts only if it is given, so that a call
        can repeat one that an earlier version performed.
        """
        others = given_fields_of(self.description)
        title, metadata = others.pop("title", None), others.pop("metadata", {})
        return (title, metadata, self.expires_in, *([others] if others else ()))


class Create(Operation[Conversation]):
    """``Store.create``."""

    conversation_id: str
    owner: str | None
    beginning: Beginning
    creation: Creation | None
    """Identifies the call if it has an idempotency key."""
    id_is_new: bool
    """True if the id was drawn for this call, so that no conversation can have it."""


class Append(Operation[Appended]):
    """``Store.append``."""

    conversation_id: str
    texts: list[str]
    owner: str | None
    revision: int | None
    idempotency_key: str | None
    fingerprint: str
    """Identifies the messages if there is an idempotency key; otherwise empty."""
    truncate_after: int | None
    reply_follows: bool
    beginning: Beginning


class Get(Operation[Conversation]):
    """``Store.get``."""

    conversation_id: str
    owner: str | None


class ReadTail(Operation[Tail]):
    """``Store.tail``."""

    conversation_id: str
    limit: int
    owner: str | None


class ReadPage(Operation[Page]):
    """``Store.page``."""

    conversation_id: str
    after: int | None
    before: int | None
    limit: int
    owner: str | None

    @property
    def is_backward(self) -> bool:
        """Whether the newest message comes first."""
        return self.after is None and self.before is not None


class ListOwned(Operation[Listing]):
    """``Store.list``."""

    owner: str
    limit: int
    cursor: str | None


class Scan(Operation[Listing]):
    """``Store.scan``."""

    limit: int
    cursor: str | None


class Search(Operation[Found]):
    """``Store.search``."""

    owner: str
    query: Query
    limit: int
    place: SearchPlace
    """Where the search begins: at first before every conversation."""


class Restore(Operation[Conversation]):
    """``Store.restore``."""

    conversation: Conversation
    texts: list[str]
    revision: int
    """The revision that the conversation must have; the first text gets the next seq."""

    @property
    def lifetime(self) -> timedelta | None:
        """The lifetime computed from the conversation's times; None if it does not expire."""
        given = self.conversation
        if given.expires_at is None:
            return None
        # If the clock was set back before the last change, the difference is too small.
        return max(given.expires_at - given.updated_at, timedelta(seconds=1))


class Update(Operation[Conversation]):
    """``Store.update``."""

    conversation_id: str
    changes: Mapping[str, Any]
    """The new values of fields of the description, by name."""
    revision: int | None
    metadata_revision: int | None
    owner: str | None


class Claim(Operation[Conversation]):
    """``Store.claim``."""

    conversation_id: str
    owner: str


class Truncate(Operation[Conversation]):
    """``Store.truncate``, or ``Store.clear`` if ``after`` is 0."""

    conversation_id: str
    after: int
    owner: str | None


class Pop(Operation[list[StoredMessage]]):
    """``Store.pop``."""

    conversation_id: str
    limit: int
    owner: str | None


class Rewrite(Operation[Conversation]):
    """``Store.replace``, or ``Store.remove`` if there is no ``text``."""

    conversation_id: str
    seq: int
    text: str | None
    revision: int | None
    owner: str | None


class Fork(Operation[Conversation]):
    """``Store.fork``."""

    conversation_id: str
    at: int | None
    new_id: str
    expires_in: timedelta | None
    """The lifetime of the copy; None gives it that of the original."""
    owner: str | None
    creation: Creation | None


class EntryKey(NamedTuple):
    """The name of an entry, and whose it is."""

    conversation_id: str | None
    """None if the entry belongs to ``owner``; otherwise ``owner`` is the caller's."""
    owner: str | None
    name: str

    def not_found(self) -> NotFound:
        """Return the error to raise if there is no such entry."""
        return NotFound(self.conversation_id, entry=self.name, owner=self.owner)

    def check_revision(self, expected: int | None, found: int) -> None:
        """Raise ``Conflict`` unless the entry has the revision that the caller expects, if any."""
        if expected is not None and expected != found:
            raise Conflict(
                self.conversation_id,
                expected=expected,
                revision=found,
                entry=self.name,
                owner=self.owner,
            )


class PutEntry(Operation[Entry]):
    """``Store.put_entry``."""

    key: EntryKey
    value: Json
    text: str
    """The value as JSON."""
    revision: int | None
    expires_in: timedelta | None

    def check(self, found: int | None) -> None:
        """Raise the error of a put if the entry has the revision ``found``, or is missing."""
        self.key.check_revision(self.revision, found or 0)


class GetEntry(Operation[Entry]):
    """``Store.entry``."""

    key: EntryKey


class ListEntries(Operation[Entries]):
    """``Store.entries``."""

    conversation_id: str | None
    owner: str | None
    prefix: str
    limit: int
    after: str | None
    """Only entries whose names come after this one."""


class DeleteEntry(Operation[None]):
    """``Store.delete_entry``."""

    key: EntryKey
    revision: int | None

    def check(self, found: int | None) -> None:
        """Raise the error of a deletion if the entry has the revision ``found``, or is missing."""
        if found is None:
            raise self.key.not_found()
        self.key.check_revision(self.revision, found)


class Delete(Operation[None]):
    """``Store.delete``."""

    conversation_id: str
    revision: int | None
    owner: str | None


class DeleteOwner(Operation[int]):
    """``Store.delete_owner``."""

    owner: str


class Sweep(Operation[int]):
    """``Store.sweep``."""


# The calls that a store makes to perform them -----------------------------------------------------

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
