"""The plan of an append; ``segments`` says what holds and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chatledger.errors import MessageTooLarge, StoreMismatch, StoreUnavailable
from chatledger.langchain.clearing import end
from chatledger.langchain.memory import Memory
from chatledger.langchain.segments import (
    CONDITION_FAILED,
    LARGEST_SEGMENT,
    Chain,
    Token,
    is_full,
    number,
)
from chatledger.langchain.spill import grow
from chatledger.langchain.state import look, renew
from chatledger.langchain.values import size_of
from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Item, Plan, Wait

TRIES = 100
LONGEST_WAIT = 0.5


@dataclass(frozen=True, slots=True)
class Appended:
    grown: bool
    """Whether it made the history go on in a further item."""
    elements: list[Attribute]
    """All that the item holds now, where that was asked for and it has not grown."""


def append(
    chain: Chain, elements: Sequence[Attribute], memory: Memory, *, answer: str = "NONE"
) -> Plan[Appended]:
    """Add ``elements`` behind the last one, all of them or none.

    Raises ``MessageTooLarge``, ``StoreMismatch``, and ``StoreUnavailable`` where others go on
    being faster.
    """
    size = checked_size(elements)
    token = Token.at(chain.clock())
    place = memory.get()
    for tried in range(TRIES):
        if tried > 1:
            yield Wait(chain.random.uniform(0, min(0.01 * 2 ** min(tried, 10), LONGEST_WAIT)))
        full = size > chain.room(first=place is None)
        if size <= LARGEST_SEGMENT:
            try:
                reply = yield _call(chain, place, elements, size, token, answer)
                memory.seen(place)
                return Appended(False, _elements(reply, chain))
            except CallFailed as failed:
                full = is_full(failed)
                if failed.code == CONDITION_FAILED:
                    if token.is_in(failed.item):
                        memory.seen(place)
                        return Appended(False, _elements({"Attributes": failed.item}, chain))
                    check_history(chain, failed.item)
                elif not full:
                    raise
        memory.forget()
        standing = yield from look(chain)
        if standing.over(chain.now()):
            yield from end(chain, standing)
            place = None
            continue
        full = (full and place == standing.place) or size > LARGEST_SEGMENT
        place = standing.place
        if place is not None and chain.lifetime is not None:
            needed = chain.now() + chain.lifetime
            if standing.floor is None or standing.floor < needed:
                yield from renew(chain, standing)
                continue
        counted = standing.bytes > 0 and standing.bytes + size > chain.room(first=place is None)
        if full or counted or standing.closed:
            grown = yield from grow(chain, standing, elements, token)
            if grown is not None:
                memory.seen(grown)
                return Appended(True, [])
    raise StoreUnavailable(
        f"Others wrote to this history of table {chain.table!r} all the while; try again later."
    )


def checked_size(elements: Sequence[Attribute]) -> int:
    """The bytes of all of them. Raises ``MessageTooLarge`` for one that no item takes."""
    sizes = [1 + size_of(element) for element in elements]
    for n, size in enumerate(sizes):
        if size > LARGEST_SEGMENT:
            raise MessageTooLarge(
                f"messages[{n}], of which DynamoDB takes no larger one,",
                size=size,
                limit=LARGEST_SEGMENT,
            )
    return sum(sizes)


def check_history(chain: Chain, item: Item | None) -> None:
    """Raise ``StoreMismatch`` where the item's history is none of LangChain's."""
    history = (item or {}).get(chain.history)
    if history is None:
        return
    elements = history.get("L")
    if elements is None or (elements and "M" not in elements[0].get("M", {}).get("data", {})):
        raise not_a_history(chain)


def not_a_history(chain: Chain) -> StoreMismatch:
    return StoreMismatch(
        f"Attribute {chain.history!r} of item {chain.key} in table {chain.table!r} is no list of "
        "LangChain messages; other software seems to have written it, and it stays as it is. Name "
        "another attribute with history_messages_key, or use another table."
    )


def _call(
    chain: Chain,
    place: str | None,
    elements: Sequence[Attribute],
    size: int,
    token: Token,
    answer: str,
) -> Call:
    first = place is None
    now = chain.now()
    values: dict[str, Attribute] = {
        ":new": {"L": [*elements]},
        ":one": {"S": token.text},
        ":token": {"SS": [token.text]},
        ":size": number(size),
        ":room": number(chain.room(first=first) - size),
        ":now": number(now),
    }
    conditions = ["NOT contains(#p, :one)", "(attribute_not_exists(#b) OR #b <= :room)"]
    if first:
        settings = ["#h = list_append(if_not_exists(#h, :none), :new)"]
        conditions += [
            "attribute_not_exists(#s)",
            "(attribute_not_exists(#t) OR NOT attribute_type(#t, :number) OR #t > :now)",
            # What others keep under this name must not be mixed with messages.
            "(attribute_not_exists(#h[0]) OR attribute_type(#h[0].#d, :map))",
        ]
    else:
        settings = ["#h = list_append(#h, :new)"]
        conditions += [
            "attribute_exists(#o)",
            "attribute_not_exists(#c)",
            "(attribute_not_exists(#x) OR #x > :now)",
        ]
    if chain.lifetime is not None:
        expires = now + chain.lifetime
        if first:
            settings.append("#t = :expires")
            values[":expires"] = number(expires)
        else:
            settings += ["#x = :expires", "#t = :stamp"]
            conditions.append("#f >= :expires")
            values |= {":expires": number(expires), ":stamp": number(chain.stamp(now))}
    return chain.update(
        place,
        f"SET {', '.join(settings)} ADD #p :token, #b :size REMOVE #q",
        where=" AND ".join(conditions),
        values=values,
        names=token.names,
        answer=answer,
    )


def _elements(reply: Any, chain: Chain) -> list[Attribute]:
    elements: list[Attribute] = reply.get("Attributes", {}).get(chain.history, {}).get("L", [])
    return elements
