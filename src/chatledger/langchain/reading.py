"""The plan that reads a history; ``segments`` says what holds and why."""

from dataclasses import dataclass
from typing import Any

from chatledger.errors import StoreUnavailable
from chatledger.langchain.segments import (
    CLOSED,
    ENDED,
    EXPIRES,
    SEGMENTS,
    Chain,
    ids_in,
    integer_in,
)
from chatledger.langchain.state import free, missing
from chatledger.stores.dynamodb.calls import Attribute, Call, Item, Plan, Wait

BATCH = 100  # items of one BatchGetItem (AWS)
TRIES = 12


@dataclass(frozen=True, slots=True)
class History:
    """A history as it was read."""

    first: Item | None
    segments: tuple[tuple[str, Item], ...]
    expires: int | None

    @property
    def place(self) -> str | None:
        """The segment that takes appends, where one does."""
        if not self.segments or CLOSED in self.segments[-1][1]:
            return None
        return self.segments[-1][0]

    @property
    def items(self) -> tuple[Item, ...]:
        """In order."""
        first = () if self.first is None else (self.first,)
        return (*first, *(item for _, item in self.segments))


NOTHING = History(None, (), None)


def read(chain: Chain, *, finish: bool = True) -> Plan[History]:
    """All that was acknowledged before, if the chain reads consistently; nothing once it expired.

    Two requests for up to 100 segments of 16 MB together, one where there are none. With
    ``finish``, a clearing that was broken off is finished.
    """
    consistent = chain.consistent
    former: tuple[str, ...] = ()
    for tried in range(TRIES):
        first = (yield chain.get(None, consistent=consistent)).get("Item")
        if finish and (ended := ids_in(first, ENDED)):
            yield from free(chain, ended)
        ids = ids_in(first, SEGMENTS)
        if not ids:
            expires = integer_in(first, chain.ttl_name)
            return NOTHING if _over(chain, expires) else History(first, (), expires)
        found = yield from _segments(chain, ids, consistent=consistent)
        if len(found) == len(ids):
            expires = integer_in(found[ids[-1]], EXPIRES)
            if _over(chain, expires):
                return NOTHING
            return History(first, tuple((id, found[id]) for id in ids), expires)
        if ids == former:
            if ids[-1] not in found and chain.ttl_name in (first or {}):
                return NOTHING  # TTL has deleted it
            if _over(chain, integer_in(found.get(ids[-1]), EXPIRES)):
                return NOTHING
            raise missing(chain, next(id for id in ids if id not in found))
        # It was cleared, say, between the two reads; or a replica lags.
        consistent = True
        former = ids if tried else ()
    raise StoreUnavailable("The history was cleared again and again while it was read; try again.")


def _over(chain: Chain, expires: int | None) -> bool:
    return expires is not None and expires <= chain.now()


def _segments(chain: Chain, ids: tuple[str, ...], *, consistent: bool) -> Plan[dict[str, Item]]:
    """Those that are there, by their ids."""
    keys = {_text(chain.key_of(id)): id for id in ids}
    wanted = [chain.key_of(id) for id in ids]
    found: dict[str, Item] = {}
    empty = 0
    while wanted:
        batch, wanted = wanted[:BATCH], wanted[BATCH:]
        request: dict[str, Any] = {chain.table: {"Keys": batch, "ConsistentRead": consistent}}
        reply = yield Call("BatchGetItem", {"RequestItems": request})
        items = reply.get("Responses", {}).get(chain.table, [])
        for item in items:
            found[keys[_text({name: item[name] for name in chain.key})]] = item
        left = reply.get("UnprocessedKeys", {}).get(chain.table, {}).get("Keys", [])
        wanted = left + wanted  # over 16 MB, or throttled
        empty = 0 if items or not left else empty + 1
        if empty == TRIES:
            raise StoreUnavailable("DynamoDB did not give all of a history in time; try again.")
        if empty:
            yield Wait(chain.random.uniform(0, min(0.05 * 2**empty, 2.0)))
    return found


def _text(key: dict[str, Attribute]) -> str:
    return repr(sorted((name, sorted(value.items())) for name, value in key.items()))
