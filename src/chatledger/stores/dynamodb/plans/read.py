"""Plans that read a conversation, or list an owner's.

A read shows the log as of one moment, although no DynamoDB query is a snapshot. Each record names
the message before it, and the write that last changed its own messages. So a reader that starts
from a last record, and finds the chain complete, has read the conversation as it was after that
record. Otherwise the read is inconsistent, and the reader starts again from the log's end.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from math import ceil, inf
from typing import Any, NamedTuple

from chatledger.conversations import (
    MAX_READ_BYTES,
    MAX_REVISION,
    RESERVED_PREFIX,
    Conversation,
    Listing,
    Page,
    Tail,
)
from chatledger.messages import StoredMessage, decode_body
from chatledger.stores.cursors import decode_cursor, encode_cursor
from chatledger.stores.dynamodb.bodies import read_body
from chatledger.stores.dynamodb.calls import Call, Plan
from chatledger.stores.dynamodb.heads import conversation, conversation_from_head, describe
from chatledger.stores.dynamodb.log import InconsistentRead, Log, require_live, retry_inconsistent
from chatledger.stores.dynamodb.records import (
    HEAD,
    Head,
    Record,
    Tombstone,
    conversation_of,
    decode_head,
    decode_record,
    key,
    record_sort,
)
from chatledger.stores.dynamodb.table import INDEX, Table
from chatledger.stores.operations import Get, ListOwned, ReadPage, ReadTail

MIN_HEADS = 100
"""The least number of heads that a further query of the index reads, after those not listed."""


def get(table: Table, operation: Get) -> Plan[Conversation]:
    """Return a conversation as ``Store.get`` promises."""
    log = Log(table, operation.conversation_id, consistent=table.consistent)

    def attempt() -> Plan[Conversation]:
        log_end, _ = yield from log.read_end()
        last = require_live(log, log_end, operation.owner)
        return conversation(log.id, last, (yield from describe(log, last, log_end)))

    return (yield from retry_inconsistent(log, attempt))


def tail(table: Table, operation: ReadTail) -> Plan[Tail]:
    """Return the last messages as ``Store.tail`` promises."""
    log = Log(table, operation.conversation_id, consistent=table.consistent)

    def attempt() -> Plan[Tail]:
        log_end, records = yield from log.read_end(operation.limit)
        last = require_live(log, log_end, operation.owner)
        wanted = min(operation.limit, last.message_count)
        spans = yield from read_backward(log, last, wanted, start=last.last_seq, read=records)
        messages = yield from read_messages(log, last, spans, backward=True)
        messages.reverse()
        description = yield from describe(log, last, log_end)
        return Tail(conversation(log.id, last, description), messages)

    return (yield from retry_inconsistent(log, attempt))


def page(table: Table, operation: ReadPage) -> Plan[Page]:
    """Return consecutive messages as ``Store.page`` promises."""
    after, before, limit = operation.after, operation.before, operation.limit
    log = Log(table, operation.conversation_id, consistent=table.consistent)
    until = MAX_REVISION if before is None else before

    def attempt() -> Plan[Page]:
        log_end, _ = yield from log.read_end()
        last = require_live(log, log_end, operation.owner)
        # One more message than is returned shows whether there are further ones.
        if operation.is_backward:
            spans = yield from read_backward(log, last, limit + 1, start=until - 1)
        else:
            spans = yield from read_forward(log, last, limit + 1, after=after or 0, before=until)
        found = sum(span.messages for span in spans)
        messages = yield from read_messages(log, last, spans, backward=operation.is_backward)
        messages = messages[:limit]
        return Page(messages, messages[-1].seq if len(messages) < found else None)

    return (yield from retry_inconsistent(log, attempt))


def list_owned(table: Table, operation: ListOwned) -> Plan[Listing]:
    """Return an owner's conversations as ``Store.list`` promises."""
    limit = operation.limit
    start = None if operation.cursor is None else decode_cursor(operation.cursor)
    # One more conversation than is returned shows whether there are further ones.
    found = yield from query_heads(table, operation.owner, limit + 1, start)
    conversations = [conversation_from_head(id, head) for id, head in found[:limit]]
    if len(found) <= limit:
        return Listing(conversations, None)
    conversation_id, head = found[limit - 1]
    return Listing(conversations, encode_cursor(head.updated_at, conversation_id))


def query_heads(
    table: Table,
    owner: str,
    limit: int,
    start: tuple[int, str] | None,
    *,
    forward: bool = False,
    include_hidden: bool = False,
) -> Plan[list[tuple[str, Head]]]:
    """Return at most ``limit`` conversations of ``owner`` with their ids, newest activity first.

    Args:
        table: The table.
        owner: The owner.
        limit: The most conversations to return.
        start: The ``updated_at`` and id of a conversation; return those after it.
        forward: Return the oldest activity first.
        include_hidden: Return expired conversations too, and those with reserved ids.
    """
    params: dict[str, Any] = {
        "TableName": table.name,
        "IndexName": INDEX,
        "KeyConditionExpression": "#owner = :owner",
        "ExpressionAttributeNames": {"#owner": "owner"},
        "ExpressionAttributeValues": {":owner": {"S": owner}},
        "ScanIndexForward": forward,
    }
    if start is not None:
        updated_at, conversation_id = start
        params["ExclusiveStartKey"] = key(conversation_id, HEAD) | {
            "owner": {"S": owner},
            "updated_at": {"N": str(updated_at)},
        }
    found: list[tuple[str, Head]] = []
    count = limit
    while len(found) < limit:
        reply = yield Call("Query", params | {"Limit": count})
        time = table.time()
        for item in reply["Items"]:
            head, conversation_id = decode_head(item), conversation_of(item["pk"]["S"])
            is_listed = head.is_live(time) and not conversation_id.startswith(RESERVED_PREFIX)
            if is_listed or include_hidden:
                found.append((conversation_id, head))
        if "LastEvaluatedKey" not in reply:
            break
        params["ExclusiveStartKey"] = reply["LastEvaluatedKey"]
        count = max(limit - len(found), MIN_HEADS)
    return found[:limit]


# The chain of records -----------------------------------------------------------------------------

MIN_RECORDS = 100
"""The least number of records that a query asks for after one that found no message."""
EXTRA_RECORDS = 8
"""The number of records that a query asks for in addition, since not every record has messages."""
MAX_RECORDS = 1_000
"""The largest number of records that a query asks for."""


class Span(NamedTuple):
    """The messages of ``record`` from seq ``first`` to seq ``last``, except for removed ones."""

    record: Record
    first: int
    last: int

    @property
    def messages(self) -> int:
        """The number of messages."""
        removed = sum(
            max(0, min(end, self.last) - max(start, self.first) + 1)
            for start, end in self.record.removed
        )
        return self.last - self.first + 1 - removed

    def first_messages(self, n: int) -> "Span":
        """Return the span, cut to its first ``n`` messages."""
        last = self.first + n - 1
        for start, end in self.record.removed:
            if start > last:
                break
            last += max(0, end - max(start, self.first) + 1)
        return self._replace(last=min(self.last, last))

    def last_messages(self, n: int) -> "Span":
        """Return the span, cut to its last ``n`` messages."""
        first = self.last - n + 1
        for start, end in reversed(self.record.removed):
            if end < first:
                break
            first -= max(0, min(end, self.last) - start + 1)
        return self._replace(first=max(self.first, first))

    def trimmed(self) -> "Span":
        """Return the span from its first message to its last one; it must have a message."""
        first, last = self.first, self.last
        for start, end in self.record.removed:
            if start <= first <= end:
                first = end + 1
        for start, end in reversed(self.record.removed):
            if start <= last <= end:
                last = start - 1
        return Span(self.record, first, last)


def read_backward(
    log: Log, last: Record, n: int, *, start: int, read: Iterable[Record | Tombstone] = ()
) -> Plan[list[Span]]:
    """Return the last ``n`` messages up to seq ``start``, newest first.

    Args:
        log: The conversation's log.
        last: Its last record.
        n: The most messages to return.
        start: The highest seq to return.
        read: The log's last items, newest first, if they have been read already.

    Raises:
        InconsistentRead: What was read does not belong to one moment.
    """
    found = yield from follow_chain(log, last, n, start=start, read=read)
    return [span.trimmed() for span in found if span.messages]


def follow_chain(
    log: Log,
    last: Record,
    n: int,
    *,
    start: int,
    after: int = 0,
    read: Iterable[Record | Tombstone] = (),
) -> Plan[list[Span]]:
    """Return spans with the last ``n`` messages between the seqs ``after`` and ``start``.

    Spans whose messages were all removed are included. The first span ends at the last seq up to
    ``start`` that was not truncated, even if its message was removed.
    """
    found: list[Span] = []
    seq = last.below_truncated(min(start, last.last_seq))
    anchored = seq == last.last_seq  # whether ``seq`` is known to be a message
    proven = True  # whether the chain shows that no message is missing
    replaced: dict[int, int] = {}
    records = deque(read)
    lowest = records[-1].position if records else MAX_REVISION
    limit = followed = found_messages = 0
    while seq > after and n > 0:
        if not records:
            if not limit:
                limit = min(n, MAX_RECORDS)
            elif followed and not found_messages:  # all of them were removed
                limit = min(2 * limit + EXTRA_RECORDS, MAX_RECORDS)
            else:
                limit = _next_limit(n, limit, found_messages)
            followed = found_messages = 0
            items = yield from log.query(
                record_sort(last.generation),
                record_sort(min(seq, lowest - 1)),
                limit=limit,
                forward=False,
            )
            if not items:
                break
            records.extend(map(decode_record, items))
            lowest = records[-1].position
        record = records.popleft()
        if isinstance(record, Record) and record.rewrites and record.position <= last.position:
            replaced.setdefault(record.rewrites, record.position)
        if isinstance(record, Tombstone) or record.position > seq:
            continue
        if record.position < last.generation:
            break
        _check_version(record, last, replaced)
        if record.messages:
            highest = min(seq, record.last_seq)
            if highest < seq:
                if anchored:
                    raise InconsistentRead(seq, last.token)
                proven = False
            if highest <= after:
                break
            span = Span(record, max(record.position, after + 1), highest).last_messages(n)
            found.append(span)
            n -= span.messages
            followed += 1
            found_messages += span.messages
        elif anchored:
            raise InconsistentRead(seq, last.token)
        seq, anchored = min(seq, record.previous_seq), True
    if anchored and seq > after and n > 0:
        raise InconsistentRead(seq, last.token)
    if not proven or (not anchored and seq > after):
        # No record named the newest message that was found, so a newer one may be missing: the
        # log's end must still be the same.
        log_end, _ = yield from log.read_end()
        if log_end.record is None or log_end.record.token != last.token:
            raise InconsistentRead
    return found


def read_forward(log: Log, last: Record, n: int, *, after: int, before: int) -> Plan[list[Span]]:
    """Return the first ``n`` messages between the seqs ``after`` and ``before``, oldest first.

    Raises:
        InconsistentRead: What was read does not belong to one moment.
    """
    found: list[Span] = []
    replaced = {last.rewrites: last.position} if last.rewrites else {}
    missing, position = n, max(after + 1, last.generation)
    limit = min(n + EXTRA_RECORDS, MAX_RECORDS)
    while missing > 0 and position <= last.revision and not (found and found[-1].last >= before):
        missing_before = missing
        items = yield from log.query(
            record_sort(position), record_sort(last.revision), limit=limit, forward=True
        )
        for record in map(decode_record, items):
            position = record.revision + 1
            if isinstance(record, Tombstone):
                continue
            if record.rewrites:
                replaced[record.rewrites] = record.position
            if not record.messages or missing <= 0 or (found and found[-1].last >= before):
                continue
            highest = last.below_truncated(record.last_seq)
            if highest < record.position:
                continue
            _check_version(record, last, replaced)
            if not found and record.previous_seq > after:
                found = yield from _read_between(log, last, after, record.previous_seq)
                missing -= sum(span.messages for span in found)
            if found and record.previous_seq != found[-1].last:
                raise InconsistentRead(record.previous_seq, last.token)
            found.append(Span(record, record.position, highest))
            missing -= found[-1].messages
        if len(items) < limit:
            break
        limit = _next_limit(missing, limit, missing_before - missing)
    for span in found:
        _check_version(span.record, last, replaced)
    if missing > 0 and not (found and found[-1].last >= before):
        # The end of the log was reached: no message may be missing there.
        if not found and last.last_seq > after:
            found = yield from _read_between(log, last, after, last.last_seq)
        elif found and found[-1].last != last.last_seq:
            raise InconsistentRead(last.last_seq, last.token)
    return _first(n, found, before)


def _next_limit(missing: int, limit: int, found: int) -> int:
    """Return how many records to query after a query for ``limit`` records.

    Args:
        missing: The number of messages that are still wanted.
        limit: How many records the last query asked for.
        found: The number of messages that it found: among its items may be many tombstones.
    """
    if found <= 0:
        return min(max(2 * limit, MIN_RECORDS), MAX_RECORDS)
    return min(ceil(missing * limit / found) + EXTRA_RECORDS, MAX_RECORDS)


def read_messages(
    log: Log, last: Record, spans: Sequence[Span], *, backward: bool = False
) -> Plan[list[StoredMessage]]:
    """Return the messages of the spans, in their order.

    Reading stops after ``MAX_READ_BYTES``; the first message is returned whatever its size.

    Args:
        log: The conversation's log.
        last: Its last record, from which the spans were found.
        spans: The spans, oldest first, or newest first if ``backward``.
        backward: Whether to return the messages newest first.

    Raises:
        InconsistentRead: A body part is missing.
    """
    found: list[StoredMessage] = []
    left = MAX_READ_BYTES
    for record, first, end in spans:
        low, high = first - record.position, end - record.position + 1
        body = yield from read_body(log, record, low, high, most_bytes=left, backward=backward)
        seqs = range(record.position + body.first, record.position + body.first + len(body.values))
        values = list(zip(body.values, seqs, body.sizes, strict=True))
        for value, seq, size in reversed(values) if backward else values:
            if value is None:
                continue
            left -= size
            if found and left < 0:
                return found
            found.append(decode_body(value, seq=seq))
        if len(values) < high - low:
            if body.stopped:
                return found
            missing = seqs.start - 1 if backward else first + len(values)
            raise InconsistentRead(missing, last.token)
    return found


def read_span(log: Log, last: Record, span: Span) -> Plan[list[dict[str, Any] | None]]:
    """Return all messages of the span as JSON values, with None for each removed one.

    Raises:
        InconsistentRead: A body part is missing.
    """
    record = span.record
    low, high = span.first - record.position, span.last - record.position + 1
    body = yield from read_body(log, record, low, high, most_bytes=inf)
    if body.first != low or len(body.values) != high - low:
        raise InconsistentRead(span.first + len(body.values), last.token)
    return body.values


def decode_span(span: Span, values: Sequence[dict[str, Any] | None]) -> list[StoredMessage]:
    """Return the messages of the span from the values that ``read_span`` returned."""
    return [
        decode_body(value, seq=seq)
        for seq, value in enumerate(values, span.first)
        if value is not None
    ]


def count_messages(
    log: Log, last: Record, *, after: int = 0, before: int = MAX_REVISION
) -> Plan[int]:
    """Return the number of messages between the seqs ``after`` and ``before``."""
    count = 0
    while after < min(last.last_seq, before - 1):
        most = min(before - after, MAX_RECORDS)
        spans = yield from read_forward(log, last, most, after=after, before=before)
        count += sum(span.messages for span in spans)
        if not spans:
            break
        after = spans[-1].last
    return count


def _read_between(log: Log, last: Record, after: int, seq: int) -> Plan[list[Span]]:
    """Return spans with the messages after ``after`` up to and with ``seq``, oldest first."""
    found = yield from follow_chain(log, last, seq - after, start=seq, after=after)
    if not found or found[0].last != seq:
        raise InconsistentRead(seq, last.token)
    return found[::-1]


def _first(n: int, spans: Sequence[Span], before: int) -> list[Span]:
    """Return the spans, cut to their first ``n`` messages and to seqs below ``before``."""
    chosen: list[Span] = []
    for span in spans:
        cut = span._replace(last=min(span.last, before - 1)).first_messages(n)
        if cut.last >= cut.first and cut.messages:
            chosen.append(cut.trimmed())
            n -= cut.messages
    return chosen


def _check_version(record: Record, last: Record, replaced: dict[int, int]) -> None:
    """Raise ``InconsistentRead`` if the record's messages are newer or older than ``last``.

    A query may see one part of a transaction before the other (AWS: transaction isolation levels):
    for example, the record that a ``replace`` adds, before the change to the record that holds the
    message.
    """
    if record.created_at != last.created_at:
        raise InconsistentRead  # an eventually consistent read sees an earlier generation
    if record.rewritten_at > last.revision:
        raise InconsistentRead
    if record.rewritten_at < replaced.get(record.position, 0):
        raise InconsistentRead
