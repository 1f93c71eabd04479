"""How a history goes on in a further item, when the last one is full; ``segments`` says why so."""

from collections.abc import Sequence

from chatledger.errors import StoreMismatch
from chatledger.langchain.segments import (
    BYTES,
    CLOSED,
    CONDITION_FAILED,
    EXPIRES,
    FLOOR,
    MARGIN,
    OF,
    SEGMENTS,
    Chain,
    Token,
    ids_in,
    is_full,
    listed,
    new_segment_id,
    number,
)
from chatledger.langchain.state import Standing, delete_segments, unless_refused
from chatledger.langchain.values import size_of
from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Item, Plan

FREED = 8 * 1024
"""Bytes of messages that move out of a first item with no room for the list."""
MOVED = 100
"""The most that move at once: an update names each of them."""


def grow(
    chain: Chain, standing: Standing, elements: Sequence[Attribute], token: Token
) -> Plan[str | None]:
    """Put ``elements`` behind the last item, and answer which segment takes appends from now on.

    None: somebody else was first, or the first item had to make room; then look again.
    """
    last = standing.place
    if last is not None:
        closing = chain.update(
            last,
            "SET #c = :true REMOVE #q",
            where="attribute_exists(#o)",
            values={},
            names=token.names,
        )
        if not (yield from unless_refused(closing)):
            return None
    pieces = _pieces(elements, chain.room(first=False))
    ids = tuple(new_segment_id() for _ in pieces)
    life = _life(chain, standing)
    for n, (id, piece) in enumerate(zip(ids, pieces, strict=True)):
        item = _segment(chain, piece, closed=n < len(ids) - 1) | life
        item[token.names["#p"]] = {"SS": [token.text]}
        yield from unless_refused(chain.put(id, item))
    try:
        yield _announcement(chain, standing, ids, life)
    except CallFailed as failed:
        if failed.code == CONDITION_FAILED and ids[0] in ids_in(failed.item, SEGMENTS):
            return ids[-1]  # an earlier try was in
        full = is_full(failed)
        if failed.code != CONDITION_FAILED and not full:
            raise
        yield from delete_segments(chain, ids)
        if full:
            yield from _make_room(chain, standing)
        return None
    return ids[-1]


def _announcement(
    chain: Chain, standing: Standing, ids: tuple[str, ...], life: dict[str, Attribute]
) -> Call:
    values: dict[str, Attribute] = {":ids": listed(ids)}
    if standing.place is not None:
        known = len(standing.ids)
        values |= {":known": number(known), ":last": {"S": standing.place}}
        where = f"size(#s) = :known AND #s[{known - 1}] = :last"
        return chain.update(None, "SET #s = list_append(#s, :ids)", where=where, values=values)
    setting = "SET #s = :ids, #h = if_not_exists(#h, :none)"
    if chain.lifetime is not None:
        setting += ", #t = :stamp"
        values[":stamp"] = life[chain.ttl_name]
    return chain.update(None, setting, where="attribute_not_exists(#s)", values=values)


def _life(chain: Chain, standing: Standing) -> dict[str, Attribute]:
    """Until when a new segment says that the history lives, its own stamp, and the floor."""
    stamp, expires, floor = standing.stamp, standing.expires, standing.floor
    if standing.place is None:
        floor = expires
    elif floor is not None and stamp is not None:
        floor = min(floor, stamp - MARGIN)  # what was last is now one of the others
    if chain.lifetime is not None:
        now = chain.now()
        stamp, expires = chain.stamp(now), now + chain.lifetime
        if standing.place is None:
            floor = stamp - MARGIN  # the first item is stamped along with the list
    numbers = {chain.ttl_name: stamp, EXPIRES: expires, FLOOR: floor}
    return {name: number(value) for name, value in numbers.items() if value is not None}


def _segment(chain: Chain, elements: Sequence[Attribute], *, closed: bool) -> Item:
    size = sum(1 + size_of(element) for element in elements)
    item: Item = {OF: {"M": chain.key}, chain.history: {"L": [*elements]}, BYTES: number(size)}
    return item | {CLOSED: {"BOOL": True}} if closed else item


def _pieces(elements: Sequence[Attribute], room: int) -> list[list[Attribute]]:
    """The elements in stretches that fit an item each."""
    pieces: list[list[Attribute]] = []
    left = 0
    for element in elements:
        size = 1 + size_of(element)
        if not pieces or size > left:
            pieces.append([])
            left = room
        pieces[-1].append(element)
        left -= size
    return pieces


def _make_room(chain: Chain, standing: Standing) -> Plan[None]:
    """Move the first item's last messages to a segment of their own, the first of the list.

    If anything changed since it was read, nothing happens.
    """
    first = (yield chain.get(None)).get("Item", {})
    elements: list[Attribute] = first.get(chain.history, {}).get("L", [])
    ids = ids_in(first, SEGMENTS)
    if ids != standing.ids:
        return
    moved = 0
    freed = 0
    while moved < min(MOVED, len(elements)) and freed < FREED:
        moved += 1
        freed += 1 + size_of(elements[-moved])
    if not moved:
        raise StoreMismatch(
            f"Item {chain.key} in table {chain.table!r} is full with other things than messages, "
            f"and has no room for a further one; remove attributes of yours from it."
        )
    kept = len(elements) - moved
    id = new_segment_id()
    item = _segment(chain, elements[kept:], closed=bool(ids)) | _life(chain, standing)
    yield from unless_refused(chain.put(id, item))
    removed = ", ".join(f"#h[{n}]" for n in range(kept, len(elements)))
    values: dict[str, Attribute] = {
        ":ids": listed([id]),
        ":ids2": listed(ids),
        ":count": number(len(elements)),
        ":last": elements[-1],
    }
    same = "#s = :ids2" if ids else "attribute_not_exists(#s)"
    setting = "#s = list_append(:ids, if_not_exists(#s, :none))"
    if not ids and chain.lifetime is not None:
        setting += ", #t = :stamp"
        values[":stamp"] = item[chain.ttl_name]
    moving = chain.update(
        None,
        f"SET {setting} REMOVE {removed}",
        where=f"size(#h) = :count AND #h[{len(elements) - 1}] = :last AND {same}",
        values=values,
    )
    if not (yield from unless_refused(moving)):
        listed_now = ids_in((yield chain.get(None, SEGMENTS)).get("Item"), SEGMENTS)
        if id not in listed_now:  # an earlier try may have been in
            yield from delete_segments(chain, (id,))
