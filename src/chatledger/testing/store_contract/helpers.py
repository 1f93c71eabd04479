"""Helpers of the laws: short ways to write to a store and to read from it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier, Event
from typing import Any, NamedTuple, TypeAlias, TypeVar

from chatledger.conversations import MAX_LIMIT, Conversation, Match
from chatledger.errors import ChatledgerError, NotFound
from chatledger.messages import Message, StoredMessage
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.descriptions import ONE
from chatledger.values import new_id

T = TypeVar("T")

TIMEOUT_SECONDS = 60.0
"""The longest that anything may take before the suite considers it stuck."""
LONG_AGO = datetime(2001, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)


def user_messages(*texts: str) -> list[Message]:
    """Return one new message from the user for each text."""
    return [Message.user(text) for text in texts]


def foreign_conversation(revision: int, **fields: Any) -> Conversation:
    """Return a conversation as another store might have it."""
    source = Conversation(
        id=new_id(),
        owner=new_id(),
        **ONE,
        created_at=LONG_AGO,
        updated_at=LONG_AGO + timedelta(hours=1),
        message_count=0,
        revision=revision,
        expires_at=None,
    )
    return replace(source, **fields)


def messages_from(first: int, *texts: str) -> list[StoredMessage]:
    """Return messages with consecutive seqs, from ``first`` on."""
    return [message.with_seq(seq) for seq, message in enumerate(user_messages(*texts), first)]


def texts_of(messages: Iterable[Message]) -> list[str]:
    return [message.text for message in messages]


class Started(NamedTuple):
    """A conversation to which a law does something, as it was at one moment."""

    id: str
    seqs: Sequence[int]
    revision: int
    owner: str | None = None


Change: TypeAlias = Callable[[Store, Started], object]
"""Something that happens to a conversation."""


def start_conversation(
    store: Store,
    *texts: str,
    conversation_id: str | None = None,
    owner: str | None = None,
    expires_in: timedelta | None = None,
) -> Started:
    """Create a conversation and append a message from the user for each of ``texts``."""
    created = store.create(conversation_id, owner=owner, expires_in=expires_in)
    if not texts:
        return Started(created.id, range(0), created.revision, owner)
    appended = store.append(created.id, user_messages(*texts))
    return Started(created.id, appended.seqs, appended.revision, owner)


def read_started(store: Store, conversation_id: str) -> Started:
    """Return the conversation as it now is."""
    conversation, _, seqs = snapshot(store, conversation_id)
    return Started(conversation_id, seqs, conversation.revision, conversation.owner)


class Snapshot(NamedTuple):
    """All that a reader sees of a short conversation.

    The seqs are a field of their own because ``Message.__eq__`` ignores them.
    """

    conversation: Conversation
    messages: list[StoredMessage]
    seqs: list[int]


def snapshot(store: Store, conversation_id: str) -> Snapshot:
    """Return the conversation with all its messages, which must be at most ``MAX_LIMIT``."""
    tail = store.tail(conversation_id, MAX_LIMIT)
    return Snapshot(tail.conversation, tail.messages, [message.seq for message in tail.messages])


def snapshot_if_any(store: Store, conversation_id: str) -> Snapshot | None:
    """Return the conversation with all its messages, or None if there is none."""
    try:
        return snapshot(store, conversation_id)
    except NotFound:
        return None


@contextmanager
def assert_unchanged(store: Store, conversation_id: str) -> Iterator[None]:
    """Assert that the block leaves the conversation as it was, or still missing."""
    before = snapshot_if_any(store, conversation_id)
    yield
    after = snapshot_if_any(store, conversation_id)
    assert after == before
    if before is not None and after is not None:
        # Equal conversations may differ in this one field.
        assert after.conversation.metadata_revision == before.conversation.metadata_revision


def read_all(
    store: Store,
    conversation_id: str,
    *,
    after: int | None = None,
    before: int | None = None,
    limit: int = MAX_LIMIT,
) -> list[StoredMessage]:
    """Return all messages in the range, read page by page."""
    backward = before is not None and after is None
    messages: list[StoredMessage] = []
    while True:
        page = store.page(conversation_id, after=after, before=before, limit=limit)
        assert len(page.messages) <= limit
        messages += page.messages
        seqs = [message.seq for message in messages]
        assert seqs == sorted(set(seqs), reverse=backward)
        if page.next is None:
            return messages
        assert page.messages, "a page that another follows is not empty"
        if backward:
            before = page.next
        else:
            after = page.next


def list_all(store: Store, owner: str, *, limit: int = MAX_LIMIT) -> list[Conversation]:
    """Return all conversations of the owner, read page by page."""
    conversations: list[Conversation] = []
    cursor: str | None = None
    while True:
        listing = store.list(owner, limit=limit, cursor=cursor)
        assert len(listing.conversations) <= limit
        conversations += listing.conversations
        assert len(set(ids_of(conversations))) == len(conversations), "a conversation was repeated"
        if listing.cursor is None:
            return conversations
        assert listing.conversations, "a page that another follows is not empty"
        cursor = listing.cursor


def scan_all(store: Store, *, limit: int = MAX_LIMIT) -> list[Conversation]:
    """Return all conversations of the store, read page by page."""
    conversations: list[Conversation] = []
    cursor: str | None = None
    while True:
        listing = store.scan(limit=limit, cursor=cursor)
        assert len(listing.conversations) <= limit
        conversations += listing.conversations
        if listing.cursor is None:
            return conversations
        assert listing.conversations, "a page that another follows is not empty"
        cursor = listing.cursor


def search_all(store: Store, owner: str, query: str, *, limit: int = MAX_LIMIT) -> list[Match]:
    """Return all matches, call by call."""
    matches: list[Match] = []
    cursor: str | None = None
    while True:
        found = store.search(owner, query, limit=limit, cursor=cursor)
        assert len(found.matches) <= limit
        assert found.complete == (found.cursor is None or len(found.matches) == limit)
        matches += found
        if found.cursor is None:
            return matches
        cursor = found.cursor


def ids_of(conversations: Iterable[Conversation]) -> list[str]:
    return [conversation.id for conversation in conversations]


def race(calls: Sequence[Callable[[], T]]) -> list[T | ChatledgerError]:
    """Run the calls in threads that start at one moment; return what each returned or raised."""
    start = Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | ChatledgerError:
        start.wait(TIMEOUT_SECONDS)
        try:
            return call()
        except ChatledgerError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


@contextmanager
def watch_conversation(store: Store, conversation_id: str) -> Iterator[list[Snapshot | None]]:
    """Read the conversation continuously during the block.

    Yields the list of what was read, which is complete at the end of the block.
    """
    seen: list[Snapshot | None] = []
    done = Event()

    def watch() -> None:
        last = False
        while not last:
            last = done.is_set()  # read once more after the last write
            seen.append(snapshot_if_any(store, conversation_id))

    with ThreadPoolExecutor(1) as reader:
        watching = reader.submit(watch)
        try:
            yield seen
        finally:
            done.set()
        watching.result()


def only_winner(
    outcomes: Sequence[T | ChatledgerError], lost: type[ChatledgerError]
) -> tuple[int, T]:
    """Return the index and the result of the one rival that won; all others got the error."""
    [(winner, result)] = [
        (n, outcome)
        for n, outcome in enumerate(outcomes)
        if not isinstance(outcome, ChatledgerError)
    ]
    assert sum(isinstance(outcome, lost) for outcome in outcomes) == len(outcomes) - 1
    return winner, result


def numbers_by_writer(messages: Iterable[Message]) -> dict[str, list[int]]:
    """Return the numbers that each writer wrote, in order; its texts are such as ``"ada 17"``."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for text in texts_of(messages):
        writer, number = text.split()
        numbers[writer].append(int(number))
    return dict(numbers)


def write_numbers(
    store: Store, conversation_id: str, writer: str, *, appends: int
) -> dict[int, str]:
    """Append the texts ``"<writer> 0"``, ``"<writer> 1"`` and so on; return each by its seq."""
    appended: dict[int, str] = {}
    for number in range(appends):
        text = f"{writer} {number}"
        [seq] = store.append(conversation_id, user_messages(text)).seqs
        appended[seq] = text
    return appended


def append_often(store: Store, conversation: Started) -> None:
    """Append so many messages, one by one, that a store may reorganize the conversation."""
    write_numbers(store, conversation.id, "ada", appends=60)
