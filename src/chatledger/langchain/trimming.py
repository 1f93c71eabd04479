"""Plans that shorten a stored history to its last messages (``trim_storage``)."""

from collections.abc import Sequence

from chatledger.langchain.reading import read_history
from chatledger.langchain.segments import HistoryTable, number_attribute, string_list
from chatledger.langchain.state import call_conditionally, delete_cleared
from chatledger.langchain.values import size_of
from chatledger.stores.dynamodb.calls import Attribute, Plan

MAX_REMOVALS = 200
"""Limit on the elements that one update removes, because its expression names each of them and
DynamoDB allows 4 KB for an expression.
"""


def trim_first_item(table: HistoryTable, elements: Sequence[Attribute], keep: int) -> Plan[None]:
    """Remove all but the last ``keep`` elements of a history of one item.

    Args:
        elements: All elements of the item. If a rival has appended others since, this does nothing:
            the rival trims too.
    """
    remaining = list(elements)
    while (surplus := min(len(remaining) - keep, MAX_REMOVALS)) > 0:
        size = sum(1 + size_of(element) for element in remaining[surplus:])
        removed = ", ".join(f"#h[{n}]" for n in range(surplus))
        trimming = table.update(
            None,
            f"SET #b = :size REMOVE {removed}",
            condition="size(#h) = :count AND attribute_not_exists(#s)",
            values={":size": number_attribute(size), ":count": number_attribute(len(remaining))},
        )
        if not (yield from call_conditionally(trimming)):
            return
        del remaining[:surplus]


def trim_whole_items(table: HistoryTable, keep: int) -> Plan[None]:
    """Remove the leading items of a history that contain none of its last ``keep`` messages."""
    history = yield from read_history(table)
    counts = [len(item.get(table.messages_attribute, {}).get("L", ())) for item in history.items]
    surplus = 0
    while surplus + 1 < len(counts) and sum(counts[surplus + 1 :]) >= keep:
        surplus += 1
    if surplus == 0 or (surplus == 1 and counts[0] == 0):
        return
    ids = tuple(id for id, _ in history.segments)
    dropped, kept = ids[: surplus - 1], ids[surplus - 1 :]
    values = {
        ":ids": string_list(ids),
        ":kept": string_list(kept),
        ":dropped": string_list(dropped),
        ":count": number_attribute(counts[0]),
    }
    trimming = table.update(
        None,
        "SET #h = :none, #s = :kept, #e = list_append(if_not_exists(#e, :none), :dropped)",
        condition="#s = :ids AND size(#h) = :count",
        values=values,
    )
    if (yield from call_conditionally(trimming)) and dropped:
        yield from delete_cleared(table, dropped)
