"""A conversation's head: the summary that lists read, updated after the log and never before it."""

import enum
import json
from typing import Any

from chatledger.conversations import (
    DESCRIPTION_FIELDS,
    RESERVED_PREFIX,
    Conversation,
    Description,
    fields_of,
)
from chatledger.stores.dynamodb.calls import (
    CONDITION_FAILED,
    Attribute,
    Call,
    CallFailed,
    Plan,
    try_write,
)
from chatledger.stores.dynamodb.log import InconsistentRead, Log, best_effort
from chatledger.stores.dynamodb.records import (
    DESCRIPTION_ATTRIBUTES,
    HEAD,
    LAYOUT,
    Head,
    Record,
    StoredDescription,
    decode_description,
    decode_head,
    description_attributes,
)
from chatledger.stores.dynamodb.table import DAY, LogEnd
from chatledger.stores.idempotency import Creation
from chatledger.values import dumps, to_datetime

REBUILT_AFTER = 60_000
"""A reader updates a stale head once the last record is this old (ms): by then its writer must have
died."""

# ``:name_`` is the value to which an update sets the attribute.
_NEWER = "#revision < :revision_ AND #life = :life_ AND #created_at = :created_at_"
_NEWER_OR_NONE = "attribute_not_exists(#pk) OR #revision < :revision_ OR #created_at < :created_at_"
_OF_ANOTHER = (
    "attribute_not_exists(#pk) OR #created_at < :created_at_ OR "
    "#revision < :revision_ AND (#life <> :life_ OR #created_at <> :created_at_)"
)


class HeadUpdate(enum.Enum):
    """The outcome of a conditional update of a head."""

    DONE = enum.auto()
    NEWER = enum.auto()
    """The head belongs to the same generation, and is as new as the update or newer."""
    OTHER = enum.auto()
    """The head is missing, or belongs to another generation."""


def finish_write(log: Log, record: Record, *, read_at: tuple[int, float]) -> Plan[bool]:
    """Finish a write whose record was put: cache the log's end, and update the head.

    Return whether the head was updated. If not, the head may be missing. It is later created from
    the generation's first record, so do not free that record.
    """
    if log.table.has_slept(read_at):
        # By now the conversation may be gone, and must not be listed again.
        return (yield from best_effort(log, rebuild_head(log), "update the head"))
    log.table.cache_end(log.id, record, read_at=read_at)
    return (yield from best_effort(log, update_head(log, record), "update the head"))


def update_head(log: Log, last: Record) -> Plan[None]:
    """Update the head to the state of the conversation after ``last``, unless it is newer."""
    # Only the first record of a generation creates a head. Otherwise a writer that slept for days
    # could bring back the head of a deleted conversation.
    initial = decode_description(last) if last.position == last.generation else None
    if (yield from _update_from(log, last, initial)) is HeadUpdate.OTHER:
        yield from rebuild_head(log)


def rebuild_head(log: Log) -> Plan[None]:
    """Update the head from the log, or create it if it is missing or of an earlier generation.

    Raises:
        InconsistentRead: The conversation was written to meanwhile.
    """
    log_end, _ = yield from log.read_end()
    last, head = log_end.record, log_end.head
    if last is None or last.closed:
        return
    initial = None
    if head is None or not head.is_of(last):
        initial = yield from _read_initial_description(log, last)
    if log.table.has_slept(log_end.read_at):
        raise InconsistentRead  # by now the conversation may be gone, and must not be listed again
    yield from _update_from(log, last, initial)


def close_head(log: Log, closing: Record, ttl: Attribute) -> Plan[None]:
    """Mark the head of a conversation as deleted, so that no list shows it."""
    removed = (
        *("owner", *DESCRIPTION_ATTRIBUTES, "edit", "metadata_revision", "created_by"),
        *("updated_at", "message_count", "expiry"),
    )
    changed: dict[str, Attribute | None] = {
        "v": {"N": str(LAYOUT)},
        "life": {"N": str(closing.generation)},
        "created_at": {"N": str(closing.created_at)},
        "revision": {"N": str(closing.revision)},
        "deleted": {"BOOL": True},
        "expires_at": ttl,
        **dict.fromkeys(removed),
    }
    yield from _update(log, changed, _NEWER_OR_NONE, closing)


def description_update(
    log: Log,
    last: Record,
    head: Head | None,
    changed: dict[str, Attribute | None],
    *,
    token: str,
    metadata_revision: int,
) -> dict[str, Any]:
    """Return the parameters of an update that changes the description in the head.

    The update succeeds only if no other update has changed the head since it was read, and leaves
    ``token`` in it. So an attempt that arrives late cannot undo another change, and an attempt
    whose reply was lost is recognised.
    """
    seen = {} if head is None or head.edit is None else {"edit": {"S": head.edit}}
    return log.update_params(
        HEAD,
        changed | {"edit": {"S": token}, "metadata_revision": {"N": str(metadata_revision)}},
        "#life = :life AND #created_at = :created_at AND attribute_not_exists(#deleted) AND "
        + ("#edit = :edit" if seen else "attribute_not_exists(#edit)"),
        life={"N": str(last.generation)},
        created_at={"N": str(last.created_at)},
        **seen,
    )


def delete_head(log: Log, head: Head) -> Plan[bool]:
    """Delete the head of a conversation whose log is gone; return whether it was still there."""
    params = log.conditional_params(
        "#revision = :revision AND #life = :life AND #created_at = :created_at",
        revision={"N": str(head.revision)},
        life={"N": str(head.generation)},
        created_at={"N": str(head.created_at)},
    )
    return (yield from try_write(Call("DeleteItem", params | {"Key": log.key(HEAD)})))


def read_description(log: Log, last: Record, head: Head | None) -> Plan[StoredDescription]:
    """Return the description of the conversation.

    Args:
        log: The conversation's log.
        last: Its last record.
        head: Its head, as it was read together with ``last``.

    Raises:
        InconsistentRead: The conversation was written to meanwhile.
    """
    if head is not None and head.is_of(last):
        if head.deleted:  # an eventually consistent read misses the closing record
            raise InconsistentRead
        creation = None if head.created_by is None else Creation(*json.loads(head.created_by))
        return StoredDescription(head.description, head.metadata_revision, creation)
    return (yield from _read_initial_description(log, last))


def conversation_from_head(id: str, head: Head) -> Conversation:
    """Return the conversation as its head describes it."""
    return conversation(id, head, StoredDescription(head.description, head.metadata_revision))


def conversation(id: str, state: Record | Head, description: StoredDescription) -> Conversation:
    """Return the conversation as it is after a record, or as of its head."""
    metadata_revision = description.metadata_revision
    if metadata_revision is None:  # the description has never changed
        metadata_revision = max(state.created_at, 0)
    return Conversation(
        id=id,
        owner=state.owner,
        **{name: getattr(description.description, name) for name in DESCRIPTION_FIELDS},
        created_at=to_datetime(state.created_at),
        updated_at=to_datetime(state.updated_at),
        message_count=state.message_count,
        revision=state.revision,
        expires_at=None if state.expiry is None else to_datetime(state.expiry),
        metadata_revision=metadata_revision,
    )


def describe(
    log: Log, last: Record, log_end: LogEnd, *, at_once: bool = False
) -> Plan[StoredDescription]:
    """Return the description; update the head if its writer died before doing so.

    With ``at_once``, a head that lags is updated even if its writer may still be alive. A repeated
    call that finds nothing left to do needs this: the earlier call may have failed before it
    updated the head, and lists must show the conversation.

    Raises:
        InconsistentRead: The conversation was written to meanwhile.
    """
    description = yield from read_description(log, last, log_end.head)
    if is_abandoned(log, last, log_end.head) or (at_once and is_stale(last, log_end.head)):
        yield from best_effort(log, rebuild_head(log), "update the head")
    return description


def is_abandoned(log: Log, last: Record, head: Head | None) -> bool:
    """Return whether the head is older than ``last`` because the writer of ``last`` died.

    No list shows a reserved conversation, and its writers need not update the head. Theirs counts
    as abandoned only if it lags so far that it might expire, or that ``scan`` would mislead.
    """
    if not is_stale(last, head) or last.updated_at + REBUILT_AFTER >= log.table.time():
        return False
    if head is None or not head.is_of(last) or not log.id.startswith(RESERVED_PREFIX):
        return True
    lag = last.updated_at - head.updated_at
    return lag > (DAY if last.lifetime is None else min(DAY, last.lifetime // 4))


def is_stale(last: Record, head: Head | None) -> bool:
    """Return whether the head is older than ``last``, or missing."""
    return head is None or not head.is_of(last) or head.revision < last.revision


def _read_initial_description(log: Log, last: Record) -> Plan[StoredDescription]:
    if last.position == last.generation:
        return decode_description(last)
    first = yield from log.record_at(last.generation)
    if not isinstance(first, Record):
        # The first record is removed only once a head has the description, or the log has moved on.
        log_end, _ = yield from log.read_end()
        now, head = log_end.record, log_end.head
        if now is None or now.token != last.token or (head is not None and head.is_of(last)):
            raise InconsistentRead
        return StoredDescription(Description())
    return decode_description(first)


def _update_from(log: Log, last: Record, initial: StoredDescription | None) -> Plan[HeadUpdate]:
    """Update the head from the record ``last``, or create it with an ``initial`` description."""
    changed: dict[str, Attribute | None] = {
        "v": {"N": str(LAYOUT)},
        "life": {"N": str(last.generation)},
        "owner": None if last.owner is None else {"S": last.owner},
        "created_at": {"N": str(last.created_at)},
        "updated_at": {"N": str(last.updated_at)},
        "message_count": {"N": str(last.message_count)},
        "revision": {"N": str(last.revision)},
        "expiry": _number(last.expiry),
        "expires_at": _number(last.ttl),
    }
    if initial is not None:
        creation = initial.creation
        made = description_attributes(fields_of(initial.description)) | {
            "deleted": None,
            "edit": None,
            "metadata_revision": None,
            "created_by": None if creation is None else {"S": dumps(creation)},
        }
        outcome = yield from _update(log, changed | made, _OF_ANOTHER, last)
        if outcome is not HeadUpdate.NEWER:
            return outcome
        # Another client has created the head meanwhile, and may have changed its description since.
    return (yield from _update(log, changed, _NEWER, last))


def _update(
    log: Log, changed: dict[str, Attribute | None], condition: str, last: Record
) -> Plan[HeadUpdate]:
    try:
        yield Call("UpdateItem", log.update_params(HEAD, changed, condition))
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
        if failed.item is not None and decode_head(failed.item).is_of(last):
            return HeadUpdate.NEWER
        return HeadUpdate.OTHER
    return HeadUpdate.DONE


def _number(value: int | None) -> dict[str, Any] | None:
    return None if value is None else {"N": str(value)}
