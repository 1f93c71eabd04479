"""Copy of the histories in a table of the old class to a Chatledger store."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from chatledger.conversations import Conversation
from chatledger.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, StoreMismatch
from chatledger.importing.comparison import canonical_text, compare, import_missing
from chatledger.langchain.checkpoints import Checkpoint, CopyReport, Problem
from chatledger.langchain.connections import run_plan, shared_client
from chatledger.langchain.elements import decode_messages
from chatledger.langchain.errors import HistoryTableMissing, error_for
from chatledger.langchain.plans import StoredHistory, read_history
from chatledger.langchain.stored_history import FIRST_ITEM_KEY, HistoryTable, is_cleared
from chatledger.langchain.values import decode_value
from chatledger.langchain_messages import to_chatledger
from chatledger.messages import Message, normalize_time, now
from chatledger.stores.contract import Store
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item, Plan, paced

if TYPE_CHECKING:
    import boto3

Key = Mapping[str, Any]
"""The key of an item of the source, such as ``{"SessionId": "1"}``."""

COPY_PERMISSIONS = "dynamodb:DescribeTable, Scan, GetItem and BatchGetItem"
MAX_SCAN_SEGMENTS = 64


def joined_key(key: Key) -> str:
    """Return the values of a key joined by ``#``; with a single value that is the session id."""
    return "#".join(str(value) for value in key.values())


def no_owner(_: Key) -> str | None:
    return None


def copy_langchain_table(
    source: str,
    store: Store,
    *,
    endpoint_url: str | None = None,
    boto3_session: "boto3.Session | None" = None,
    history_messages_key: str = "History",
    ttl_key_name: str = "expireAt",
    ttl: int | None = None,
    conversation_id: Callable[[Key], str] = joined_key,
    owner: Callable[[Key], str | None] = no_owner,
    segments: int = 4,
    units_per_second: float | None = None,
    checkpoint: Path | str | None = None,
    progress: Callable[[CopyReport], object] | None = None,
) -> CopyReport:
    """Copy every history of a LangChain table to a store. Nothing is written to the source.

    A history becomes a conversation with the same messages in the same order and of the same types.
    If it has a TTL, the conversation expires at the same second; expired histories are left out.
    The old class stored no times: the conversation and its messages get the time of the last write
    if ``ttl`` tells it, and otherwise the time of the copy.

    A history that cannot be read, or differs from a conversation in the store, is left out as a
    whole and reported in ``problems``. Items without ``history_messages_key`` are not histories and
    are counted in ``others``.

    If the copy is interrupted, call it again: conversations that have arrived are compared and not
    copied again.

    Args:
        source: The table to copy.
        store: The store to copy to.
        endpoint_url: URL of DynamoDB; by default that of the AWS region.
        boto3_session: Session to take credentials and region from.
        history_messages_key: Attribute that holds the messages.
        ttl_key_name: The TTL attribute of the source.
        ttl: Seconds that a conversation lives after each later change; pass what the old class was
            given. By default this is what the history has left now.
        conversation_id: Returns the conversation id for the key of an item.
        owner: Returns the owner for the key of an item.
        segments: Number of parallel scans (1 to 64).
        units_per_second: Limit on the read units that all scans consume together.
        checkpoint: Path of a file from which a repeated call continues the scan. It is deleted when
            the copy is complete.
        progress: Called with the report so far after each page of the source.

    Returns:
        The number of conversations and messages copied, and the histories that were not.

    Raises:
        InvalidArgument: An argument is invalid, or the checkpoint is of a different copy.
        TableMissing: The source does not exist.
        AccessRefused: AWS refused the credentials, or they lack a permission.
        StoreUnavailable: DynamoDB or the store did not answer in time.
    """
    if not isinstance(segments, int) or not 1 <= segments <= MAX_SCAN_SEGMENTS:
        raise InvalidArgument(
            f"segments is {segments!r}; it must be a whole number, 1 to {MAX_SCAN_SEGMENTS}."
        )
    client = shared_client(boto3_session, endpoint_url)
    saved = Checkpoint.load(checkpoint, source, segments)
    table = HistoryTable(
        name=source,
        key={},  # each history's own is filled in when it is copied
        messages_attribute=history_messages_key,
        ttl_attribute=ttl_key_name,
    )
    rate = None if units_per_second is None else units_per_second / segments

    def run_source_plan(plan: Plan[Any]) -> Any:
        try:
            return run_plan(plan, client)
        except CallFailed as failed:
            if failed.code == "ResourceNotFoundException":
                remedy = "name an existing table, and its region or endpoint_url."
                raise HistoryTableMissing(source, remedy) from failed.__cause__
            raise error_for(failed, table, permissions=COPY_PERMISSIONS) from failed.__cause__

    key_names = run_source_plan(_read_key_names(source))
    table_copy = _TableCopy(
        table,
        store,
        key_names,
        ttl,
        conversation_id,
        owner,
        lambda plan: run_source_plan(paced(plan, rate)),
    )
    failed = Event()

    def copy_segment(segment: int) -> None:
        try:
            while not saved.is_done(segment) and not failed.is_set():
                scan = _scan_page(table, segment, segments, saved.last_key(segment))
                page = run_source_plan(paced(scan, rate))
                report = CopyReport()
                for item in page["Items"]:
                    table_copy.copy_item(item, report)
                report_so_far = saved.advance(segment, page.get("LastEvaluatedKey"), report)
                if progress is not None:
                    progress(report_so_far)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(segments, thread_name_prefix="copy-langchain") as pool:
        running = [pool.submit(copy_segment, segment) for segment in range(segments)]
    for each in running:
        each.result()
    return saved.finish()


@dataclass(frozen=True, slots=True)
class _TableCopy:
    """Copies single histories and reports on them."""

    table: HistoryTable
    store: Store
    key_names: Sequence[str]
    ttl: int | None
    id_of: Callable[[Key], str]
    owner_of: Callable[[Key], str | None]
    run_paced: Callable[[Plan[Any]], Any]
    started_at: datetime = field(default_factory=now)

    def copy_item(self, item: Item, report: CopyReport) -> None:
        """Copy the history whose first item is ``item``, if it is one, and update ``report``."""
        messages_attribute = self.table.messages_attribute
        if FIRST_ITEM_KEY in item:
            return  # an archive, which is read with its first item
        if messages_attribute not in item:
            report.others += 1
            return
        if is_cleared(item, messages_attribute):
            return  # it is not deleted yet
        key = {name: decode_value(item[name], ()) for name in self.key_names}
        table = replace(self.table, key={name: item[name] for name in self.key_names})
        try:
            reading = read_history(table, first=item, finish_removal=False)
            history: StoredHistory = self.run_paced(reading)
            if history.has_expired:
                report.expired += 1
                return
            where = f"{messages_attribute!r} in item {key} of table {table.name!r}"
            messages = [
                to_chatledger(message) for message in decode_messages(history.elements, where)
            ]
            conversation = self._conversation(key, len(messages), history.expires_at)
            self._import(conversation, messages, report)
            report.conversations += 1
        except (StoreMismatch, InvalidArgument, AlreadyExists, Conflict, NotFound) as error:
            report.problems.append(Problem(key, str(error)))

    def _conversation(self, key: Key, count: int, expires_at: int | None) -> Conversation:
        time = self.started_at
        try:
            expiry = None if expires_at is None else datetime.fromtimestamp(expires_at, UTC)
        except (OverflowError, OSError, ValueError):
            raise StoreMismatch(
                f"Its TTL, {expires_at}, is not a time in seconds since 1970; other software seems "
                "to have written it."
            ) from None
        if expiry is not None and self.ttl:
            time = min(time, normalize_time(expiry - timedelta(seconds=self.ttl)))
        return Conversation(
            id=self.id_of(key),
            owner=self.owner_of(key),
            title=None,
            metadata={},
            created_at=time,
            updated_at=time,
            message_count=count,
            revision=count,
            expires_at=expiry,
        )

    def _import(
        self, conversation: Conversation, messages: Sequence[Message], report: CopyReport
    ) -> None:
        time = conversation.updated_at
        dated = [replace(message, created_at=time) for message in messages]
        comparison = compare(self.store, conversation, dated, _is_same)
        for count in import_missing(self.store, conversation, comparison):
            report.messages += count


def _is_same(theirs: Message, ours: Message) -> bool:
    return _canonical_text(theirs) == _canonical_text(ours)


def _canonical_text(message: Message) -> str:
    own = message.extra.get("langchain")
    # A message without an id in LangChain gets a new one with each conversion.
    has_new_id = isinstance(own, dict) and "id" in own
    return canonical_text(message, with_id=not has_new_id)


def _read_key_names(table: str) -> Plan[list[str]]:
    reply = yield Call("DescribeTable", {"TableName": table})
    # HASH sorts before RANGE.
    schema = sorted(reply["Table"]["KeySchema"], key=lambda each: str(each["KeyType"]))
    return [each["AttributeName"] for each in schema]


def _scan_page(
    table: HistoryTable, segment: int, segments: int, last_key: Item | None
) -> Plan[dict[str, Any]]:
    params: dict[str, Any] = {
        "TableName": table.name,
        "Segment": segment,
        "TotalSegments": segments,
        "ConsistentRead": True,
    }
    if last_key is not None:
        params["ExclusiveStartKey"] = last_key
    reply: dict[str, Any] = yield Call("Scan", params)
    return reply
