"""The plan that appends messages."""

from dataclasses import dataclass
from math import inf
from typing import Any

from chatledger.conversations import Appended
from chatledger.errors import ChatledgerError, Conflict, NotFound
from chatledger.stores.dynamodb import heads
from chatledger.stores.dynamodb.bodies import PreparedBody, StoredBody, delete_parts
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.heads import finish_write
from chatledger.stores.dynamodb.log import (
    InconsistentRead,
    Log,
    LostRace,
    MissedMessages,
    best_effort,
)
from chatledger.stores.dynamodb.plans.truncate import clean_up, plan_truncation
from chatledger.stores.dynamodb.records import (
    LAYOUT,
    Record,
    StoredDescription,
    encode_description,
    key_sort,
)
from chatledger.stores.dynamodb.table import TOMBSTONE_LIFETIME, LogEnd, RaceRetries, Table, ttl_at
from chatledger.stores.dynamodb.ttl import (
    await_beginning,
    first_record,
    next_record,
    renew_ttls,
    ttl_of_parts,
)
from chatledger.stores.idempotency import check_key_use
from chatledger.stores.operations import Append

LATER_CLEANUP_SECONDS = 0.2
"""The longest time (s) that an append spends on freeing what earlier operations removed."""
REREAD_EVERY = 3
"""Every so many lost races, the log's end is read again; after the others, the winner's record is
taken as the log's end."""


def append(table: Table, operation: Append) -> Plan[Appended]:
    """Append as ``Store.append`` promises.

    Each attempt starts from the log's end: cached, as a rival left it, or read anew.

    1. Raise the errors of the contract, but only if the log's end was read in this call.
    2. Renew TTLs if that is due, and write the parts of a long body, which later attempts reuse.
    3. Put the record at the next position. All writers aim at the same one, so one of them wins.
    4. A loser continues after the winner's record, which its failed write returned, or reads the
       log's end again.
    5. The winner updates the head, and frees what was truncated.
    """
    log = Log(table, operation.conversation_id)
    attempts = _Attempts(operation, log, table.token(), PreparedBody(operation.texts))
    retries, missed = RaceRetries(table), MissedMessages()
    log_end = table.cached_end(log.id)
    while True:
        try:
            if log_end is None:
                log_end, _ = yield from log.read_end()
                attempts.was_read = True
            outcome = yield from attempts.try_after(log_end)
            if outcome is not None:
                break
            log_end = None
            yield from retries.back_off()
        except InconsistentRead as inconsistent:
            missed.add(log, inconsistent)
            log_end = None
            yield from retries.back_off()
        except LostRace as lost:
            attempts.was_read = False
            # A tombstone says nothing about the conversation, and a key that is taken may belong to
            # an append that came after the rival's record.
            log_end = None
            if (
                isinstance(lost.by, Record)
                and not lost.extra_failed
                and (retries.count + 1) % REREAD_EVERY
            ):
                log_end = LogEnd(lost.by, None, table.now())
            attempts.key_may_be_taken = attempts.key_may_be_taken or lost.extra_failed
            yield from retries.back_off()
    if isinstance(outcome, Appended):
        return outcome  # the result of an earlier call with this idempotency key
    record, read_at = outcome, attempts.read_at
    if operation.reply_follows and record.position != record.generation and not attempts.truncates:
        table.cache_end(log.id, record, read_at=read_at)
    else:
        has_head = yield from finish_write(log, record, read_at=read_at)
        if has_head and record.truncated:
            seconds = inf if attempts.truncates else LATER_CLEANUP_SECONDS
            yield from clean_up(log, record, read_at=read_at, seconds=seconds)
    return Appended(range(record.position, record.revision + 1), record.revision)


@dataclass(slots=True)
class _Attempts:
    """The attempts at one append, and the state that they share."""

    operation: Append
    log: Log
    token: str
    prepared: PreparedBody
    stored: StoredBody | None = None
    was_read: bool = False
    """True if the log's end was read in this call, and is neither cached nor a rival's record."""
    key_may_be_taken: bool = False
    truncates: bool = False
    read_at: tuple[int, float] = (0, 0.0)

    def try_after(self, log_end: LogEnd) -> Plan[Record | Appended | None]:
        """Try to append after ``log_end``.

        Returns:
            The record that was put, or the result of an earlier append with the same idempotency
            key, or None if the log's end must be read before the next attempt.

        Raises:
            LostRace: A rival was faster.
            InconsistentRead: The log's end must be read again.
        """
        log, table, idempotency_key = self.log, self.log.table, self.operation.idempotency_key
        last = log_end.live_record(table.time())
        refusal = self._refusal(last)
        if refusal is not None and not self.was_read:
            return None
        if idempotency_key is not None and last and (refusal or self.key_may_be_taken):
            done = yield from self._read_key(last, idempotency_key)
            if done is not None:
                # The earlier call may have failed before it updated the head.
                if heads.is_stale(last, log_end.head) and not self.operation.reply_follows:
                    yield from best_effort(log, heads.rebuild_head(log), "update the head")
                return done
        if refusal is not None:
            raise refusal
        self.read_at = table.now()
        record = yield from self._prepare_record(log_end, last)
        if record is None:
            return None
        extra = []
        if idempotency_key is not None:
            extra = [self._key_part(record, idempotency_key)]
        yield from log.put(record, log_end, *extra)
        return record

    def _refusal(self, last: Record | None) -> ChatledgerError | None:
        """Return the error to raise if nothing may be appended after ``last``, or None."""
        owner, revision = self.operation.owner, self.operation.revision
        if last is None:
            return NotFound(self.log.id) if revision else None
        if owner not in (None, last.owner):
            return NotFound(self.log.id)
        if revision is not None and revision != last.revision:
            return Conflict(self.log.id, expected=revision, revision=last.revision)
        return None

    def _prepare_record(self, log_end: LogEnd, last: Record | None) -> Plan[Record | None]:
        """Return the record to put after ``log_end``; None if its body must be written again."""
        log, table, truncate_after = self.log, self.log.table, self.operation.truncate_after
        beginning, messages = self.operation.beginning, len(self.operation.texts)
        lifetime = table.lifetime_for(beginning.expires_in)
        truncation = None
        if last is not None:
            if truncate_after is not None and truncate_after < last.last_seq:
                truncation = yield from plan_truncation(log, last, truncate_after)
            last = yield from renew_ttls(log, last)
        else:
            yield from await_beginning(table, log_end, lifetime)
        if self.stored is None:
            ttl = ttl_of_parts(table, last, lifetime, self.prepared.part_count)
            self.stored = yield from self.prepared.store(log, ttl)
        items = self.stored.items
        if last is None:
            record = first_record(
                table,
                log_end,
                self.token,
                owner=self.operation.owner,
                lifetime=lifetime,
                width=messages,
                part_items=items,
            )
            description = encode_description(StoredDescription(beginning.description))
            record = record._replace(initial_description=description)
        else:
            record = next_record(table, log_end, last, self.token, width=messages, part_items=items)
        if not self.stored.outlives(record):
            # The conversation has begun meanwhile, with another lifetime.
            parts = delete_parts(log, self.stored.token)
            yield from best_effort(log, parts, "delete the parts of a message")
            self.stored = None
            return None
        self.truncates = truncation is not None
        if truncation is not None:
            record = truncation.apply_to(record)
        return self.stored.attach_to(record)

    def _key_part(self, record: Record, idempotency_key: str) -> dict[str, Any]:
        """Return the part of the record's transaction that stores the result under the key."""
        item = self.log.key(key_sort(idempotency_key)) | {
            "v": {"N": str(LAYOUT)},
            "life": {"N": str(record.generation)},
            "created_at": {"N": str(record.created_at)},
            "position": {"N": str(record.position)},
            "messages": {"N": str(record.messages)},
            "call": {"S": self.operation.fingerprint},
            "expires_at": {"N": str(ttl_at(self.log.table.time() + TOMBSTONE_LIFETIME))},
        }
        # A key left by an earlier generation does not count; ``created_at`` tells it apart too.
        condition = "attribute_not_exists(#pk) OR #life <> :life OR #created_at <> :created_at"
        put = self.log.put_params(item, condition, life=item["life"], created_at=item["created_at"])
        return {"Put": put}

    def _read_key(self, last: Record, idempotency_key: str) -> Plan[Appended | None]:
        """Return the result of the append with that key in this generation, or None.

        Raises:
            KeyReused: That append had other messages.
            InconsistentRead: The key belongs to a later generation, or to a record after ``last``.
                Only a later record says whether the conversation is live.
        """
        if self.operation.owner not in (None, last.owner):
            return None
        item = yield from self.log.get(key_sort(idempotency_key))
        if item is None:
            return None
        generation, created_at = int(item["life"]["N"]), int(item["created_at"]["N"])
        first, messages = int(item["position"]["N"]), int(item["messages"]["N"])
        # After TTL has deleted a whole log, positions start at 1 again.
        if first > last.revision and created_at >= last.created_at:
            raise InconsistentRead
        if (generation, created_at) != (last.generation, last.created_at):
            return None
        seqs = range(first, first + messages)
        if "call" in item:  # layout 1 has no fingerprints
            check_key_use(item["call"]["S"], self.operation.fingerprint, seqs=seqs)
        return Appended(seqs, seqs[-1])
