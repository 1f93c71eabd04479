"""Plans for whole threads: to begin one with messages, and to delete, prune and copy threads."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import uuid4

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata
from langgraph.checkpoint.base.id import uuid6

from chatledger.conversations import MAX_LIMIT, Appended, Conversation
from chatledger.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, StoreUnavailable
from chatledger.langchain_messages import from_chatledger
from chatledger.langgraph.plans import ATTEMPTS, READ_ATTEMPTS, Plans, delete_conversation
from chatledger.langgraph.records import (
    StoredCheckpoint,
    StoredWrites,
    contents_of,
    conversation_of,
    encode_record,
    leaf_serde,
)
from chatledger.langgraph.settings import Steps
from chatledger.langgraph.thread import SHOWN, Thread
from chatledger.langgraph.transcript import MESSAGES
from chatledger.langgraph.values import restore
from chatledger.messages import Message, StoredMessage
from chatledger.stores.arguments import checked_id
from chatledger.values import milliseconds_since_epoch

RESTORE_CHARACTERS: Final = 32 * 1024 * 1024
"""The most text that a copy writes at once."""


def seed(
    plans: Plans, thread_id: str, messages: Sequence[BaseMessage] | str, config: RunnableConfig
) -> Steps[RunnableConfig]:
    """See ``ChatledgerSaver.seed_thread``."""
    config = {"configurable": {**(config.get("configurable") or {}), "thread_id": thread_id}}
    address = plans.address(config)
    if isinstance(messages, str):
        found = yield from _read_conversation(plans, messages, address.owner)
    else:
        found = [
            message if message.id else message.model_copy(update={"id": str(uuid4())})
            for message in convert_to_messages(messages)
        ]
    thread = yield from plans.refresh(address.conversation_id, address.owner)
    if thread is not None and any(thread.visible()):
        raise AlreadyExists(thread_id)
    checkpoint: Checkpoint = {
        "v": 4,
        "id": str(uuid6(clock_seq=-1)),
        "ts": datetime.now(UTC).isoformat(),
        "channel_values": {MESSAGES: found},
        "channel_versions": {MESSAGES: 1},
        "versions_seen": {},
        "updated_channels": [MESSAGES],
    }
    metadata: CheckpointMetadata = {"source": "update", "step": -1, "parents": {}}
    config["configurable"] |= {"checkpoint_ns": "", "checkpoint_id": None}
    return (yield from plans.put(config, checkpoint, metadata, {MESSAGES: 1}))


def _read_conversation(
    plans: Plans, conversation_id: str, owner: str | None
) -> Steps[list[BaseMessage]]:
    """Return the messages of a conversation, each with an id."""
    found: list[BaseMessage] = []
    after: int | None = 0
    while after is not None:
        page = yield partial(
            plans.settings.store.page,
            checked_id(conversation_id),
            after=after,
            limit=MAX_LIMIT,
            owner=owner,
        )
        for stored in page.messages:
            message = from_chatledger(stored)
            message.id = message.id or stored.id
            found.append(message)
        after = page.next
    return found


def delete(plans: Plans, thread_id: str) -> Steps[None]:
    """See ``BaseCheckpointSaver.delete_thread``."""
    conversation_id = conversation_of(thread_id)
    if plans.settings.messages is not None:
        # First, because a thread whose conversation is gone ends at its next read.
        yield from delete_conversation(plans.settings, thread_id, None)
    yield from delete_conversation(plans.settings, conversation_id, None)


def checked_ids(value: object, name: str) -> list[str]:
    """Return the ids; raise ``InvalidArgument`` if they are not a list of texts.

    None would stand for all checkpoints of no run, and one text for many ids of one character.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        found = [id for id in value if isinstance(id, str)]
        if len(found) == len(value):
            return found
    raise InvalidArgument(f"{name} must be a list of str, such as ['1'].")


def prune(plans: Plans, thread_id: str, strategy: str) -> Steps[None]:
    """See ``BaseCheckpointSaver.prune``; of one thread."""
    if strategy == "delete":
        yield from delete(plans, thread_id)
    elif strategy == "keep_latest":
        yield from _keep(
            plans,
            thread_id,
            lambda thread: {
                newest.seq
                for namespace in thread.checkpoints
                if (newest := thread.newest(namespace))
            },
        )
    else:
        raise InvalidArgument(f"strategy is {strategy!r}; it must be 'keep_latest' or 'delete'.")


def delete_runs(plans: Plans, thread_id: str, run_ids: set[str]) -> Steps[None]:
    """See ``BaseCheckpointSaver.delete_for_runs``; of one thread."""
    serde = leaf_serde(plans.serde)
    yield from _keep(
        plans,
        thread_id,
        lambda thread: {
            found.seq
            for found in thread.visible()
            if restore(found.metadata, serde).get("run_id") not in run_ids
        },
    )


def _keep(plans: Plans, thread_id: str, select: Callable[[Thread], set[int]]) -> Steps[None]:
    """Remove all checkpoints of the thread but those whose seqs ``select`` returns.

    Raises:
        StoreUnavailable: Others changed the thread again and again.
    """
    conversation_id = conversation_of(thread_id)
    for attempt in range(ATTEMPTS):
        thread = yield from plans.refresh(conversation_id)
        if thread is None:
            return
        kept = select(thread)
        if kept == {found.seq for found in thread.visible()}:
            return
        records = _rewrite(plans, thread, kept)
        plans.settings.cache.forget(conversation_id)
        try:
            appended: Appended = yield partial(
                plans.settings.store.append,
                conversation_id,
                [message for _, messages in records for message in messages],
                revision=thread.revision,
                truncate_after=0,
            )
        except (Conflict, NotFound):
            yield plans.pause(attempt)
            continue
        rewritten = Thread(thread.created_at)
        rewritten.shown = thread.shown
        first = appended.seqs[0]
        for record, messages in records:
            seqs = range(first, first + len(messages))
            rewritten.add_appended(seqs, record, contents=contents_of(messages))
            first = seqs.stop
        plans.settings.cache.put(conversation_id, rewritten)
        return
    raise StoreUnavailable(f"Other writers were faster {ATTEMPTS} times in a row; try again later.")


def _rewrite(plans: Plans, thread: Thread, kept: set[int]) -> list[tuple[Any, list[Message]]]:
    """Return the records, with their messages, of the thread with only some of its checkpoints.

    Checkpoints from which a kept one builds the values of delta channels stay, hidden. The records
    refer to one another by how far they are apart, because their seqs are not known yet.
    """
    sources: dict[int, set[str]] = {}
    for checkpoint in thread.visible():
        if checkpoint.seq in kept:
            for seq, channels in thread.sources_of_deltas(checkpoint, plans.serde).items():
                sources.setdefault(seq, set()).update(channels)
    rewriter = _Rewriter(thread, kept, sources)
    records: list[tuple[Any, list[Message]]] = []
    if thread.shown_since is not None:
        shown = [SHOWN, milliseconds_since_epoch(thread.shown_since)]
        records.append((shown, encode_record(shown, plans.serde)))
    count = len(records)
    for found in thread.records():
        pieces = 1
        while True:  # its place is that of its last message
            record = rewriter.rewrite(found, count + pieces)
            messages = [] if record is None else encode_record(record, plans.serde)
            if len(messages) in (0, pieces):
                break
            pieces = len(messages)
        if messages:
            count += pieces
            rewriter.add(found, count, record)
            records.append((record, messages))
    if not records:
        # To delete the thread instead would delete what others put meanwhile, too.
        nothing = Thread().encode_writes(
            namespace="", checkpoint_id="", task_id="", task_path="", writes=[]
        )
        records.append((nothing, encode_record(nothing, plans.serde)))
    return records


class _Rewriter:
    """Encodes the records of a thread anew, in the order of their seqs.

    Args:
        thread: The thread.
        kept: The seqs of the checkpoints that stay visible.
        sources: The seqs of those that stay hidden, and the channels for which they are needed.
    """

    def __init__(self, thread: Thread, kept: set[int], sources: dict[int, set[str]]) -> None:
        self._thread, self._kept, self._sources = thread, kept, sources
        self._rewritten = Thread()
        self._new: dict[int, StoredCheckpoint] = {}

    def add(self, old: StoredCheckpoint | StoredWrites, place: int, record: Any) -> None:
        """Add a record, to which later ones may refer, at its place in the batch."""
        self._rewritten.add(place, record)
        if isinstance(old, StoredCheckpoint):
            self._new[old.seq] = self._rewritten.checkpoints[old.namespace][old.id]

    def rewrite(self, record: StoredCheckpoint | StoredWrites, place: int) -> Any:
        """Return the record for its place in the batch; None if it is not needed."""
        if isinstance(record, StoredCheckpoint):
            return self._rewrite_checkpoint(record, place)
        checkpoint = self._thread.checkpoints.get(record.namespace, {}).get(record.checkpoint_id)
        writes = record.writes
        if checkpoint is not None and checkpoint.seq not in self._kept:
            needed = self._sources.get(checkpoint.seq, set())
            writes = [write for write in writes if write[1] in needed]
        if not writes:
            return None
        return self._rewritten.encode_writes(
            namespace=record.namespace,
            checkpoint_id=record.checkpoint_id,
            task_id=record.task_id,
            task_path=record.task_path,
            writes=writes,
            run=record.run,
            batch_seq=place,
        )

    def _rewrite_checkpoint(self, record: StoredCheckpoint, place: int) -> Any:
        is_hidden = record.seq not in self._kept
        channels = record.channels
        if is_hidden:
            if record.seq not in self._sources:
                return None
            needed = self._sources[record.seq]
            channels = {name: node for name, node in channels.items() if name in needed}
        old_parent = record.parent
        parent = None if old_parent is None else self._new.get(old_parent.seq)
        inherited = [
            name
            for name, node in channels.items()
            if old_parent and old_parent.channels.get(name) is node
            if parent and name in parent.channels
        ]
        return self._rewritten.encode_checkpoint(
            namespace=record.namespace,
            id=record.id,
            parent=parent,
            rest=record.rest,
            metadata=record.metadata,
            channels={name: node for name, node in channels.items() if name not in inherited},
            inherited=inherited,
            flags=["hidden"] * is_hidden,
            batch_seq=place,
        )


def copy(plans: Plans, source_id: str, target_id: str) -> Steps[None]:
    """See ``BaseCheckpointSaver.copy_thread``."""
    store = plans.settings.store
    source, target = conversation_of(source_id), conversation_of(target_id)
    thread = yield from plans.refresh(source)
    if thread is None:
        return
    if (yield from plans.refresh(target)) is not None:
        raise AlreadyExists(target_id)
    shown: Conversation | None = None
    if thread.shown_since is not None:
        with suppress(NotFound):
            shown = yield partial(store.fork, source_id, new_id=target_id)
    try:
        original, messages = yield from _read_all(plans, source)
    except NotFound:  # it was deleted meanwhile
        return
    conversation = replace(original, id=target)
    revision = 0
    for run in _runs(messages):
        if run[0].seq > revision + 1:
            gap = replace(conversation, revision=run[0].seq - 1)
            yield partial(store.restore, gap, [], revision=revision)
        revision = run[-1].seq
        yield partial(
            store.restore, replace(conversation, revision=revision), run, revision=run[0].seq - 1
        )
    if shown is not None:
        plans.settings.cache.forget(target)  # it was read before it was copied
        yield from plans.append_shown_since(target, shown.created_at)


def _read_all(
    plans: Plans, conversation_id: str
) -> Steps[tuple[Conversation, list[StoredMessage]]]:
    """Return the conversation and all its messages as they were at one moment.

    Raises:
        NotFound: It does not exist.
        StoreUnavailable: It was changed again and again.
    """
    store = plans.settings.store
    for attempt in range(READ_ATTEMPTS):
        tail = yield partial(store.tail, conversation_id, 1)
        conversation: Conversation = tail.conversation
        messages: list[StoredMessage] = []
        after: int | None = 0
        while after is not None and after < conversation.revision:
            page = yield partial(store.page, conversation_id, after=after, limit=MAX_LIMIT)
            messages += page.messages
            after = page.next
        # If some were removed meanwhile, or another conversation took its place, some are missing.
        messages = [message for message in messages if message.seq <= conversation.revision]
        if len(messages) == conversation.message_count:
            return conversation, messages
        yield plans.pause(attempt)
    raise StoreUnavailable(
        "The thread was changed again and again while it was read; try again later."
    )


def _runs(messages: Sequence[StoredMessage]) -> list[list[StoredMessage]]:
    """Split the messages into such as one call restores: consecutive, and not too long."""
    runs: list[list[StoredMessage]] = []
    size = 0
    for message in messages:
        size += len(message.content)
        if not runs or message.seq != runs[-1][-1].seq + 1 or size > RESTORE_CHARACTERS:
            runs.append([])
            size = len(message.content)
        runs[-1].append(message)
    return runs
