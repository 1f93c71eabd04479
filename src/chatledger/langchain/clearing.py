"""The plan that ends a history; ``segments`` says why it is safe beside writers."""

from chatledger.langchain.segments import (
    CONDITION_FAILED,
    ENDED,
    SEGMENTS,
    TOKENS,
    Chain,
    ids_in,
    listed,
    number,
)
from chatledger.langchain.state import Standing, free, look, unless_refused
from chatledger.stores.dynamodb.calls import Attribute, CallFailed, Item, Plan


def clear(chain: Chain) -> Plan[None]:
    """Afterwards there is none of the messages that were there before."""
    alone = "attribute_not_exists(#s) AND attribute_not_exists(#e)"
    while True:
        try:
            yield chain.delete(alone, {})
            return
        except CallFailed as failed:
            if failed.code != CONDITION_FAILED:
                raise
            item: Item | None = failed.item
        if ended := ids_in(item, ENDED):
            yield from free(chain, ended)
        if ids := ids_in(item, SEGMENTS):
            closing = chain.update(
                ids[-1], "SET #c = :true", where="attribute_exists(#o)", values={}
            )
            yield from unless_refused(closing)  # TTL may have deleted it
            if (yield from _bury(chain, ids)):
                return


def end(chain: Chain, standing: Standing) -> Plan[None]:
    """Clear a history that has expired, if it is still as it was and has not been revived."""
    now: dict[str, Attribute] = {":now": number(chain.now())}
    if not standing.ids:
        dead = "attribute_not_exists(#s) AND #t <= :now"
        yield from unless_refused(chain.delete(dead, now))
        return
    if standing.last is not None:
        closing = chain.update(
            standing.ids[-1],
            "SET #c = :true",
            where="attribute_exists(#o) AND #x <= :now",
            values=now,
        )
        if not (yield from unless_refused(closing)):
            again = yield from look(chain)
            if again.last is not None:
                return
    yield from _bury(chain, standing.ids)


def _bury(chain: Chain, ids: tuple[str, ...]) -> Plan[bool]:
    """Empty the first item, if these are its segments, and delete them; whether they were."""
    rest = ", ".join(f"#r{n}" for n in range(len(TOKENS)))
    burial = chain.update(
        None,
        f"SET #h = :none, #e = list_append(if_not_exists(#e, :none), :ids) "
        f"REMOVE #s, #t, #b, {rest}",
        where="#s = :ids",
        values={":ids": listed(ids)},
        names={f"#r{n}": name for n, name in enumerate(TOKENS)},
    )
    if not (yield from unless_refused(burial)):
        return False
    yield from free(chain, ids)
    return True
