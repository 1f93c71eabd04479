"""When TTL may eat what: no item of a conversation that lives, and none of it twice paid for.

Items are stamped later than their conversation expires. Where activity carries it on past them,
they are given later stamps first, and only then its life is extended.

A store's lifetime may be set, or taken away, while others run that know nothing of it. A record
that is the first to say when its conversation expires has no stamp itself until all others have
one; a record that is the first to say that it never does takes the stamp of the last one away as
it goes in, all others having lost theirs before. So whether the last record has a stamp tells how
far that is.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Item, Plan
from chatledger.stores.dynamodb.log import CANCELLED, CONDITION_FAILED, Log, Torn
from chatledger.stores.dynamodb.records import (
    FIRST_RECORD,
    HEAD,
    Record,
    encode_record,
    part_sort,
    partition,
    record_sort,
)
from chatledger.stores.dynamodb.table import DAY, HOUR, SECOND, stamp_at


def stamp_for(time: int, lifetime: int | None) -> int | None:
    """When TTL may eat an item written at ``time`` of a conversation that lives so long (ms).

    Two and a half lifetimes ahead, so that activity renews it once a lifetime at most, and a day
    and more behind the end, so that positions stay taken for those who remember them.
    """
    return None if lifetime is None else _stamp(time, lifetime)


def _stamp(time: int, lifetime: int) -> int:
    return stamp_at(time + max(5 * lifetime // 2, lifetime + DAY + 2 * HOUR))


def renewed(log: Log, last: Record, lifetime: int | None) -> Plan[Record]:
    """``last`` with a floor that lets the conversation live for ``lifetime`` from now on.

    All items of its life whose stamps lie too low are given later ones first: at no moment may an
    item of a conversation that lives be eaten. Where nothing must be renewed there is no call.
    Raises ``Torn`` where the conversation went on meanwhile.
    """
    if lifetime is None:
        return (yield from _without(log, last))
    time = log.table.time()
    # No stamp lies less than an hour behind the expiry, for clocks differ.
    if last.floor is None or stamp_at(time + lifetime + HOUR) <= last.floor:
        return last
    stamp = _stamp(time, lifetime)
    # So low that an item is renewed once a lifetime at most.
    least = stamp - lifetime // SECOND
    later = _Restamping(
        stamp,
        lambda at: at is not None and at < least,
        "#expires_at < :least",
        {":least": {"N": str(least)}},
    )
    yield from _restamp_all(log, last, later)
    return last._replace(
        floor=least - HOUR // SECOND,  # parts were stamped some time before their record
        stamp=None if last.stamp is None else max(stamp, last.stamp),
    )


def settled(log: Log, record: Record, lifetime: int | None) -> Plan[Record]:
    """``record``, which is in, once all items of its life have stamps if it expires.

    Raises ``Torn`` where the conversation went on meanwhile.
    """
    if lifetime is None or record.stamp is not None:
        return record
    stamp, own = _stamp(log.table.time(), lifetime), record_sort(record.position)
    # Where somebody else goes on, or was faster, the stamps may have been taken away again.
    first = _Restamping(stamp, lambda at: at is None, "attribute_not_exists(#expires_at)")
    last = [log.nothing_at(record.revision + 1)]
    unsettled = log.check(
        record.position, "#k = :k AND attribute_not_exists(#expires_at)", k={"S": record.token}
    )
    yield from _restamp_all(log, record, replace(first, while_=[*last, unsettled]), but=own)
    found = yield from _restamp(
        log, record, encode_record(log.id, record), replace(first, while_=last)
    )
    if found is None:
        return record._replace(stamp=stamp)
    if "expires_at" not in found:
        raise Torn
    return record._replace(stamp=int(found["expires_at"]["N"]))


def _without(log: Log, last: Record) -> Plan[Record]:
    """``last``, ready for a record that never expires to go behind it: that takes away its stamp,
    and no other item of its life has one.
    """
    if last.floor is None:
        return last
    if last.expiry is not None:
        # Once this is done nobody gives them stamps any more.
        last = yield from settled(log, last, last.expiry - last.updated_at)
    away = _Restamping(None, lambda at: at is not None, "attribute_exists(#expires_at)")
    yield from _restamp_all(log, last, away, but=record_sort(last.position))
    for part in _parts_of(encode_record(log.id, last)):
        yield from _change(log, part, {"expires_at": None}, "attribute_exists(#pk)", {}, ())
    return last._replace(floor=None)


@dataclass(frozen=True, slots=True)
class _Restamping:
    """The stamp that items get, or None that they lose theirs, where theirs is ``low``."""

    stamp: int | None
    low: Callable[[int | None], bool]
    filter: str
    """The same as a condition, with its values."""
    values: dict[str, Attribute] = field(default_factory=dict)
    while_: Sequence[dict[str, Any]] = ()
    """Parts of a transaction that fail as soon as it must not go on."""


_READ = ("pk", "sk", "expires_at", "l", "c", "x", "y", "p", "r", "life", "created_at")
"""Of records and of heads."""


def _restamp_all(
    log: Log, last: Record, restamping: _Restamping, *, but: str | None = None
) -> Plan[None]:
    """Restamp the items of the life of ``last``, all but that with the sort key ``but``."""
    params: dict[str, Any] = {
        "TableName": log.table.name,
        "KeyConditionExpression": "#pk = :pk AND #sk BETWEEN :low AND :high",
        "FilterExpression": restamping.filter,
        "ProjectionExpression": ", ".join(f"#{name}" for name in _READ),
        "ExpressionAttributeNames": {f"#{name}": name for name in _READ},
        "ExpressionAttributeValues": {
            ":pk": {"S": partition(log.id)},
            ":low": {"S": FIRST_RECORD},
            ":high": {"S": HEAD},
            **restamping.values,
        },
        "ConsistentRead": True,
    }
    while True:
        reply = yield Call("Query", params)
        for item in reply["Items"]:
            if but is not None and but < item["sk"]["S"] < HEAD:
                raise Torn
            if item["sk"]["S"] != but:
                yield from _restamp(log, last, item, restamping)
        if "LastEvaluatedKey" not in reply:
            return
        params["ExclusiveStartKey"] = reply["LastEvaluatedKey"]


def _restamp(log: Log, last: Record, item: Item, restamping: _Restamping) -> Plan[Item | None]:
    """Restamp the item and the parts it names, if it is of the life of ``last``. None says that it
    was done, else the item is answered as it is by now.
    """
    sort, stamp = item["sk"]["S"], restamping.stamp
    stamped: dict[str, Attribute | None] = {
        "expires_at": None if stamp is None else {"N": str(stamp)}
    }
    life, created_at = ("life", "created_at") if sort == HEAD else ("l", "c")
    of_this_life = {life: {"N": str(last.life)}, created_at: {"N": str(last.created_at)}}
    while of_this_life.items() <= item.items() and restamping.low(_stamp_of(item)):
        for part in _parts_of(item):
            # A part has the stamp of the record that names it, so that it is as low.
            exists = "pk" if _stamp_of(item) is None else "expires_at"
            yield from _change(
                log, part, stamped, f"attribute_exists(#{exists})", {}, restamping.while_
            )
        changed = dict(stamped)
        if sort != HEAD and stamp is not None and "x" not in item:
            # It was to live for ever. Were the later ones eaten first, it would; and for a clock
            # that is behind the one of TTL it would come back to life if it ended with its stamp.
            changed["x"] = {"N": str(stamp * SECOND - HOUR)}
        # What has another stamp or other parts by now is looked at again; a fence stays as it is.
        seen = of_this_life | {name: item[name] for name in ("r", "expires_at") if name in item}
        conditions = [f"#{name} = :{name}" for name in seen] + [
            f"attribute_not_exists(#{name})" for name in ("r", "expires_at") if name not in item
        ]
        found = yield from _change(
            log, sort, changed, " AND ".join(conditions), seen, restamping.while_
        )
        if found is None:
            return None
        item = found
    return item


def _stamp_of(item: Item) -> int | None:
    return int(item["expires_at"]["N"]) if "expires_at" in item else None


def _parts_of(item: Item) -> list[str]:
    """The sort keys of the parts that a record names."""
    if "y" not in item:
        return []
    parts = sum(parts for _, parts in json.loads(item["p"]["S"]))
    return [part_sort(item["y"]["S"], n) for n in range(parts)]


def _change(
    log: Log,
    sort: str,
    changed: dict[str, Attribute | None],
    condition: str,
    values: dict[str, Attribute],
    while_: Sequence[dict[str, Any]],
) -> Plan[Item | None]:
    """Change the item under that condition; None says that it was, else what is there.

    Raises ``Torn`` where one of ``while_`` does not hold any more.
    """
    change = log.change(sort, changed, condition, **values)
    try:
        if not while_:
            yield Call("UpdateItem", change)
            return None
        yield Call("TransactWriteItems", {"TransactItems": [{"Update": change}, *while_]})
    except CallFailed as failed:
        if failed.code == CONDITION_FAILED:
            return failed.item or {}
        if failed.code != CANCELLED:
            raise
        (code, item), *_ = failed.reasons
        if code is None:
            raise Torn from failed
        return item or {}
    return None
