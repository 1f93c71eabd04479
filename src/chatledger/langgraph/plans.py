"""The saver's operations as generators that yield store operations.

**A thread is a conversation** whose id begins with ``chatledger:langgraph:``; ``list`` hides it.
Each checkpoint, and all writes of a task, are one record of it, added by one append.

**Every append requires the revision up to which this process knows the thread.** So a record only
refers to what is stored, and lands once: if the outcome of an append is unknown, the thread is read
again and shows whether it landed. If another process was first, its records are read, and the
record is encoded again.

**A process remembers the threads that it has used**, and reads what is new: a read of a thread
that nobody else has changed is one request. A removed message, or another conversation with the
same id, shows in the number of messages; then the thread is read again from the beginning.

**Pruning writes what is kept anew**, in one append that also removes everything before it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from secrets import token_hex
from typing import Any, Final, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from chatledger.backoff import backoff
from chatledger.conversations import MAX_LIMIT, Appended, Conversation
from chatledger.errors import (
    Conflict,
    InvalidArgument,
    InvalidMessage,
    MessageTooLarge,
    NotFound,
    StoreUnavailable,
)
from chatledger.langgraph.records import (
    PREFIX,
    StoredCheckpoint,
    checkpoint_without_values,
    contents_of,
    conversation_of,
    encode_record,
    leaf_serde,
)
from chatledger.langgraph.settings import Address, OwnedThreadId, Pause, Settings, Steps
from chatledger.langgraph.thread import SHOWN, Thread, indexed
from chatledger.langgraph.transcript import (
    can_wait,
    find_unshown,
    messages_at,
    messages_of,
    read_shown,
    show,
)
from chatledger.langgraph.values import Node, restore, serialize, take_apart
from chatledger.messages import Message, StoredMessage
from chatledger.stores.arguments import checked_id
from chatledger.values import milliseconds_since_epoch, to_datetime

RUN_KEY: Final = "__chatledger_run"
"""In the config of a checkpoint that was read: a random text for the run, the seq of the thread's
last record, and the newest checkpoint. LangGraph hands it on to what a run puts that begins there.
"""
REPLAY_KEY: Final = "__pregel_replay_state"
"""In the config of a subgraph that LangGraph runs again because the graph was started at an older
checkpoint. If the subgraph had none before that one, it begins anew, without a parent.
"""
WARM_LIMIT: Final = 4
"""The number of last messages that a read of a known thread asks for."""
STOPPING: Final = (ERROR, INTERRUPT)
"""A run that writes to one of these channels has no reply."""
ATTEMPTS: Final = 100
"""The most tries of one append, each of which another writer may precede."""
READ_ATTEMPTS: Final = 5
UNKNOWN_OUTCOMES: Final = 3
"""The most times that an append is tried again because its outcome is unknown."""
KNOWN_FOR: Final = 3_600.0
"""The time (s) for which an append may rely on what this process knows of a thread. A day after a
thread was deleted, or an hour after it expired, another one with its id may have the same
revisions."""
FIRST_WAIT, LONGEST_WAIT = 0.005, 0.25


@dataclass(frozen=True, slots=True)
class Plans:
    """The operations of a saver with these settings and this serde."""

    settings: Settings
    serde: SerializerProtocol

    # Configs -------------------------------------------------------------------------------------

    def address(self, config: RunnableConfig) -> Address:
        """Return what the config refers to.

        Raises:
            InvalidArgument: It has no valid ``thread_id``, or names no owner as it must.
        """
        found = config.get("configurable") or {}
        conversation_id = conversation_of(found.get("thread_id"))
        namespace, checkpoint_id = found.get("checkpoint_ns") or "", found.get("checkpoint_id")
        for name, value in (("checkpoint_ns", namespace), ("checkpoint_id", checkpoint_id or "")):
            if not isinstance(value, str):
                raise InvalidArgument(
                    f"{name} is of type {type(value).__name__}; pass the config that get_state or "
                    "get_state_history returned."
                )
        run, started_seq, newest_id = "", "0", ""
        described = str(found.get(RUN_KEY)).split(" ", 2)
        if len(described) == 3 and described[1].isdigit():  # else an earlier version wrote it
            run, started_seq, newest_id = described
        return Address(
            conversation_id.removeprefix(PREFIX),  # a plain str
            namespace,
            checkpoint_id or None,
            self.owner(config),
            run,
            int(started_seq),
            newest_id or None,
            checkpoint_id in (None, "") and found.get(REPLAY_KEY) is not None,
        )

    def owner(self, config: RunnableConfig | None) -> str | None:
        """Return the owner that the config names; None if the saver has no owners."""
        key = self.settings.owner_key
        if key is None:
            return None
        found = (config or {}).get("configurable") or {}
        owner, thread_id = found.get(key), found.get("thread_id")
        if owner is None and isinstance(thread_id, OwnedThreadId):
            owner = thread_id.owner
        if owner is None:
            raise InvalidArgument(
                f"The config names no {key}; this saver has owners, so pass "
                f'{{"configurable": {{"thread_id": ..., "{key}": ...}}}}.'
            )
        return checked_id(owner, key)

    def _config(self, address: Address, checkpoint_id: str) -> dict[str, Any]:
        config = {
            "thread_id": address.thread_id,
            "checkpoint_ns": address.namespace,
            "checkpoint_id": checkpoint_id,
        }
        if self.settings.owner_key is not None:
            config["thread_id"] = thread_id = OwnedThreadId(address.thread_id)
            config[self.settings.owner_key] = thread_id.owner = cast(str, address.owner)
        return config

    # Reading -------------------------------------------------------------------------------------

    def refresh(self, conversation_id: str, owner: str | None = None) -> Steps[Thread | None]:
        """Read what is new in the thread, and return it; None if ``owner`` has no such thread.

        Raises:
            StoreMismatch: A record cannot be read with the serde.
            StoreUnavailable: The thread was changed again and again while it was read.
        """
        store, cache = self.settings.store, self.settings.cache
        thread = cache.get(conversation_id)
        for attempt in range(READ_ATTEMPTS):
            started = self.settings.clock()
            limit = WARM_LIMIT if thread is not None and thread.revision else MAX_LIMIT
            try:
                tail = yield partial(store.tail, conversation_id, limit, owner=owner)
            except NotFound:
                cache.put(conversation_id, Thread())
                return None
            conversation: Conversation = tail.conversation
            if (
                thread is not None
                and thread.created_at is None
                and any(
                    thread.has_since(message.seq - 1, [message.content])
                    for message in tail.messages
                )
            ):
                thread.created_at = conversation.created_at  # this process has begun the thread
            if thread is None or thread.created_at != conversation.created_at:
                thread = Thread(conversation.created_at)
            thread.known_at = started
            if thread.is_at(conversation):
                return thread
            if conversation.revision < thread.revision:
                return thread  # an eventually consistent read, which is behind
            new: list[StoredMessage] = [
                message for message in tail.messages if message.seq > thread.last_seq
            ]
            # No revision since then is without a message, unless some were removed.
            expected = conversation.revision - thread.revision
            if not thread.revision:
                expected = conversation.message_count
            if 0 < len(new) < expected:
                new = [*(yield from self._between(conversation_id, thread, new[0].seq)), *new]
            # If a record cannot be read, the thread is incomplete.
            cache.forget(conversation_id)
            if len(new) == expected == conversation.message_count - thread.message_count:
                thread.add_messages(new, self.serde, thread_id=conversation_id.removeprefix(PREFIX))
                thread.revision = conversation.revision
                thread.shown = None  # what others have added may not be shown yet
                cache.put(conversation_id, thread)
                return thread
            # Messages were removed, or the thread has changed while it was read.
            thread = None
            yield self.pause(attempt)
        raise StoreUnavailable(
            "The thread was changed again and again while it was read; try again later."
        )

    def _between(
        self, conversation_id: str, thread: Thread, before: int
    ) -> Steps[list[StoredMessage]]:
        """Return the messages between the thread's last one and that with the seq ``before``."""
        found: list[StoredMessage] = []
        after: int | None = thread.last_seq
        with suppress(NotFound):  # it was deleted meanwhile; then the caller misses messages
            while after is not None:
                page = yield partial(
                    self.settings.store.page,
                    conversation_id,
                    after=after,
                    before=before,
                    limit=MAX_LIMIT,
                )
                found += page.messages
                after = page.next
        return found

    def pause(self, attempt: int) -> Pause:
        return Pause(backoff(self.settings.random, attempt, first=FIRST_WAIT, longest=LONGEST_WAIT))

    def get_tuple(self, config: RunnableConfig) -> Steps[CheckpointTuple | None]:
        """See ``BaseCheckpointSaver.get_tuple``."""
        address = self.address(config)
        thread = yield from self._read(address)
        if thread is None:
            return None
        checkpoint = thread.find(address.namespace, address.checkpoint_id)
        if checkpoint is None:
            return None
        return self._tuple(thread, checkpoint, address)

    def _read(self, address: Address) -> Steps[Thread | None]:
        """Return the thread; None if there is none, or its conversation was deleted."""
        thread = yield from self.refresh(address.conversation_id, address.owner)
        if thread is None or self.settings.messages is None:
            return thread
        if thread.newest("") is None:
            return thread
        if thread.shown is not None and not thread.shown.waiting:
            try:
                found = yield partial(
                    self.settings.store.get, address.thread_id, owner=address.owner
                )
            except NotFound:
                thread.shown = None
            else:
                if (found.revision, found.created_at) != (
                    thread.shown.revision,
                    thread.shown_since,
                ):
                    thread.shown = None
        if thread.shown is None or thread.shown.waiting:
            yield from self._show_newest(thread, address)
            if thread.shown is not None and thread.shown.is_gone:
                id, owner = address.conversation_id, address.owner
                yield from delete_conversation(self.settings, id, owner)
                return None
        return thread

    def _show_newest(self, thread: Thread, address: Address) -> Steps[None]:
        """Show the messages of the newest checkpoint; those that are shown already are read."""
        newest, waiting = thread.newest(""), () if thread.shown is None else thread.shown.waiting
        shown = yield from read_shown(self.settings, address, thread.shown_since)
        shown = replace(shown, waiting=waiting)
        if newest is None or shown.is_gone:
            thread.shown = shown
            return
        messages = messages_at(thread, newest, leaf_serde(self.serde))
        # A message that no conversation can hold is one of a saver that does not show messages.
        with suppress(InvalidMessage, MessageTooLarge):
            unshown = yield from find_unshown(self.settings, address, shown, messages)
            thread.shown = yield from show(self.settings, address, shown, unshown, messages)
            yield from self._store_shown_since(thread, address)

    def _store_shown_since(self, thread: Thread, address: Address) -> Steps[None]:
        """Store when the conversation began, so that its end also ends the thread."""
        shown = thread.shown
        if thread.shown_since is not None or not shown.revision:
            return
        began = shown.began
        if began is None:  # the thread has just begun it
            try:
                found = yield partial(
                    self.settings.store.get, address.thread_id, owner=address.owner
                )
                began = found.created_at
            except NotFound:
                began = to_datetime(0)  # it was deleted at once, and none began then
        thread.shown = replace(shown, began=began)
        yield from self.append_shown_since(address.conversation_id, began, owner=address.owner)

    def append_shown_since(
        self, conversation_id: str, began: datetime, *, owner: str | None = None
    ) -> Steps[None]:
        """Store in the thread when the conversation began that shows its messages."""

        def encode(thread: Thread) -> Any:
            if not thread.revision:
                raise NotFound(conversation_id.removeprefix(PREFIX))
            return [SHOWN, milliseconds_since_epoch(began)]

        with suppress(NotFound):  # the thread was deleted
            yield from self._append(conversation_id, encode, owner=owner)

    def _tuple(
        self, thread: Thread, checkpoint: StoredCheckpoint, address: Address
    ) -> CheckpointTuple:
        address = replace(address, namespace=checkpoint.namespace)
        parent = checkpoint.parent
        config = self._config(address, checkpoint.id)
        parent_config = None if parent is None else self._config(address, parent.id)
        newest = thread.newest(checkpoint.namespace)
        if self.settings.rivals == "refuse" and newest is not None:
            run = f"{token_hex(8)} {thread.last_seq} {newest.id}"
            config[RUN_KEY] = run
            if parent_config is not None:
                parent_config[RUN_KEY] = run  # a copy of the checkpoint has the same parent
        return thread.as_tuple(checkpoint, self.serde, config, parent_config)

    def thread_ids(
        self, owner: str | None, cursor: str | None
    ) -> Steps[tuple[list[str], str | None]]:
        """Return the ids of some threads, of every owner or of ``owner``, and the next cursor."""
        listing = yield partial(self.settings.store.scan, limit=MAX_LIMIT, cursor=cursor)
        ids = [
            found.id.removeprefix(PREFIX)
            for found in listing.conversations
            if found.id.startswith(PREFIX) and owner in (None, found.owner)
        ]
        return ids, listing.cursor

    def snapshot(self, config: RunnableConfig) -> Steps["Snapshot | None"]:
        """Return the thread's checkpoints, for ``list``."""
        address = self.address(config)
        thread = yield from self._read(address)
        if thread is None:
            return None
        newest_first = sorted(thread.visible(), key=lambda found: found.id, reverse=True)
        return Snapshot(self, thread, newest_first, address)

    def delta_history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Steps[Mapping[str, DeltaChannelHistory]]:
        """See ``BaseCheckpointSaver.get_delta_channel_history``."""
        address = self.address(config)
        # The run has just read the checkpoint, and its ancestors do not change.
        thread = self.settings.cache.get(address.conversation_id)
        checkpoint = None
        if thread is not None and address.checkpoint_id and self.settings.owner_key is None:
            checkpoint = thread.find(address.namespace, address.checkpoint_id)
        if checkpoint is None:
            thread = yield from self.refresh(address.conversation_id, address.owner)
            if thread is not None:
                checkpoint = thread.find(address.namespace, address.checkpoint_id)
        if thread is None or checkpoint is None:
            return {channel: {"writes": []} for channel in channels}
        return thread.delta_history(checkpoint, channels, self.serde)

    # Writing -------------------------------------------------------------------------------------

    def _is_known(self, thread: Thread) -> bool:
        """Return whether an append may rely on what is known of the thread."""
        now = self.settings.clock()
        passed = (after - before for before, after in zip(thread.known_at, now, strict=True))
        return not thread.revision or all(0 <= seconds < KNOWN_FOR for seconds in passed)

    def _append(
        self,
        conversation_id: str,
        encode: Callable[[Thread], Any],
        *,
        owner: str | None,
        is_stored: Callable[[Thread], bool] = lambda _: False,
    ) -> Steps[Thread]:
        """Append the record that ``encode`` returns for the thread, and return the thread.

        Args:
            conversation_id: The thread's conversation.
            encode: Returns the record.
            owner: The owner that the caller names.
            is_stored: Returns whether a thread holds what the record says. One that was pruned
                holds it in another record.

        Raises:
            NotFound: The thread belongs to another owner.
            StoreUnavailable: The store does not answer, or others were always first.
        """
        store, cache = self.settings.store, self.settings.cache
        thread = cache.get(conversation_id)
        is_remembered = thread is not None
        attempted: list[tuple[int, list[str]]] = []
        was_stored, unknown = False, 0
        for attempt in range(ATTEMPTS):
            if thread is None or not self._is_known(thread):
                is_remembered = False
                try:
                    thread = (yield from self.refresh(conversation_id, owner)) or Thread()
                except StoreUnavailable as unavailable:
                    unavailable.may_have_landed = unknown > 0
                    raise
                if any(thread.has_since(revision, contents) for revision, contents in attempted):
                    return thread
                if attempted and is_stored(thread) and not was_stored:
                    return thread
                if attempt > 1:
                    yield self.pause(attempt)
            try:
                record = encode(thread)
            except (Conflict, InvalidArgument):
                if not is_remembered:
                    raise
                # Nothing is refused because of what this process remembers: the thread may be
                # another one now, or belong to another owner.
                thread = None
                continue
            messages = encode_record(record, self.serde)
            contents = contents_of(messages)
            was_stored = was_stored if attempted else is_stored(thread)
            attempted.append((thread.revision, contents))
            started = self.settings.clock()
            try:
                appended: Appended = yield partial(
                    store.append,
                    conversation_id,
                    messages,
                    owner=owner,
                    revision=thread.revision,
                    reply_follows=True,
                    expires_in=self.settings.expires_in,
                )
            except Conflict:
                pass
            except NotFound:
                if not thread.revision:
                    raise NotFound(conversation_id.removeprefix(PREFIX)) from None
            except StoreUnavailable as unavailable:
                unknown += 1
                if not unavailable.may_have_landed or unknown > UNKNOWN_OUTCOMES:
                    unavailable.may_have_landed = unavailable.may_have_landed or unknown > 1
                    raise
            else:
                thread.add_appended(appended.seqs, record, contents=contents)
                thread.known_at = started
                cache.put(conversation_id, thread)
                return thread
            thread = None
        raise StoreUnavailable(
            f"Other writers were faster {ATTEMPTS} times in a row; try again later."
        )

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Steps[RunnableConfig]:
        """See ``BaseCheckpointSaver.put``."""
        address = self.address(config)
        serde, id = leaf_serde(self.serde), checkpoint.get("id")
        if not isinstance(id, str):
            raise InvalidArgument(
                f"The checkpoint's id is of type {type(id).__name__}; it must be a str."
            )
        rest = serialize(checkpoint_without_values(checkpoint), serde, name="The checkpoint")
        described = serialize(
            get_checkpoint_metadata(config, metadata), serde, name="The checkpoint's metadata"
        )
        values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        nodes: dict[str, Node] = {}
        for channel in values.keys() & new_versions.keys() & versions.keys():
            nodes[channel] = self._take_apart(channel, values[channel])
        messages: list[tuple[str, BaseMessage]] = []
        shown, unshown = None, list[list[Message]]()
        if self.settings.messages is not None and not address.namespace:
            known = self.settings.cache.get(address.conversation_id)
            shown = None if known is None else known.shown
            before = None
            if known is not None and address.checkpoint_id is not None:
                before = known.find("", address.checkpoint_id)
            messages = messages_of(checkpoint, known, before, serde)
            if shown is None:
                since = None if known is None else known.shown_since
                shown = yield from read_shown(self.settings, address, since)
            # Before the checkpoint is stored, to refuse a message that no conversation can hold.
            unshown = yield from find_unshown(self.settings, address, shown, messages)

        def encode(thread: Thread) -> Any:
            parent = self._parent(thread, address, id)
            inherited = []
            before = {} if parent is None else restore(parent.rest, serde)["channel_versions"]
            for channel, version in versions.items():
                if channel in new_versions:
                    continue
                if parent and channel in parent.channels and before.get(channel) == version:
                    inherited.append(channel)
                elif channel in values and channel not in nodes:
                    nodes[channel] = self._take_apart(channel, values[channel])
            return thread.encode_checkpoint(
                namespace=address.namespace,
                id=id,
                parent=parent,
                rest=rest,
                metadata=described,
                channels={name: node for name, node in nodes.items() if name not in inherited},
                inherited=inherited,
            )

        thread = yield from self._append(
            address.conversation_id,
            encode,
            owner=address.owner,
            is_stored=lambda thread: id in thread.checkpoints.get(address.namespace, {}),
        )
        if shown is None:
            return {"configurable": self._config(address, id)}
        # If they are appended now and that fails, they wait too.
        waiting = tuple(message for batch in unshown for message in batch)
        thread.shown = replace(shown, waiting=waiting)
        # LangGraph does not wait for the put before it puts the writes of tasks.
        has_stopped = any(write[3] in STOPPING for write in thread.writes_of("", id))
        if has_stopped or not can_wait(shown, unshown, checkpoint):
            try:
                thread.shown = yield from show(self.settings, address, shown, unshown, messages)
            except NotFound:  # another owner has just begun the conversation, so it is their thread
                if [found.id for found in thread.visible()] == [id]:
                    yield from delete_conversation(
                        self.settings, address.conversation_id, address.owner
                    )
                raise
            yield from self._store_shown_since(thread, address)
        return {"configurable": self._config(address, id)}

    def _take_apart(self, channel: str, value: Any) -> Node:
        return take_apart(value, leaf_serde(self.serde), name=f"Channel {channel!r}")

    def _parent(self, thread: Thread, address: Address, id: str) -> StoredCheckpoint | None:
        """Return the parent of the new checkpoint ``id``.

        Raises:
            Conflict: The run was overtaken.
            InvalidArgument: The thread has no such checkpoint.
        """
        parent_id = address.checkpoint_id
        try:
            self._check_rivals(thread, address, id)
        except Conflict:
            self.settings.runs.add(id, address.run, refused=True)
            raise
        # Before it is stored, because LangGraph may put the run's writes at the same time.
        self.settings.runs.add(id, address.run)
        if parent_id is None:
            return None
        parent = thread.find(address.namespace, parent_id)
        if parent is None:
            raise InvalidArgument(
                f"Thread {address.thread_id!r} has no checkpoint {parent_id!r}; it belongs to "
                "another thread, or was deleted, was pruned or has expired since. Get the thread's "
                "state again and retry."
            )
        return parent

    def _check_rivals(self, thread: Thread, address: Address, id: str) -> None:
        """Raise ``Conflict`` if another run has moved the namespace on, and rivals are refused.

        It is also raised if another run has written what a task of the parent has returned: its
        own next checkpoint may follow.
        """
        if self.settings.rivals == "fork" or address.begins_anew:
            return
        newest = thread.newest(address.namespace)
        newest_id = None if newest is None else newest.id
        parent = thread.find(address.namespace, address.checkpoint_id)
        # A checkpoint that is put again is no rival of itself.
        is_newest = newest_id in (
            *(address.checkpoint_id, id),
            address.newest_id or address.checkpoint_id,
        )
        if is_newest and not self._has_rival_writes(thread, address, parent):
            return
        raise Conflict(
            address.thread_id,
            expected=0 if parent is None or address.checkpoint_id is None else parent.seq,
            revision=0 if newest is None else newest.seq,
            advice="another run has continued the thread; get its state again and retry",
        )

    def _has_rival_writes(
        self, thread: Thread, address: Address, parent: StoredCheckpoint | None
    ) -> bool:
        """Return whether another run has written what a task of the parent has returned."""
        if parent is None or not (
            address.run or self.settings.runs.has_put(parent.id, address.run)
        ):
            return False
        # What was written before the run began belongs to it too.
        results = thread.results_since(address.started_seq, address.namespace, parent.id)
        runs = {record.run for record, _ in results.values()}
        return not runs <= {address.run}

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> Steps[None]:
        """See ``BaseCheckpointSaver.put_writes``."""
        address = self.address(config)
        checkpoint_id = address.checkpoint_id
        if checkpoint_id is None:
            raise InvalidArgument(
                "The config names no checkpoint_id; pass the config that put returned."
            )
        if not writes:
            return
        nodes = indexed([(channel, self._take_apart(channel, value)) for channel, value in writes])

        def encode(thread: Thread) -> Any:
            if self.settings.rivals == "refuse":
                self._check_rival_writes(thread, address, task_id, nodes)
            return thread.encode_writes(
                namespace=address.namespace,
                checkpoint_id=checkpoint_id,
                task_id=task_id,
                task_path=task_path,
                writes=nodes,
                run=address.run if self.settings.rivals == "refuse" else "",
            )

        thread = yield from self._append(address.conversation_id, encode, owner=address.owner)
        is_shown = self.settings.messages is not None and not address.namespace
        has_stopped = any(channel in STOPPING for channel, _ in writes)
        if is_shown and has_stopped and (thread.shown is None or thread.shown.waiting):
            yield from self._show_newest(thread, address)

    def _check_rival_writes(
        self,
        thread: Thread,
        address: Address,
        task_id: str,
        writes: Sequence[tuple[int, str, Node]],
    ) -> None:
        """Raise ``Conflict`` if another run has continued the checkpoint, or ended a task of it."""
        checkpoint_id, serde = address.checkpoint_id or "", leaf_serde(self.serde)
        newest = thread.newest(address.namespace)
        # The checkpoint's own put may follow, unless it was refused. That of the next one may have
        # come first, since LangGraph does not wait in between.
        is_overtaken = self.settings.runs.was_refused(checkpoint_id) or (
            newest is not None
            and checkpoint_id in thread.checkpoints[address.namespace]
            and newest.id not in (checkpoint_id, address.newest_id)
            and not self.settings.runs.has_put(newest.id, address.run)
        )
        # A run that starts at an older checkpoint on purpose may run its tasks again.
        stored = thread.results_since(address.started_seq, address.namespace, checkpoint_id)
        parent = thread.find(address.namespace, checkpoint_id)
        is_overtaken = (
            is_overtaken
            or self._has_rival_writes(thread, address, parent)
            or any(
                (task_id, index) in stored
                and serde.dumps_typed(restore(stored[task_id, index][1], serde))
                != serde.dumps_typed(restore(node, serde))
                for index, _, node in writes
            )
        )
        if is_overtaken:
            raise Conflict(
                address.thread_id,
                expected=thread.revision,
                revision=thread.revision,
                advice="another run is continuing it; get its state again and retry",
            )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The checkpoints of a thread at one moment, newest first."""

    plans: Plans
    thread: Thread
    checkpoints: list[StoredCheckpoint]
    address: Address

    def matching(
        self, *, namespace: str | None, before_id: str | None, filter: Mapping[str, Any] | None
    ) -> list[StoredCheckpoint]:
        """Return the checkpoints that ``list`` is asked for."""
        serde = leaf_serde(self.plans.serde)
        only = self.address.checkpoint_id
        return [
            found
            for found in self.checkpoints
            if namespace in (None, found.namespace)
            and only in (None, found.id)
            and (before_id is None or found.id < before_id)
            and _has_all(found, filter, serde)
        ]

    def tuple_of(self, checkpoint: StoredCheckpoint) -> CheckpointTuple:
        return self.plans._tuple(self.thread, checkpoint, self.address)


def _has_all(
    checkpoint: StoredCheckpoint, filter: Mapping[str, Any] | None, serde: SerializerProtocol
) -> bool:
    """Return whether the checkpoint's metadata has all values of the filter."""
    if not filter:
        return True
    metadata = restore(checkpoint.metadata, serde)
    return all(metadata.get(name) == value for name, value in filter.items())


def delete_conversation(
    settings: Settings, conversation_id: str, owner: str | None = None
) -> Steps[None]:
    """Delete the conversation, if there is one."""
    settings.cache.forget(conversation_id)
    with suppress(NotFound):
        yield partial(settings.store.delete, conversation_id, owner=owner)
