"""Plans that change or remove a message, or change the owner or the description."""

from dataclasses import replace as replace_fields

from chatledger.conversations import Conversation
from chatledger.errors import Conflict, NotFound, StoreUnavailable
from chatledger.stores.dynamodb import bodies, heads
from chatledger.stores.dynamodb.bodies import PreparedBody
from chatledger.stores.dynamodb.calls import CANCELLED, CONDITION_FAILED, Call, CallFailed, Plan
from chatledger.stores.dynamodb.cleanup import rewrite_params
from chatledger.stores.dynamodb.heads import conversation, describe, finish_write
from chatledger.stores.dynamodb.log import (
    InconsistentRead,
    Log,
    LostRace,
    best_effort,
    require_live,
    retry_until_won,
)
from chatledger.stores.dynamodb.plans.read import Span, follow_chain, read_span
from chatledger.stores.dynamodb.plans.truncate import remove_after
from chatledger.stores.dynamodb.records import (
    Record,
    ReplacedChunk,
    decode_head,
    description_attributes,
)
from chatledger.stores.dynamodb.table import RaceRetries, Table
from chatledger.stores.dynamodb.ttl import next_record, renew_ttls
from chatledger.stores.operations import Claim, Rewrite, Update
from chatledger.values import dumps

MAX_REPLACED_CHUNKS = 200
"""From this many replaced chunks on, ``replace`` writes the whole body again."""


def rewrite_message(table: Table, operation: Rewrite) -> Plan[Conversation]:
    """Replace or remove a message as ``Store.replace`` and ``Store.remove`` promise.

    One transaction rewrites the record that holds the message, and puts a record that advances the
    revision.
    """
    seq, text, revision = operation.seq, operation.text, operation.revision
    log = Log(table, operation.conversation_id)

    def attempt() -> Plan[Conversation]:
        log_end, read = yield from log.read_end()
        last = require_live(log, log_end, operation.owner)
        if revision is not None and revision != last.revision:
            raise Conflict(log.id, expected=revision, revision=last.revision)
        description = yield from describe(log, last, log_end)
        if text is None and seq == last.last_seq:
            # The last message of a conversation is never one that was removed.
            last = yield from remove_after(log, log_end, last, seq - 1, read)
            return conversation(log.id, last, description)
        # Renewed first, since the change of the record is conditional on its TTL.
        renewed = yield from renew_ttls(log, last)
        if renewed is not last:
            last, read = renewed, []
        found = yield from follow_chain(log, last, 1, start=seq, after=seq - 1, read=read)
        if not found or not found[0].messages:
            raise NotFound(log.id, seq=seq)
        holder = found[0].record
        change = yield from _prepare_change(
            log, last, holder, seq, "null" if text is None else text
        )
        marker = next_record(table, log_end, last, table.token())
        marker = marker._replace(rewrites=holder.position)
        changed = change.record._replace(rewritten_at=marker.position)
        if text is None:
            changed = changed.without(seq)
            marker = marker._replace(
                message_count=last.message_count - 1, removals=last.removals + 1
            )
        try:
            yield from log.put(marker, log_end, {"Put": rewrite_params(log, holder, changed)})
        except (InconsistentRead, LostRace):
            yield from best_effort(
                log, change.delete_new(), "delete the parts of an unstored message"
            )
            raise
        yield from finish_write(log, marker, read_at=log_end.read_at)
        yield from best_effort(log, change.delete_old(), "delete the parts of a replaced message")
        return conversation(log.id, marker, description)

    return (yield from retry_until_won(log, attempt))


class _Change:
    """A record with a replaced message, and the parts that it no longer needs."""

    def __init__(
        self, log: Log, holder: Record, record: Record, chunk: ReplacedChunk | None = None
    ) -> None:
        self.record = record
        self._log = log
        self._holder = holder
        self._chunk = chunk

    def delete_new(self) -> Plan[None]:
        """Delete the parts that were written for the changed record, which was not stored."""
        if self._chunk is None:
            yield from bodies.delete_body(self._log, self.record)
            return
        for chunk in self.record.replaced_chunks:
            if chunk.first == self._chunk.first:
                yield from bodies.delete_chunk(self._log, chunk)

    def delete_old(self) -> Plan[None]:
        """Delete the parts that the record no longer needs."""
        if self._chunk is not None:
            yield from bodies.delete_chunk(self._log, self._chunk)
        else:
            yield from bodies.delete_body(self._log, self._holder)


def _prepare_change(log: Log, last: Record, holder: Record, seq: int, text: str) -> Plan[_Change]:
    """Return the change to ``holder`` that puts ``text`` in place of the message ``seq``."""
    index = seq - holder.position
    in_chunks = holder.body is None and not holder.chunks
    if in_chunks and len(holder.replaced_chunks) < MAX_REPLACED_CHUNKS:
        chunk = yield from bodies.chunk_of(log, holder, index)
        if chunk is None:
            raise InconsistentRead(seq, last.token)
        first = holder.position + chunk.first
        end = min(first + chunk.messages - 1, last.below_truncated(holder.last_seq))
        values = yield from read_span(log, last, Span(holder, first, end))
        texts = [dumps(value) for value in values]
        texts[index - chunk.first] = text
        changed = yield from bodies.replace_chunk(log, holder, chunk, texts)
        return _Change(log, holder, changed, chunk)
    end = last.below_truncated(holder.last_seq)
    values = yield from read_span(log, last, Span(holder, holder.position, end))
    texts = [dumps(value) for value in values]
    texts[index] = text
    stored = yield from PreparedBody(texts).store(log, holder.ttl)
    changed = holder._replace(
        body=stored.body,
        body_token=stored.token,
        part_count=stored.part_count,
        replaced_chunks=(),
        chunks=(),
        messages=len(texts),
        message_count=holder.message_count - (holder.messages - len(texts)),
    )
    return _Change(log, holder, changed)


def update(table: Table, operation: Update) -> Plan[Conversation]:
    """Change the description as ``Store.update`` promises, by one update of the head."""
    revision, metadata_revision = operation.revision, operation.metadata_revision
    log, token = Log(table, operation.conversation_id), table.token()
    changed = description_attributes(operation.changes)
    retries = RaceRetries(table)
    while True:
        log_end, _ = yield from log.read_end()
        last = require_live(log, log_end, operation.owner)
        if revision is not None and revision != last.revision:
            raise Conflict(log.id, expected=revision, revision=last.revision)
        head = log_end.head
        try:
            description = yield from heads.read_description(log, last, head)
            if head is None or not head.is_of(last):
                yield from heads.rebuild_head(log)
                head = None
        except InconsistentRead:
            yield from retries.back_off()
            continue
        before = conversation(log.id, last, description)
        if metadata_revision not in (None, before.metadata_revision):
            assert metadata_revision is not None
            raise Conflict(
                log.id,
                expected=metadata_revision,
                revision=before.metadata_revision,
                of_metadata=True,
            )
        if not changed:
            return before
        new_revision = max(table.time(), before.metadata_revision + 1)
        head_update = heads.description_update(
            log, last, head, changed, token=token, metadata_revision=new_revision
        )
        try:
            if revision is None:
                yield Call("UpdateItem", head_update)
            else:
                parts = [{"Update": head_update}, log.position_free(log_end.next)]
                yield Call("TransactWriteItems", {"TransactItems": parts})
            break
        except CallFailed as failed:
            if failed.code not in (CONDITION_FAILED, CANCELLED):
                raise
            found = failed.item or (failed.reasons[0][1] if failed.reasons else None)
            if found is not None and decode_head(found).edit == token:
                break  # an earlier attempt has landed, and its reply was lost
            if failed.unknown:
                # If it landed, others have changed the head since.
                raise StoreUnavailable(
                    "A reply was lost, and the conversation has changed since; read it, and "
                    "update it again if necessary.",
                    may_have_landed=True,
                ) from failed
        yield from retries.back_off()
    return replace_fields(before, **operation.changes, metadata_revision=new_revision)


def claim(table: Table, operation: Claim) -> Plan[Conversation]:
    """Change the owner as ``Store.claim`` promises, by a record that has the new one."""
    owner = operation.owner
    log = Log(table, operation.conversation_id)

    def attempt() -> Plan[Conversation]:
        log_end, _ = yield from log.read_end()
        last = require_live(log, log_end, None)
        if last.owner not in (None, owner):
            raise NotFound(log.id)
        description = yield from describe(log, last, log_end, at_once=last.owner == owner)
        if last.owner is None:
            last = yield from renew_ttls(log, last)
            last = next_record(table, log_end, last, table.token())._replace(owner=owner)
            yield from log.put(last, log_end)
            yield from finish_write(log, last, read_at=log_end.read_at)
        return conversation(log.id, last, description)

    return (yield from retry_until_won(log, attempt))
