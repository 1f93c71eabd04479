"""The conversation that shows a thread's messages, with ``messages="conversation"``.

Each append requires the revision at which the conversation was read, so that every message is shown
once, although several processes may notice that it is missing.

Messages wait for the reply that follows them, and are appended with it, which saves a request. If
there is none, because the run ends, is interrupted or fails, they are appended then, or when the
thread is next read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from langchain_core.messages import BaseMessage, RemoveMessage
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from chatledger.conversations import MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, MAX_LIMIT, Appended
from chatledger.errors import Conflict, NotFound
from chatledger.langchain_messages import to_chatledger
from chatledger.langgraph.records import StoredCheckpoint
from chatledger.langgraph.settings import Address, Settings, Steps
from chatledger.langgraph.thread import Thread
from chatledger.langgraph.values import restore, serialize
from chatledger.messages import Message, encode

MESSAGES: Final = "messages"
"""The channel that is shown."""
STARTING: Final = ("__start__", "__pregel_tasks", "branch:", "join:")
"""The beginnings of the names of channels by which LangGraph starts tasks."""
LAST_SHOWN: Final = 20
"""The number of last messages of a conversation that are compared with those of its thread."""
SHOW_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True)
class Shown:
    """The messages that a conversation is known to show.

    Attributes:
        revision: Its revision; 0 if it does not exist.
        ids: The ids of its messages, or only of the last ones.
        is_all: True if ``ids`` has all of them, or those of all messages that the thread had.
        began: When it began; None if that has not been read.
        is_gone: True if it was deleted; then the thread does not begin it anew.
        waiting: The messages that are shown with their reply, even if the graph removes them.
        thread_ids: The ids of the messages that the thread had when all were shown; None if
            ``is_all``.
    """

    revision: int
    ids: frozenset[str]
    is_all: bool = True
    began: datetime | None = None
    is_gone: bool = False
    waiting: tuple[Message, ...] = ()
    thread_ids: frozenset[str] | None = None


def read_shown(settings: Settings, address: Address, since: datetime | None) -> Steps[Shown]:
    """Return what the conversation shows at its end.

    It is gone if ``since`` is given and it did not begin then.

    Raises:
        NotFound: It has another owner, and is not gone.
    """
    try:  # without the owner, for whom a conversation of another one would be no conversation
        tail = yield partial(settings.store.tail, address.thread_id, LAST_SHOWN)
    except NotFound:
        return Shown(0, frozenset(), is_gone=since is not None)
    began = tail.conversation.created_at
    if since not in (None, began):
        return Shown(0, frozenset(), is_gone=True)
    if address.owner not in (None, tail.conversation.owner):
        raise NotFound(address.thread_id)
    ids = frozenset(message.id for message in tail.messages)
    is_all = tail.conversation.message_count == len(tail.messages)
    return Shown(tail.conversation.revision, ids, is_all, began)


def find_unshown(
    settings: Settings, address: Address, shown: Shown, messages: Sequence[tuple[str, BaseMessage]]
) -> Steps[list[list[Message]]]:
    """Return those of the messages that the conversation does not show yet, one list per append.

    Raises:
        InvalidMessage: A conversation cannot hold one of them.
        MessageTooLarge: One of them is too large for a conversation.
    """
    ids, start = shown.ids, 0
    present = {id for id, _ in messages}
    removed = [message for message in shown.waiting if message.id not in present]
    if not shown.is_all:
        # Those before the first of the last ones are shown, unless none is or some are new.
        known = [n for n, (id, _) in enumerate(messages) if id in ids]
        start = known[0] if known else 0
        unknown = [n for n, (id, _) in enumerate(messages) if n >= start and id not in ids]
        before = shown.thread_ids
        is_new = before is not None and any(id not in before for id, _ in messages[:start])
        if removed or is_new or (unknown and (not known or unknown[0] < known[-1])):
            ids, start = (yield from _read_ids(settings, address)), 0
    new = [(id, found) for id, found in messages[start:] if id not in ids]
    still_waiting = [message for message in removed if message.id not in ids]
    return _batches([*still_waiting, *(replace(to_chatledger(found), id=id) for id, found in new)])


def can_wait(shown: Shown, unshown: list[list[Message]], checkpoint: Checkpoint) -> bool:
    """Return whether a reply will follow these messages, with which they can be appended.

    The first ones of a conversation are appended at once: they show who owns it.
    """
    if not shown.revision or shown.is_gone or not unshown or not _awaits_reply(unshown[-1]):
        return False
    # No task follows a checkpoint that has written to no channel that starts one.
    updated = checkpoint.get("updated_channels")
    return updated is None or any(name.startswith(STARTING) for name in updated)


def show(
    settings: Settings,
    address: Address,
    shown: Shown,
    unshown: list[list[Message]],
    messages: Sequence[tuple[str, BaseMessage]],
) -> Steps[Shown]:
    """Append the messages that are not shown yet, and return what the conversation then shows.

    Args:
        settings: The saver's settings.
        address: The thread.
        shown: What the conversation showed when it was last read.
        unshown: What ``find_unshown`` returned then.
        messages: The messages of the thread.

    Raises:
        Conflict: Others changed the conversation again and again.
        NotFound: The conversation has another owner.
    """
    attempt = 1
    while unshown and not shown.is_gone:
        batch, *later = unshown
        try:
            appended: Appended = yield partial(
                settings.store.append,
                address.thread_id,
                batch,
                owner=address.owner,
                revision=shown.revision,
                reply_follows=bool(later) or _awaits_reply(batch),
                expires_in=settings.expires_in,
            )
        except NotFound:
            if not shown.revision:
                raise  # it has another owner
            return Shown(0, shown.ids, is_gone=True)
        except Conflict:
            if attempt == SHOW_ATTEMPTS:
                raise
            attempt += 1
            waiting, shown = shown.waiting, (yield from read_shown(settings, address, shown.began))
            shown = replace(shown, waiting=waiting)
            unshown = yield from find_unshown(settings, address, shown, messages)
        else:
            ids = shown.ids | {message.id for message in batch}
            shown, unshown = replace(shown, revision=appended.revision, ids=ids), later
    thread_ids = None if shown.is_all else frozenset(id for id, _ in messages)
    return replace(shown, waiting=(), thread_ids=thread_ids)


def _awaits_reply(messages: Sequence[Message]) -> bool:
    last = messages[-1]
    return last.role != "assistant" or bool(last.tool_calls)


def _batches(messages: Iterable[Message]) -> list[list[Message]]:
    """Split the messages into lists that one append takes; raise ``MessageTooLarge`` if one is."""
    batches: list[list[Message]] = []
    size = 0
    for message in messages:
        added = len(encode(message).encode())
        if not batches or len(batches[-1]) == MAX_BATCH_MESSAGES or size + added > MAX_BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(message)
        size += added
    return batches


def _read_ids(settings: Settings, address: Address) -> Steps[frozenset[str]]:
    """Return the ids of all messages of the conversation."""
    found: set[str] = set()
    after: int | None = 0
    while after is not None:
        page = yield partial(
            settings.store.page,
            address.thread_id,
            after=after,
            limit=MAX_LIMIT,
            owner=address.owner,
        )
        found |= {message.id for message in page.messages}
        after = page.next
    return frozenset(found)


# The messages of a thread -------------------------------------------------------------------------


def messages_of(
    checkpoint: Checkpoint,
    thread: Thread | None,
    parent: StoredCheckpoint | None,
    serde: SerializerProtocol,
) -> list[tuple[str, BaseMessage]]:
    """Return the messages of a checkpoint that is about to be put, each with an id.

    With a delta channel, they are those of the parent and what was written after it.
    """
    value = checkpoint["channel_values"].get(MESSAGES)
    if value is None and thread is not None and parent is not None:
        writes = thread.writes_of(parent.namespace, parent.id)
        written = [restore(node, serde) for *_, channel, node in writes if channel == MESSAGES]
        # If all that the conversation shows is known, the parent's messages need not be built.
        shown = thread.shown
        is_shown = shown is not None and shown.is_all and not shown.waiting
        before = [] if is_shown else _value_at(thread, parent, serde)
        return _with_ids([*before, *_flat(written)], serde)
    return _with_ids(_flat([value]), serde)


def messages_at(
    thread: Thread, checkpoint: StoredCheckpoint, serde: SerializerProtocol
) -> list[tuple[str, BaseMessage]]:
    """Return the messages of a checkpoint, each with an id."""
    return _with_ids(_value_at(thread, checkpoint, serde), serde)


def _value_at(thread: Thread, checkpoint: StoredCheckpoint, serde: SerializerProtocol) -> list[Any]:
    """Return all values of the channel, or all that was ever written to a delta channel."""
    if MESSAGES in checkpoint.channels:
        return _flat([restore(checkpoint.channels[MESSAGES], serde)])
    history = thread.delta_history(checkpoint, [MESSAGES], serde)[MESSAGES]
    return _flat([history.get("seed"), *(value for _, _, value in history["writes"])])


def _flat(values: Iterable[Any]) -> list[Any]:
    """Return the values, with those of lists and snapshots one by one."""
    found: list[Any] = []
    for value in values:
        each = value.value if isinstance(value, _DeltaSnapshot) else value
        found += each if isinstance(each, list) else [each]
    return found


def _with_ids(values: Iterable[Any], serde: SerializerProtocol) -> list[tuple[str, BaseMessage]]:
    """Return the messages among the values, each with its id, or one that depends on its content.

    An instruction to remove a message is none.
    """
    found: dict[str, BaseMessage] = {}
    for n, each in enumerate(values):
        if isinstance(each, BaseMessage) and not isinstance(each, RemoveMessage):
            id = each.id or f"{n}-{serialize(each, serde, name='A message').digest.hex()}"
            found[id] = each
    return [*found.items()]
