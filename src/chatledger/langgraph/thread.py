"""A thread in memory: the records of its conversation, decoded, and what follows from them."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from threading import Lock
from typing import Any, cast

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from chatledger.conversations import Conversation
from chatledger.errors import StoreMismatch
from chatledger.langgraph.records import (
    FIRST_PIECE,
    MIDDLE_PIECE,
    StoredCheckpoint,
    StoredWrites,
    decode_record,
    leaf_serde,
    lengthen,
    shorten,
)
from chatledger.langgraph.values import (
    USUAL_TYPE,
    Decoder,
    Encoder,
    Leaf,
    Node,
    SnapshotNode,
    Stored,
    restore,
)
from chatledger.messages import StoredMessage
from chatledger.values import to_datetime

CHECKPOINT, WRITES, SHOWN = 0, 1, 2  # the first item of an encoded record
INHERITED = True  # in the place of a value: the parent has the same
NULL_TASK = "00000000-0000-0000-0000-000000000000"
"""LangGraph's task for writes of no task; it writes again with all that it has written before."""
RECORD_BYTES = 2_000
"""About the memory (bytes) that a record takes besides its values."""


class Thread(Stored):
    """The records of one thread, up to a revision of its conversation.

    Attributes:
        created_at: When the conversation began; another one with its id began at another time.
        revision: The revision of the conversation with these records; 0 if it does not exist.
        message_count: The number of its messages.
        last_seq: The seq of the last one.
        known_at: When it was last read or written, by both clocks.
        size: About how many bytes the records take in memory.
        checkpoints: The checkpoints of each namespace by id, hidden ones too.
        shown_since: When the conversation began that shows the messages; None if none has yet.
        shown: What the conversation with the thread's id is known to show; None if it has not been
            read (see ``transcript``).
    """

    def __init__(self, created_at: datetime | None = None) -> None:
        super().__init__()
        self.created_at = created_at
        self.revision = self.message_count = self.last_seq = self.size = 0
        self.known_at = (0.0, 0.0)
        self.checkpoints: dict[str, dict[str, StoredCheckpoint]] = {}
        self.shown_since: datetime | None = None
        self.shown: Any = None
        self._newest: dict[str, StoredCheckpoint] = {}
        self._checkpoint_at: dict[int, StoredCheckpoint] = {}
        self._writes: dict[tuple[str, str], list[StoredWrites]] = {}
        self._pieces: list[str] = []
        self._seqs: dict[int, int] = {}

    # Adding records ------------------------------------------------------------------------------

    def is_at(self, conversation: Conversation) -> bool:
        """Return whether these are all records of the conversation as it is."""
        return (self.created_at, self.revision) == (conversation.created_at, conversation.revision)

    def add_messages(
        self, messages: Iterable[StoredMessage], serde: SerializerProtocol, *, thread_id: str
    ) -> None:
        """Add the records that the messages hold, which follow those that were added before.

        Raises:
            StoreMismatch: A record cannot be read with ``serde``, or is of an unknown kind.
        """
        for message in messages:
            content = message.content
            assert isinstance(content, str)
            self.message_count += 1
            self.last_seq = message.seq
            self._pieces.append(content)
            if message.role in (FIRST_PIECE, MIDDLE_PIECE):
                continue
            contents, self._pieces = self._pieces, []
            record = decode_record(contents, serde, thread_id=thread_id)
            self.add(message.seq, record, contents=contents)

    def add_appended(self, seqs: range, record: Any, *, contents: Sequence[str]) -> None:
        """Add a record that was appended to the conversation as the last one."""
        self.message_count += len(seqs)
        self.last_seq = self.revision = seqs[-1]
        self.add(seqs[-1], record, contents=contents)

    def add(self, seq: int, record: Any, *, contents: Sequence[str] = ()) -> None:
        """Add an encoded record; ``seq`` is that of its last message.

        Raises:
            StoreMismatch: This version does not know that kind of record.
        """
        decoder = Decoder(self, seq)
        match record:
            case [0, namespace, id, parent, rest, metadata, channels, *flags]:
                before = self._checkpoint_at[decoder.resolve(parent)] if parent else None
                checkpoint = StoredCheckpoint(
                    seq=seq,
                    namespace=namespace,
                    id=lengthen(id),
                    parent=before,
                    rest=_decode_own(rest),
                    metadata=_decode_own(metadata),
                    channels={
                        name: before.channels[name]
                        if before is not None and value is INHERITED
                        else decoder.decode(value)
                        for name, value in channels.items()
                    },
                    is_hidden="hidden" in flags,
                )
                self._add_checkpoint(checkpoint)
            case [1, namespace, checkpoint_id, task_id, task_path, writes, *run] if len(run) <= 1:
                id = (
                    self._checkpoint_at[decoder.resolve(checkpoint_id)].id
                    if isinstance(checkpoint_id, int)
                    else lengthen(checkpoint_id)
                )
                decoded = [
                    (index, channel, decoder.decode(value)) for index, channel, value in writes
                ]
                stored = StoredWrites(
                    seq=seq,
                    namespace=namespace,
                    checkpoint_id=id,
                    task_id=lengthen(task_id),
                    task_path=task_path,
                    writes=decoded,
                    run=run[0] if run else "",
                )
                self._writes.setdefault((namespace, id), []).append(stored)
            case [2, began]:
                self.shown_since = to_datetime(began)
            case _:
                raise StoreMismatch(
                    "The thread has a record that a later version of Chatledger wrote; upgrade "
                    "Chatledger to read it."
                )
        self.add_parts(seq, decoder.leaves, decoder.lists)
        self.size += RECORD_BYTES + sum(map(len, contents))
        if contents:
            self._seqs[hash(tuple(contents))] = seq

    def _add_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        self._checkpoint_at[checkpoint.seq] = checkpoint
        self.checkpoints.setdefault(checkpoint.namespace, {})[checkpoint.id] = checkpoint
        newest = self._newest.get(checkpoint.namespace)
        # One that is put again replaces the former.
        if not checkpoint.is_hidden and (
            newest is None or newest.latest_id <= checkpoint.latest_id
        ):
            self._newest[checkpoint.namespace] = checkpoint

    def has_since(self, revision: int, contents: Sequence[str]) -> bool:
        """Return whether a record with these contents was added after ``revision``."""
        return self._seqs.get(hash(tuple(contents)), 0) > revision

    # Encoding records ----------------------------------------------------------------------------

    def encode_checkpoint(
        self,
        *,
        namespace: str,
        id: str,
        parent: StoredCheckpoint | None,
        rest: Leaf,
        metadata: Leaf,
        channels: dict[str, Node],
        inherited: Iterable[str],
        flags: Sequence[str] = (),
        batch_seq: int = 0,
    ) -> list[Any]:
        """Return the record of a checkpoint.

        Args:
            namespace: Its namespace.
            id: Its id.
            parent: The checkpoint before it.
            rest: The checkpoint without its id and values.
            metadata: Its metadata.
            channels: The values of the channels that have changed.
            inherited: The channels that have the same value as in the parent.
            flags: ``"hidden"``; see ``StoredCheckpoint``.
            batch_seq: See ``Encoder``.
        """
        encoder = Encoder(self, batch_seq)
        old = {} if parent is None else parent.channels
        values: dict[str, Any] = dict.fromkeys(inherited, INHERITED)
        values |= {name: encoder.encode(node, old.get(name)) for name, node in channels.items()}
        return [
            *(CHECKPOINT, namespace, shorten(id)),
            0 if parent is None else encoder.reference(parent.seq),
            *(_encode_own(rest), _encode_own(metadata), values, *flags),
        ]

    def encode_writes(
        self,
        *,
        namespace: str,
        checkpoint_id: str,
        task_id: str,
        task_path: str,
        writes: Iterable[tuple[int, str, Node]],
        run: str = "",
        batch_seq: int = 0,
    ) -> list[Any]:
        """Return the record of the writes of a task.

        Args:
            namespace: The namespace.
            checkpoint_id: The checkpoint after which it ran.
            task_id: The task.
            task_path: Its path.
            writes: The index, the channel and the value of each write.
            run: See ``StoredWrites``.
            batch_seq: See ``Encoder``.
        """
        encoder = Encoder(self, batch_seq)
        checkpoint = self.checkpoints.get(namespace, {}).get(checkpoint_id)
        return [
            *(WRITES, namespace),
            shorten(checkpoint_id) if checkpoint is None else encoder.reference(checkpoint.seq),
            *(shorten(task_id), task_path),
            [[index, channel, encoder.encode(node)] for index, channel, node in writes],
            *([run] if run else []),
        ]

    # Reading -------------------------------------------------------------------------------------

    def newest(self, namespace: str) -> StoredCheckpoint | None:
        """Return the newest checkpoint of the namespace."""
        return self._newest.get(namespace)

    def find(self, namespace: str, id: str | None) -> StoredCheckpoint | None:
        """Return the checkpoint with that id, or the newest one if ``id`` is None."""
        if id is None:
            return self._newest.get(namespace)
        found = self.checkpoints.get(namespace, {}).get(id)
        return None if found is None or found.is_hidden else found

    def visible(self) -> Iterator[StoredCheckpoint]:
        """Yield all checkpoints that are not hidden."""
        for checkpoints in self.checkpoints.values():
            yield from (each for each in checkpoints.values() if not each.is_hidden)

    def records(self) -> list[StoredCheckpoint | StoredWrites]:
        """Return all records in the order in which they were added."""
        writes = [each for records in self._writes.values() for each in records]
        current = [each for found in self.checkpoints.values() for each in found.values()]
        return sorted([*current, *writes], key=lambda record: record.seq)

    def writes_of(self, namespace: str, checkpoint_id: str) -> "list[_Write]":
        """Return the writes after that checkpoint, in the order of ``writes_sort_key``.

        If a task has written twice at an index, the first one counts; among special writes, such
        as errors and interrupts, the last one.
        """
        counting = self._counting(namespace, checkpoint_id).items()
        found = [
            (record.task_path, task_id, index, channel, node)
            for (task_id, index), (record, channel, node) in counting
        ]
        return sorted(found, key=lambda write: write[:3])

    def _counting(
        self, namespace: str, checkpoint_id: str
    ) -> dict[tuple[str, int], tuple[StoredWrites, str, Node]]:
        """Return the writes that count after that checkpoint, by their task and index."""
        found: dict[tuple[str, int], tuple[StoredWrites, str, Node]] = {}
        for record in self._writes.get((namespace, checkpoint_id), ()):
            for index, channel, node in record.writes:
                key = (record.task_id, index)
                if index < 0 or key not in found:
                    found[key] = (record, channel, node)
        return found

    def results_since(
        self, seq: int, namespace: str, checkpoint_id: str
    ) -> dict[tuple[str, int], tuple[StoredWrites, Node]]:
        """Return what tasks have returned after that checkpoint, in records after ``seq``.

        Writes that do not count are left out, and so are errors, interrupts and the like.
        """
        counting = self._counting(namespace, checkpoint_id).items()
        return {
            (task_id, index): (record, node)
            for (task_id, index), (record, _, node) in counting
            if index >= 0 and task_id != NULL_TASK and record.seq > seq
        }

    def as_tuple(
        self,
        checkpoint: StoredCheckpoint,
        serde: SerializerProtocol,
        config: dict[str, Any],
        parent_config: dict[str, Any] | None,
    ) -> CheckpointTuple:
        """Return the checkpoint with all its values, new copies of those that are stored."""
        serde = leaf_serde(serde)
        values = {name: restore(node, serde) for name, node in checkpoint.channels.items()}
        rest = restore(checkpoint.rest, serde)
        return CheckpointTuple(
            config={"configurable": config},
            checkpoint=cast(Any, {**rest, "id": checkpoint.id, "channel_values": values}),
            metadata=restore(checkpoint.metadata, serde),
            parent_config=None if parent_config is None else {"configurable": parent_config},
            pending_writes=[
                _pending(write, serde)
                for write in self.writes_of(checkpoint.namespace, checkpoint.id)
            ],
        )

    def delta_history(
        self, checkpoint: StoredCheckpoint, channels: Sequence[str], serde: SerializerProtocol
    ) -> dict[str, DeltaChannelHistory]:
        """Return what ``BaseCheckpointSaver.get_delta_channel_history`` promises."""
        serde = leaf_serde(serde)
        writes: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
        found: dict[str, DeltaChannelHistory] = {}
        missing = set(channels)
        before = checkpoint.parent
        while before is not None and missing:
            for write in reversed(self.writes_of(before.namespace, before.id)):
                if write[3] in missing:
                    writes[write[3]].append(_pending(write, serde))
            for channel in missing & before.channels.keys():
                found[channel] = {"writes": [], "seed": restore(before.channels[channel], serde)}
                missing.discard(channel)
            before = before.parent
        for channel in channels:
            found.setdefault(channel, {"writes": []})["writes"] = writes[channel][::-1]
        return {channel: found[channel] for channel in channels}

    def sources_of_deltas(
        self, checkpoint: StoredCheckpoint, serde: SerializerProtocol
    ) -> dict[int, set[str]]:
        """Return the checkpoints from which values of delta channels are built.

        Returns:
            The seq of each, and the channels whose writes after it are needed.
        """
        metadata = restore(checkpoint.metadata, leaf_serde(serde))
        missing = set(metadata.get("counters_since_delta_snapshot") or ())
        sources: dict[int, set[str]] = {}
        before = checkpoint.parent
        seen: set[str] = set()
        while before is not None:  # a snapshot tells too that a channel is one
            snapshots = {
                name for name, node in before.channels.items() if isinstance(node, SnapshotNode)
            }
            missing |= snapshots - seen
            seen |= before.channels.keys()
            before = before.parent
        missing -= checkpoint.channels.keys()
        before = checkpoint.parent
        while before is not None and missing:
            sources[before.seq] = set(missing)
            missing -= before.channels.keys()
            before = before.parent
        return sources


_Write = tuple[str, str, int, str, Node]
"""The path and id of the task, and the index, channel and value of the write."""


def indexed(writes: Sequence[tuple[str, Node]]) -> list[tuple[int, str, Node]]:
    """Return the writes of a task with their indexes, which are negative for special ones."""
    return [
        (WRITES_IDX_MAP.get(channel, index), channel, node)
        for index, (channel, node) in enumerate(writes)
    ]


def _pending(write: _Write, serde: SerializerProtocol) -> PendingWrite:
    _, task_id, _, channel, node = write
    return task_id, channel, restore(node, serde)


def _encode_own(leaf: Leaf) -> Any:
    """Return a leaf to which nothing else refers."""
    return leaf.data if leaf.type == USUAL_TYPE else [leaf.type, leaf.data]


def _decode_own(value: Any) -> Leaf:
    return Leaf(USUAL_TYPE, value) if isinstance(value, bytes) else Leaf(*value)


class ThreadCache:
    """The threads that this process has used last, up to about ``max_bytes`` in memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._threads: OrderedDict[str, tuple[Thread, int]] = OrderedDict()
        self._size = 0

    def get(self, conversation_id: str) -> Thread | None:
        with self._lock:
            found = self._threads.get(conversation_id)
            if found is None:
                return None
            self._threads.move_to_end(conversation_id)
            return found[0]

    def put(self, conversation_id: str, thread: Thread) -> None:
        """Add the thread, or measure it again after it has grown."""
        with self._lock:
            self._remove(conversation_id)
            self._threads[conversation_id] = (thread, thread.size)
            self._size += thread.size
            while self._size > self._max_bytes and self._threads:
                self._remove(next(iter(self._threads)))

    def forget(self, conversation_id: str) -> None:
        with self._lock:
            self._remove(conversation_id)

    def _remove(self, conversation_id: str) -> None:
        _, size = self._threads.pop(conversation_id, (None, 0))
        self._size -= size
