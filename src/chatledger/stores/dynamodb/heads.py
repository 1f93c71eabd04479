"""A conversation's head: what lists show, renewed behind the log and never ahead of it."""

import json
from typing import Any, TypeAlias

from chatledger.json_values import Json, dumps
from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Plan
from chatledger.stores.dynamodb.log import CONDITION_FAILED, Log, Torn
from chatledger.stores.dynamodb.records import HEAD, LAYOUT, Head, Record, decode_head, key

MENDED_AFTER = 60_000
"""How old (ms) a record must be until a reader renews the head that its writer has not."""

Description: TypeAlias = tuple[str | None, dict[str, Json]]
"""A conversation's title and metadata."""


def encode_opening(title: str | None, metadata: dict[str, Json]) -> str | None:
    """Title and metadata as the first record of a life keeps them."""
    return dumps([title, metadata]) if title or metadata else None


def decode_opening(first: Record | None) -> Description:
    if first is None or first.opening is None:
        return None, {}
    title, metadata = json.loads(first.opening)
    return title, metadata


def attributes(title: str | None, metadata: dict[str, Json] | None) -> dict[str, Attribute | None]:
    """What of a head says so; an empty one is none, and None is left as it is."""
    changed: dict[str, Attribute | None] = {}
    if title is not None:
        changed["title"] = {"S": title} if title else None
    if metadata is not None:
        changed["metadata"] = {"S": dumps(metadata)} if metadata else None
    return changed


def renew(log: Log, last: Record) -> Plan[None]:
    """Have the head say how the conversation stands with ``last``, unless it is further already."""
    # Only a life's first record makes a head: a writer that slept for days must not bring the head
    # of a deleted conversation back.
    opening = decode_opening(last) if last.position == last.life else None
    if not (yield from _renew(log, last, opening)):
        yield from mend(log)


def mend(log: Log) -> Plan[None]:
    """Renew the head from the log, and make it where it is missing or of a former life.

    Raises ``Torn`` where the conversation goes on meanwhile.
    """
    standing, _ = yield from log.end()
    last, head = standing.record, standing.head
    if last is None or last.closed:
        return
    opening = None
    if head is None or not head.is_of(last):
        opening = yield from _opening(log, last)
    yield from _renew(log, last, opening)


def close(log: Log, closing: Record, stamp: dict[str, Attribute | None]) -> Plan[None]:
    """Mark the head of a conversation that ended with ``closing``; no list shows it any more."""
    gone = ("owner", "title", "metadata", "edit", "updated_at", "message_count", "expiry")
    changed: dict[str, Attribute | None] = {
        "v": {"N": str(LAYOUT)},
        "life": {"N": str(closing.life)},
        "created_at": {"N": str(closing.created_at)},
        "revision": {"N": str(closing.revision)},
        "deleted": {"BOOL": True},
        **dict.fromkeys(gone),
    }
    yield from _changed(log, changed | stamp, _NEWER_OR_NONE, closing)


def edit(
    log: Log, last: Record, head: Head | None, changed: dict[str, Attribute | None], token: str
) -> dict[str, Any]:
    """The parameters of an update that changes the head of the life of ``last`` so.

    Only as it was seen, and it leaves its token there: so a try that arrives late undoes nobody's
    change, and one whose answer was lost is known again.
    """
    seen = {} if head is None or head.edit is None else {"edit": {"S": head.edit}}
    return log.change(
        HEAD,
        changed | {"edit": {"S": token}},
        "#life = :life AND #created_at = :created_at AND attribute_not_exists(#deleted) AND "
        + ("#edit = :edit" if seen else "attribute_not_exists(#edit)"),
        life={"N": str(last.life)},
        created_at={"N": str(last.created_at)},
        **seen,
    )


def drop(log: Log, head: Head) -> Plan[None]:
    """Delete the head of a conversation whose log is gone."""
    params = log.guarded("#revision = :revision", revision={"N": str(head.revision)})
    try:
        yield Call("DeleteItem", params | {"Key": key(log.id, HEAD)})
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise


def described(log: Log, last: Record, head: Head | None) -> Plan[Description]:
    """Title and metadata of the conversation whose last record is ``last``.

    A head that its writer did not come to renew is mended on the way. Raises ``Torn`` where the
    conversation went on meanwhile.
    """
    stale = head is None or not head.is_of(last) or head.revision < last.revision
    if stale and last.updated_at + MENDED_AFTER < log.table.time():
        yield from mend(log)
    if head is not None and head.is_of(last):
        return head.title, head.metadata
    return (yield from _opening(log, last))


def _opening(log: Log, last: Record) -> Plan[Description]:
    if last.position == last.life:
        return decode_opening(last)
    first = yield from log.record_at(last.life)
    if first is None:
        # It is freed once there is a head that says the same, or another end.
        standing, _ = yield from log.end()
        now, head = standing.record, standing.head
        if now is None or now.token != last.token or (head is not None and head.is_of(last)):
            raise Torn
    return decode_opening(first)


# ``:name_`` is the value that an update sets the attribute to.
_NEWER = "#revision < :revision_ AND #life = :life_ AND #created_at = :created_at_"
_NEWER_OR_NONE = "attribute_not_exists(#pk) OR #revision < :revision_ OR #created_at < :created_at_"
_OF_ANOTHER = (
    "attribute_not_exists(#pk) OR #created_at < :created_at_ OR "
    "#revision < :revision_ AND (#life <> :life_ OR #created_at <> :created_at_)"
)


def _renew(log: Log, last: Record, opening: Description | None) -> Plan[bool]:
    """Whether the head is of this life then; with an ``opening`` it is made where it was not."""
    changed: dict[str, Attribute | None] = {
        "v": {"N": str(LAYOUT)},
        "life": {"N": str(last.life)},
        "owner": None if last.owner is None else {"S": last.owner},
        "created_at": {"N": str(last.created_at)},
        "updated_at": {"N": str(last.updated_at)},
        "message_count": {"N": str(last.message_count)},
        "revision": {"N": str(last.revision)},
        "expiry": _number(last.expiry),
        "expires_at": _number(last.stamp),
    }
    if opening is not None:
        title, metadata = opening
        made = attributes(title or "", metadata) | {"deleted": None, "edit": None}
        ours = yield from _changed(log, changed | made, _OF_ANOTHER, last)
        if not ours:
            return ours is None
        # Somebody made it meanwhile, and its title may have been changed since.
    return (yield from _changed(log, changed, _NEWER, last)) is not False


def _changed(
    log: Log, changed: dict[str, Attribute | None], condition: str, last: Record
) -> Plan[bool | None]:
    """Change the head under that condition; None says that it was, else whether the one that is
    there is of the life of ``last``.
    """
    try:
        yield Call("UpdateItem", log.change(HEAD, changed, condition))
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
        return failed.item is not None and decode_head(failed.item).is_of(last)
    return None


def _number(value: int | None) -> dict[str, Any] | None:
    return None if value is None else {"N": str(value)}
