"""Rules: how each operation of the store's contract may change a conversation, given its answer.

A rule yields every state that may follow the given one. If it yields none, the operation cannot
have had its answer at that point. For an operation without an answer, it yields the states in which
the operation took effect.
"""

from tests.simulation.rules import entries, reads, restoring, updates, writes
from tests.simulation.rules.common import Rule
from tests.simulation.rules.cross_conversation import (
    ListingRule,
    delete_owned,
    fork_source,
    fork_target,
    list_conversation,
    refuse_fork,
    scan_conversation,
)
from tests.simulation.rules.entries import copied_entry, delete_owned_entry, find_place, list_entry
from tests.simulation.rules.updates import read_by_update, update

__all__ = [
    "RULES",
    "ListingRule",
    "Rule",
    "copied_entry",
    "delete_owned",
    "delete_owned_entry",
    "find_place",
    "fork_source",
    "fork_target",
    "list_conversation",
    "list_entry",
    "read_by_update",
    "refuse_fork",
    "scan_conversation",
    "update",
]

RULES: dict[str, Rule] = (
    entries.RULES | reads.RULES | restoring.RULES | updates.RULES | writes.RULES
)
"""The rules of operations that take effect in one step, on one conversation."""
