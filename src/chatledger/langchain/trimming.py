"""The plans that shorten what is stored to the last messages, for those who ask for it."""

from collections.abc import Sequence

from chatledger.langchain.reading import read
from chatledger.langchain.segments import Chain, listed, number
from chatledger.langchain.state import free, unless_refused
from chatledger.langchain.values import size_of
from chatledger.stores.dynamodb.calls import Attribute, Plan

MOST = 200
"""How many elements one update removes: it names each of them, and takes 4 KB of names (AWS)."""


def trim_first(chain: Chain, elements: Sequence[Attribute], keep: int) -> Plan[None]:
    """Leave the last ``keep`` of the first item's elements, if these are still all of them.

    If not, somebody has appended since, and trims as well.
    """
    known = list(elements)
    while (surplus := min(len(known) - keep, MOST)) > 0:
        size = sum(1 + size_of(element) for element in known[surplus:])
        removed = ", ".join(f"#h[{n}]" for n in range(surplus))
        trimming = chain.update(
            None,
            f"SET #b = :size REMOVE {removed}",
            where="size(#h) = :count AND attribute_not_exists(#s)",
            values={":size": number(size), ":count": number(len(known))},
        )
        if not (yield from unless_refused(trimming)):
            return
        del known[:surplus]


def trim_segments(chain: Chain, keep: int) -> Plan[None]:
    """Remove whole items, as far as the last ``keep`` messages lie behind them."""
    history = yield from read(chain)
    counts = [len(item.get(chain.history, {}).get("L", ())) for item in history.items]
    outside = 0
    while outside + 1 < len(counts) and sum(counts[outside + 1 :]) >= keep:
        outside += 1
    if outside == 0 or (outside == 1 and counts[0] == 0):
        return
    ids = tuple(id for id, _ in history.segments)
    dropped, kept = ids[: outside - 1], ids[outside - 1 :]
    values = {
        ":ids": listed(ids),
        ":kept": listed(kept),
        ":dropped": listed(dropped),
        ":count": number(counts[0]),
    }
    cutting = chain.update(
        None,
        "SET #h = :none, #s = :kept, #e = list_append(if_not_exists(#e, :none), :dropped)",
        where="#s = :ids AND size(#h) = :count",
        values=values,
    )
    if (yield from unless_refused(cutting)) and dropped:
        yield from free(chain, dropped)
