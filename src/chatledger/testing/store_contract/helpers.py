"""The words that the laws are written in."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from threading import Barrier, Event
from typing import NamedTuple, TypeAlias, TypeVar

from chatledger.conversations import LIMIT, Conversation
from chatledger.errors import ChatledgerError, NotFound
from chatledger.messages import Message, new_id
from chatledger.stores.contract import Store

T = TypeVar("T")

SECONDS = 60.0
"""How long anything may take before the suite takes it for stuck."""


def say(*texts: str) -> list[Message]:
    return [Message.user(text) for text in texts]


def said(messages: Iterable[Message]) -> list[str]:
    return [message.text for message in messages]


def seq_of(message: Message) -> int:
    assert message.seq is not None, "a message that was read says where it is"
    return message.seq


class Begun(NamedTuple):
    """A conversation as it stood after its first append."""

    id: str
    seqs: range
    revision: int


def begin(
    store: Store,
    *texts: str,
    conversation_id: str | None = None,
    owner: str | None = None,
    expires_in: timedelta | None = None,
) -> Begun:
    """A conversation that holds ``texts``."""
    begun = store.create(conversation_id, owner=owner, expires_in=expires_in)
    if not texts:
        return Begun(begun.id, range(0), begun.revision)
    appended = store.append(begun.id, say(*texts))
    return Begun(begun.id, appended.seqs, appended.revision)


class Seen(NamedTuple):
    """All that a reader sees of a short conversation. ``Message.seq`` takes no part in its ``==``,
    so it stands beside."""

    conversation: Conversation
    messages: list[Message]
    seqs: list[int]


def see(store: Store, conversation_id: str) -> Seen:
    tail = store.tail(conversation_id, LIMIT)
    return Seen(tail.conversation, tail.messages, [seq_of(message) for message in tail.messages])


def look(store: Store, conversation_id: str) -> Seen | None:
    """What is there, None where nothing is."""
    try:
        return see(store, conversation_id)
    except NotFound:
        return None


@contextmanager
def unchanged(store: Store, conversation_id: str) -> Iterator[None]:
    """Whatever happens within, the conversation is afterwards as it was, or still not there."""
    before = look(store, conversation_id)
    yield
    assert look(store, conversation_id) == before


def read_all(
    store: Store,
    conversation_id: str,
    *,
    after: int | None = None,
    before: int | None = None,
    limit: int = LIMIT,
) -> list[Message]:
    """Every message of that stretch, page by page."""
    back = before is not None and after is None
    messages: list[Message] = []
    while True:
        page = store.page(conversation_id, after=after, before=before, limit=limit)
        assert len(page.messages) <= limit
        messages += page.messages
        seqs = [seq_of(message) for message in messages]
        assert seqs == sorted(set(seqs), reverse=back)
        if page.next is None:
            return messages
        assert page.messages, "a page that is followed by another shows something"
        if back:
            before = page.next
        else:
            after = page.next


def list_all(store: Store, owner: str, *, limit: int = LIMIT) -> list[Conversation]:
    """Every conversation of the owner, page by page."""
    conversations: list[Conversation] = []
    cursor: str | None = None
    while True:
        listing = store.list(owner, limit=limit, cursor=cursor)
        assert len(listing.conversations) <= limit
        conversations += listing.conversations
        assert len(set(ids_of(conversations))) == len(conversations), "one came twice"
        if listing.cursor is None:
            return conversations
        assert listing.conversations, "a page that is followed by another shows something"
        cursor = listing.cursor


def scan_all(store: Store, *, limit: int = LIMIT) -> list[Conversation]:
    """Every conversation of the store, page by page."""
    conversations: list[Conversation] = []
    cursor: str | None = None
    while True:
        listing = store.scan(limit=limit, cursor=cursor)
        assert len(listing.conversations) <= limit
        conversations += listing.conversations
        if listing.cursor is None:
            return conversations
        assert listing.conversations, "a page that is followed by another shows something"
        cursor = listing.cursor


def ids_of(conversations: Iterable[Conversation]) -> list[str]:
    return [conversation.id for conversation in conversations]


def race(calls: Sequence[Callable[[], T]]) -> list[T | ChatledgerError]:
    """What each of the calls answered or raised, all of them let go at one moment."""
    start = Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | ChatledgerError:
        start.wait(SECONDS)
        try:
            return call()
        except ChatledgerError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


@contextmanager
def watched(store: Store, conversation_id: str) -> Iterator[list[Seen | None]]:
    """What a reader who never rests sees meanwhile; complete at the end of the block."""
    seen: list[Seen | None] = []
    done = Event()

    def watch() -> None:
        last = False
        while not last:
            last = done.is_set()  # one more look behind the last write
            seen.append(look(store, conversation_id))

    with ThreadPoolExecutor(1) as reader:
        watching = reader.submit(watch)
        try:
            yield seen
        finally:
            done.set()
        watching.result()


def numbers_of_writers(messages: Iterable[Message]) -> dict[str, list[int]]:
    """The numbers that each writer wrote, as they stand: its texts are such as ``"ada 17"``."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for text in said(messages):
        writer, number = text.split()
        numbers[writer].append(int(number))
    return dict(numbers)


def write_numbers(
    store: Store, conversation_id: str, writer: str, *, appends: int
) -> dict[int, str]:
    """Append ``"<writer> 0"``, ``"<writer> 1"`` ...; the text by the seq that it was given."""
    told: dict[int, str] = {}
    for number in range(appends):
        text = f"{writer} {number}"
        [seq] = store.append(conversation_id, say(text)).seqs
        told[seq] = text
    return told


ACTIVITY: dict[str, Callable[[Store, Begun], object]] = {
    "append": lambda store, it: store.append(it.id, say("another")),
    "append after": lambda store, it: store.append(it.id, say("another"), after=it.revision),
    "truncate": lambda store, it: store.truncate(it.id, after=0),
    "pop": lambda store, it: store.pop(it.id),
    "clear": lambda store, it: store.clear(it.id),
    "replace": lambda store, it: store.replace(it.id, it.seqs[0], Message.user("another")),
}
"""What changes the messages of a conversation that was begun with some."""

Operation: TypeAlias = Callable[[Store, Begun, str | None], object]

NEEDS_ONE: dict[str, Operation] = {
    "get": lambda store, it, owner: store.get(it.id, owner=owner),
    "tail": lambda store, it, owner: store.tail(it.id, 5, owner=owner),
    "page": lambda store, it, owner: store.page(it.id, owner=owner),
    "page back": lambda store, it, owner: store.page(it.id, before=it.revision + 1, owner=owner),
    "append after": lambda store, it, owner: store.append(
        it.id, say("another"), after=it.revision, owner=owner
    ),
    "update": lambda store, it, owner: store.update(it.id, title="another", owner=owner),
    "update metadata": lambda store, it, owner: store.update(
        it.id, metadata={"another": True}, revision=it.revision, owner=owner
    ),
    "truncate": lambda store, it, owner: store.truncate(it.id, after=0, owner=owner),
    "pop": lambda store, it, owner: store.pop(it.id, owner=owner),
    "clear": lambda store, it, owner: store.clear(it.id, owner=owner),
    "replace": lambda store, it, owner: store.replace(
        it.id, it.seqs[0], Message.user("another"), owner=owner
    ),
    "fork": lambda store, it, owner: store.fork(it.id, owner=owner),
    "fork to": lambda store, it, owner: store.fork(it.id, at=0, new_id=new_id(), owner=owner),
    "delete": lambda store, it, owner: store.delete(it.id, owner=owner),
}
"""Everything that can be asked of a conversation that is there, and of no other."""
