"""Copy the threads of langgraph-checkpoint-aws's ``DynamoDBSaver`` to a ``ChatledgerSaver``."""

import gzip
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import ormsgpack
from botocore.exceptions import ClientError
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, get_checkpoint_metadata
from langgraph.checkpoint.serde.jsonplus import (
    EXT_CONSTRUCTOR_POS_ARGS,
    EXT_DELTA_SNAPSHOT,
    JsonPlusSerializer,
)
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, _DeltaSnapshot

from chatledger.copying.progress import (
    Copied,
    OnProgress,
    Problem,
    ProgressCallbackFailed,
    ProgressReporter,
    TargetDiffers,
)
from chatledger.copying.table import TableReader, single_call
from chatledger.errors import (
    AccessRefused,
    InvalidArgument,
    NotFound,
    StoreMismatch,
    TableMismatch,
    TableMissing,
)
from chatledger.langgraph.plans import Plans
from chatledger.langgraph.records import StoredCheckpoint, leaf_serde
from chatledger.langgraph.saver import ChatledgerSaver
from chatledger.langgraph.settings import Address, Steps
from chatledger.langgraph.thread import NULL_TASK, Thread
from chatledger.langgraph.transcript import read_shown
from chatledger.stores.contract import AsyncStore
from chatledger.stores.dynamodb.calls import Call, Item
from chatledger.values import now

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

THREAD_PREFIX: Final = "CHECKPOINT_"
"""The partition key of a thread's checkpoints is this and its id."""
REFERENCE: Final = frozenset({"type", "ref_loc", "ref_key"})
"""The attributes of an item that say where its value is."""
CHECKPOINT_FIELDS: Final = REFERENCE | {"ns", "id"}
WRITE_FIELDS: Final = REFERENCE | {"task_id", "idx", "channel"}


def no_owner(_: str) -> str | None:
    return None


# Values -------------------------------------------------------------------------------------------


def _keep_extension(code: int, data: bytes) -> Any:
    """Leave a serialized object as it is, but take apart what the thread stores in parts.

    So an object is copied byte by byte, and its class need not be importable where the copy runs.
    """
    if code == EXT_DELTA_SNAPSHOT:
        return _DeltaSnapshot(EXACT.loads_typed(("msgpack", data)))
    if code == EXT_CONSTRUCTOR_POS_ARGS:
        module, name, arguments = EXACT.loads_typed(("msgpack", data))
        if (module, name) == ("langgraph.types", "Send"):
            from langgraph.types import Send

            node, argument, *timeout = arguments
            return Send(node, argument, timeout=timeout[0]) if timeout else Send(node, argument)
    return ormsgpack.Ext(code, data)


EXACT: Final = JsonPlusSerializer(__unpack_ext_hook__=_keep_extension)


@dataclass(frozen=True, slots=True)
class Write:
    """A pending write, as ``DynamoDBSaver`` stores it."""

    task_path: str
    task_id: str
    index: int
    channel: str
    value: Any


@dataclass(frozen=True, slots=True)
class Original:
    """A checkpoint of the table with its pending writes, in the order of their tasks."""

    namespace: str
    id: str
    parent_id: str | None
    checkpoint: Any
    metadata: Any
    writes: Sequence[Write]


# The table ----------------------------------------------------------------------------------------


class DynamoDBSaverTable(TableReader):
    """A table of langgraph-checkpoint-aws's ``DynamoDBSaver``, to be passed to ``copy_threads``.

    A thread that has expired is left out: one whose checkpoints all have a ttl that has passed.

    Args:
        table: The table's name.
        client: ``boto3.client("dynamodb")`` for the account and region of the table. It needs
            ``dynamodb:Scan``, ``Query`` and ``GetItem``.
        s3: ``boto3.client("s3")``, if the saver had an ``s3_offload_config``. It needs
            ``s3:GetObject``.
        bucket: Its ``bucket_name``.
        key_prefix: Its ``key_prefix``.
        owner: Returns the owner for a thread id, for a saver with owners.
        units_per_second: Limit on the read units to consume.
        segment: The segment of the table to read: its number, from 0, and the number of segments.
            Several threads or processes can copy a large table together, a segment each.

    Attributes:
        expired: The number of threads that were left out because they have expired.

    Raises:
        InvalidArgument: ``segment`` is invalid, or only one of ``s3`` and ``bucket`` is given.
    """

    permissions = "dynamodb:Scan, Query and GetItem"

    def __init__(
        self,
        table: str,
        *,
        client: "DynamoDBClient",
        s3: Any = None,
        bucket: str | None = None,
        key_prefix: str | None = None,
        owner: Callable[[str], str | None] = no_owner,
        units_per_second: float | None = None,
        segment: tuple[int, int] | None = None,
    ) -> None:
        if (s3 is None) != (bucket is None):
            raise InvalidArgument("Pass both s3 and bucket, or none of them.")
        super().__init__(table, client, units_per_second=units_per_second, segment=segment)
        self._s3, self._bucket = s3, bucket or ""
        self._key_prefix = f"{key_prefix.strip('/')}/" if key_prefix else ""
        self.owner_of = owner

    def scan_params(self) -> dict[str, Any]:
        return {
            "FilterExpression": "begins_with(PK, :prefix)",
            "ExpressionAttributeValues": {":prefix": {"S": THREAD_PREFIX}},
            "ProjectionExpression": "PK",
        }

    def thread_ids(self) -> Iterator[str]:
        """Yield the id of every thread."""
        previous = None
        for item in self.items():  # the checkpoints of a thread follow one another
            thread_id = item["PK"]["S"].removeprefix(THREAD_PREFIX)
            if thread_id != previous:
                yield thread_id
            previous = thread_id

    def checkpoints(self, thread_id: str) -> list[Item]:
        """Return the thread's checkpoints without their values, in the order of their ids.

        Raises:
            StoreMismatch: The values of one are in S3, and no client for it was given, or an item
                is no checkpoint.
        """
        found = self._query(THREAD_PREFIX + thread_id, CHECKPOINT_FIELDS)
        found.sort(key=lambda item: item["id"]["S"])
        if self._s3 is None and any(item["ref_loc"]["S"] == "S3" for item in found):
            raise StoreMismatch(
                "It has checkpoints in S3; pass s3= and bucket=, and key_prefix= if there is one."
            )
        return found

    def read(self, thread_id: str, item: Item) -> Original | None:
        """Return the checkpoint of ``item``; None if its values are gone.

        ``DynamoDBSaver`` also ignores checkpoints and writes whose values are gone: it writes them
        after the item, and their ttl is another.

        Raises:
            StoreMismatch: It cannot be read.
        """
        namespace, id = item["ns"]["S"], item["id"]["S"]
        stored = self._value(item)
        if stored is None:
            return None
        writes = []
        for each in self._query(f"WRITES_{thread_id}#{namespace}#{id}", WRITE_FIELDS):
            value = self._value(each)
            if value is not None:
                task_path = each.get("task_path", {}).get("S", "")
                place = task_path, each["task_id"]["S"], int(each["idx"]["N"])
                writes.append(Write(*place, each["channel"]["S"], value[0]))
        return Original(
            namespace=namespace,
            id=id,
            parent_id=item.get("parent_checkpoint_id", {}).get("S"),
            checkpoint=stored[0]["checkpoint"],
            metadata=get_checkpoint_metadata({}, stored[0]["metadata"]),  # as the saver puts it
            writes=sorted(writes, key=lambda write: (write.task_path, write.task_id, write.index)),
        )

    def _query(self, key: str, fields: Set[str]) -> list[Item]:
        params: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "PK = :key",
            "ExpressionAttributeValues": {":key": {"S": key}},
            "ConsistentRead": True,
        }
        items: list[Item] = []
        while True:
            reply = self.run_within_limit(single_call(Call("Query", params)))
            items += reply["Items"]
            if not all(fields <= item.keys() for item in items):
                raise StoreMismatch("It has items that DynamoDBSaver has not written.")
            if "LastEvaluatedKey" not in reply:
                return items
            params["ExclusiveStartKey"] = reply["LastEvaluatedKey"]

    def _value(self, item: Item) -> tuple[Any] | None:
        """Return the value to which ``item`` refers; None if it is gone."""
        in_s3 = item["ref_loc"]["S"] == "S3"
        data = (self._from_s3 if in_s3 else self._from_table)(item["ref_key"]["S"])
        if data is None:
            return None
        try:
            if item.get("compression", {}).get("S") == "gzip":
                data = gzip.decompress(data)
            return (EXACT.loads_typed((item["type"]["S"], data)),)
        except Exception as failed:
            raise StoreMismatch(
                f"A value of type {item['type']['S']!r} in it cannot be read "
                f"({type(failed).__name__})."
            ) from failed

    def _from_table(self, key: str) -> bytes | None:
        params = {
            "TableName": self._table,
            "Key": {"PK": {"S": key}, "SK": {"S": "CHUNK"}},
            "ConsistentRead": True,
        }
        reply = self.run_within_limit(single_call(Call("GetItem", params)))
        data: bytes | None = reply.get("Item", {}).get("payload", {}).get("B")
        return data

    def _from_s3(self, key: str) -> bytes | None:
        if self._s3 is None:
            raise StoreMismatch("It has writes in S3; pass s3= and bucket=.")
        try:
            reply = self._s3.get_object(Bucket=self._bucket, Key=self._key_prefix + key)
        except ClientError as failed:
            code = failed.response["Error"]["Code"]
            if code == "NoSuchKey":
                return None
            raise AccessRefused(
                f"S3 refused to read from bucket {self._bucket!r} ({code}); check the bucket's "
                "name and region, and allow s3:GetObject and s3:ListBucket."
            ) from failed
        data: bytes = reply["Body"].read()
        return data


# Copying ------------------------------------------------------------------------------------------


def copy_threads(
    source: DynamoDBSaverTable, saver: ChatledgerSaver, *, progress: OnProgress | None = None
) -> Copied:
    """Copy every thread of the table to the saver's store. Nothing is written to the table.

    A thread keeps its id, and its checkpoints their ids, values, versions, metadata, parents,
    namespaces and pending writes. What checkpoints have in common is stored once, as if the graph
    had run on this saver; the saver's owners, lifetime, encryption and conversations apply.

    Each thread is read back from the store and compared. One that was continued there, or that
    cannot be read, is left as it is and reported; the others are copied. If the copy is
    interrupted, call it again: it compares what has arrived, and adds what is missing or new.

    Args:
        source: The table.
        saver: The saver, over a ``Store``, with LangGraph's default serializer or an
            ``EncryptedSerializer`` of it.
        progress: Called after each checkpoint and each thread. If it raises an error, the copy
            stops with that error.

    Returns:
        ``conversations`` is the number of threads that are now the same in both places, and
        ``messages`` that of the checkpoints that this call copied. ``problems`` names the other
        threads.

    Raises:
        AccessRefused: AWS refused the credentials, or they lack a permission.
        InvalidArgument: The saver has an async store, or a serializer of another kind.
        StoreUnavailable: The table or the store did not answer in time.
        TableMissing: One of the tables does not exist.
    """
    if isinstance(saver.store, AsyncStore):
        raise InvalidArgument("saver is over an AsyncStore; make one over a store of open_store.")
    if not isinstance(leaf_serde(saver.serde), JsonPlusSerializer):
        raise InvalidArgument(
            f"saver has a serializer of type {type(saver.serde).__name__}; threads can be copied "
            "to one with JsonPlusSerializer, or EncryptedSerializer over it."
        )
    reporter = ProgressReporter(progress)
    try:
        for thread_id in source.thread_ids():
            try:
                steps = _copy_thread(source, saver._plans, thread_id, reporter)
                reporter.copied.conversations += saver._run(thread_id, steps)
            except (TableMissing, TableMismatch):
                raise  # no other thread can be copied either
            except (TargetDiffers, InvalidArgument, StoreMismatch) as problem:
                reporter.copied.problems.append(Problem(thread_id, str(problem)))
            except NotFound:
                why = "In the target it belongs to another owner."
                reporter.copied.problems.append(Problem(thread_id, why))
            reporter.report(thread_id, is_done=True)
    except ProgressCallbackFailed as failed:
        raise failed.error from None
    return reporter.copied


def _copy_thread(
    source: DynamoDBSaverTable, plans: Plans, thread_id: str, reporter: ProgressReporter
) -> Steps[bool]:
    """Copy the checkpoints and writes that the target lacks, and compare everything.

    Returns False if the thread has expired or was deleted.

    Raises:
        TargetDiffers: The target has another content.
    """
    items = source.checkpoints(thread_id)
    if all(int(item.get("ttl", {}).get("N", 2**63)) <= now().timestamp() for item in items):
        source.expired += bool(items)
        return False
    config = _config(plans, thread_id, source.owner_of(thread_id))
    address = plans.address(config)
    # The branches of a thread are no rivals here. Its messages are shown when it is complete.
    writer = replace(plans, settings=replace(plans.settings, rivals="fork", messages=None))
    thread = (yield from _read_back(plans, address)) or Thread()
    known = {(item["ns"]["S"], item["id"]["S"]) for item in items}
    there = {(found.namespace, found.id) for found in thread.visible()}
    if any(place not in known and place[1] > items[0]["id"]["S"] for place in there):
        raise TargetDiffers("In the target it was continued: it has checkpoints of its own.")
    # If its beginning has expired, nothing tells what was copied before.
    if there and not there & known and "parent_checkpoint_id" not in items[0]:
        raise TargetDiffers("In the target another thread has its id.")
    if plans.settings.messages is not None:
        shown = yield from read_shown(plans.settings, address, thread.shown_since)
        if shown.is_gone:
            raise TargetDiffers("In the target its conversation was deleted.")
    originals: dict[tuple[str, str], _Content] = {}
    for item in items:
        original = source.read(thread_id, item)
        if original is None:
            known.discard((item["ns"]["S"], item["id"]["S"]))
            continue
        namespace, parent_id = original.namespace, original.parent_id
        is_in_target = parent_id in thread.checkpoints.get(namespace, {})
        if not is_in_target and (namespace, parent_id) not in known:
            original = replace(original, parent_id=None)  # the parent has expired
        content = _Content.of_original(original)
        originals[namespace, original.id] = content
        found = thread.find(namespace, original.id)
        if found is not None:
            copied = content.of_copy(thread, found)
            if copied == content:
                continue
            if copied.checkpoint != content.checkpoint or not content.includes(copied):
                raise TargetDiffers(f"Checkpoint {original.id} differs in the target.")
        yield from _write(writer, config, original, has_checkpoint=found is not None)
        reporter.copied.messages += found is None
        reporter.report(thread_id)
    thread = (yield from _read_back(plans, address)) or Thread()
    for (namespace, id), content in originals.items():
        found = thread.find(namespace, id)
        if found is None or content.of_copy(thread, found) != content:
            raise TargetDiffers(f"Checkpoint {id} differs in the target.")
    yield from plans.get_tuple(config)  # shows the messages in a conversation, if it is to
    return bool(originals)


def _config(plans: Plans, thread_id: str, owner: str | None) -> RunnableConfig:
    configurable = {"thread_id": thread_id}
    key = plans.settings.owner_key
    if key is not None:
        if owner is None:
            raise InvalidArgument("It has no owner, but the saver has owners; pass owner=.")
        configurable[key] = owner
    return {"configurable": configurable}


def _read_back(plans: Plans, address: Address) -> Steps[Thread | None]:
    """Read the thread from the store, and not from what this process remembers."""
    plans.settings.cache.forget(address.conversation_id)
    return (yield from plans.refresh(address.conversation_id, address.owner))


def _write(
    plans: Plans, config: RunnableConfig, original: Original, *, has_checkpoint: bool
) -> Steps[None]:
    """Write the checkpoint, unless the target has it, and its writes."""
    place = config["configurable"] | {"checkpoint_ns": original.namespace}
    if not has_checkpoint:
        after: RunnableConfig = {"configurable": place | {"checkpoint_id": original.parent_id}}
        # Without new versions, only what differs from the parent's versions is written.
        yield from plans.put(after, original.checkpoint, original.metadata, {})
    after = {"configurable": place | {"checkpoint_id": original.id}}
    tasks: dict[tuple[str, str], list[Write]] = {}
    for write in original.writes:
        tasks.setdefault((write.task_id, write.task_path), []).append(write)
    for task, writes in tasks.items():
        yield from plans.put_writes(after, _by_index(writes), *task)


def _by_index(writes: Sequence[Write]) -> list[tuple[str, Any]]:
    """Return the writes of a task such that each is at its index.

    Special writes, such as interrupts, have negative indexes, and may be anywhere between them.
    """
    special = [write for write in writes if write.index < 0]
    ordered: list[Write] = []
    for write in writes:
        if write.index >= 0:
            while len(ordered) < write.index and special:
                ordered.append(special.pop())
            ordered.append(write)
    return [(write.channel, write.value) for write in ordered + special]


@dataclass(frozen=True, slots=True)
class _Content:
    """The content of a checkpoint, as digests and the names of what is compared.

    The target may have more: the owner in its metadata, or the value of a channel that has not
    changed since the parent, but that the source does not repeat.
    """

    channels: frozenset[str]
    fields: frozenset[str]
    checkpoint: bytes
    writes: tuple[bytes, ...]
    lasting: frozenset[bytes]
    """The writes that later ones do not replace, and each answer to an interrupt."""

    @classmethod
    def of_original(cls, original: Original) -> "_Content":
        channels = frozenset(
            original.checkpoint["channel_values"].keys()
            & original.checkpoint["channel_versions"].keys()
        )
        fields = frozenset(original.metadata)
        values = [(write.task_id, write.channel, write.value) for write in original.writes]
        return cls(
            channels,
            fields,
            _digest_checkpoint(
                original.parent_id, original.checkpoint, original.metadata, channels, fields
            ),
            tuple(map(_digest, values)),
            _lasting(values),
        )

    def of_copy(self, thread: Thread, found: StoredCheckpoint) -> "_Content":
        """Return the same of the copy."""
        copy: CheckpointTuple = thread.as_tuple(found, EXACT, {}, None)
        parent_id = found.parent.id if found.parent is not None else None
        writes = copy.pending_writes or ()
        return replace(
            self,
            checkpoint=_digest_checkpoint(
                parent_id, copy.checkpoint, copy.metadata, self.channels, self.fields
            ),
            writes=tuple(map(_digest, writes)),
            lasting=_lasting(writes),
        )

    def includes(self, copied: "_Content") -> bool:
        """Return whether all that tasks have written to the copy, they have also written here."""
        return copied.lasting <= self.lasting


def _lasting(writes: Sequence[tuple[str, str, Any]]) -> frozenset[bytes]:
    found = set()
    for task_id, channel, value in writes:
        if channel == RESUME:
            # Each answer is written by itself first, and then added to the list of the task.
            is_list = task_id != NULL_TASK and isinstance(value, list)
            for number, answer in enumerate(value if is_list else [value]):
                found.add(_digest((RESUME, answer)))
                if is_list:
                    found.add(_digest((task_id, number, answer)))
        elif channel not in (ERROR, INTERRUPT):
            found.add(_digest((task_id, channel, value)))
    return frozenset(found)


def _digest_checkpoint(
    parent_id: str | None,
    checkpoint: Any,
    metadata: Any,
    channels: frozenset[str],
    fields: frozenset[str],
) -> bytes:
    rest = sorted((name, value) for name, value in checkpoint.items() if name != "channel_values")
    parts = [
        sorted((name, value) for name, value in mapping.items() if name in names)
        for mapping, names in ((checkpoint["channel_values"], channels), (metadata, fields))
    ]
    return _digest((parent_id, rest, parts))


def _digest(value: Any) -> bytes:
    return blake2b(EXACT.dumps_typed(value)[1], digest_size=16).digest()
