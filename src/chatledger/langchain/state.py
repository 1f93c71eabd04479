"""How a history stands: which items there are, which one takes appends, and until when it lives."""

from dataclasses import dataclass
from typing import Any

from chatledger.errors import StoreMismatch
from chatledger.langchain.segments import (
    BYTES,
    CLOSED,
    CONDITION_FAILED,
    ENDED,
    EXPIRES,
    FLOOR,
    MARGIN,
    OF,
    SEGMENTS,
    Chain,
    ids_in,
    integer_in,
    listed,
    number,
)
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item, Plan, Wait

BATCH_DELETES = 25  # of one BatchWriteItem (AWS)
TRIES = 12


@dataclass(frozen=True, slots=True)
class Standing:
    ids: tuple[str, ...]
    """Of the segments."""
    last: Item | None
    """The item that takes appends, without its messages; None where there is none, or no more."""
    ttl_name: str

    @property
    def place(self) -> str | None:
        """The id of the segment that takes appends; None is the first item."""
        return self.ids[-1] if self.ids else None

    @property
    def closed(self) -> bool:
        return CLOSED in (self.last or {})

    @property
    def bytes(self) -> int:
        return integer_in(self.last, BYTES) or 0

    @property
    def expires(self) -> int | None:
        return integer_in(self.last, EXPIRES if self.ids else self.ttl_name)

    @property
    def floor(self) -> int | None:
        """What all items but the last live to see."""
        return integer_in(self.last, FLOOR)

    @property
    def stamp(self) -> int | None:
        return integer_in(self.last, self.ttl_name)

    def over(self, now: int) -> bool:
        """Whether it has expired; TTL may have deleted the last segment already."""
        if self.ids and self.last is None:
            return True
        return self.expires is not None and self.expires <= now


def look(chain: Chain) -> Plan[Standing]:
    """Read how it stands, and finish a clearing that was broken off."""
    former: tuple[str, ...] = ()
    while True:
        names = (SEGMENTS, ENDED, BYTES, chain.ttl_name)
        first = (yield chain.get(None, *names)).get("Item")
        if ended := ids_in(first, ENDED):
            yield from free(chain, ended)
        ids = ids_in(first, SEGMENTS)
        if not ids:
            return Standing((), first, chain.ttl_name)
        of_last = (OF, CLOSED, EXPIRES, FLOOR, BYTES, chain.ttl_name)
        last = (yield chain.get(ids[-1], *of_last)).get("Item")
        if last is not None or integer_in(first, chain.ttl_name) is not None:
            return Standing(ids, last, chain.ttl_name)
        if ids == former:
            raise missing(chain, ids[-1])
        former = ids  # it may have been cleared between the two reads


def missing(chain: Chain, id: str) -> StoreMismatch:
    return StoreMismatch(
        f"Item {chain.key} in table {chain.table!r} says that its messages go on in item "
        f"{chain.key_of(id)}, which is gone; other software seems to have deleted it. Restore it "
        "from a backup, or clear the history."
    )


def renew(chain: Chain, standing: Standing) -> Plan[None]:
    """Have all items but the last outlive an append that is made now."""
    assert chain.lifetime is not None
    now = chain.now()
    values = {
        ":stamp": number(now + 2 * chain.lifetime + MARGIN),
        # Less would have each of them stamped at each renewal.
        ":floor": number(now + chain.lifetime * 3 // 2),
        ":enough": number(now + chain.lifetime * 3 // 2 + MARGIN),
    }
    for id in (None, *standing.ids[:-1]):
        there = "attribute_exists(#s)" if id is None else "attribute_exists(#o)"
        where = f"{there} AND (attribute_not_exists(#t) OR #t < :enough)"
        yield from unless_refused(chain.update(id, "SET #t = :stamp", where=where, values=values))
    where = "attribute_exists(#o)"
    last = standing.place
    yield from unless_refused(chain.update(last, "SET #f = :floor", where=where, values=values))


def free(chain: Chain, ended: tuple[str, ...]) -> Plan[None]:
    """Delete the segments of a history that was cleared, and what is left of its first item."""
    if not (yield from delete_segments(chain, ended)):
        return
    values = {":ended": listed(ended)}
    empty = "(attribute_not_exists(#h) OR #h = :none)"
    where = f"#e = :ended AND attribute_not_exists(#s) AND {empty}"
    if not (yield from unless_refused(chain.delete(where, values))):
        # It has messages again, or others have done this.
        forgotten = chain.update(None, "REMOVE #e", where="#e = :ended", values=values)
        yield from unless_refused(forgotten)


def delete_segments(chain: Chain, ids: tuple[str, ...]) -> Plan[bool]:
    """Whether all of them are gone; while DynamoDB throttles, those that are left can wait."""
    requests: list[dict[str, Any]] = [{"DeleteRequest": {"Key": chain.key_of(id)}} for id in ids]
    tried = 0
    while requests:
        batch, requests = requests[:BATCH_DELETES], requests[BATCH_DELETES:]
        reply = yield Call("BatchWriteItem", {"RequestItems": {chain.table: batch}})
        left = reply.get("UnprocessedItems", {}).get(chain.table, [])
        requests += left
        tried = tried + 1 if left else 0
        if left:
            if tried == TRIES:
                return False
            yield Wait(chain.random.uniform(0, min(0.05 * 2**tried, 2.0)))
    return True


def unless_refused(call: Call) -> Plan[bool]:
    """Whether the call's condition held."""
    try:
        yield call
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
        return False
    return True
