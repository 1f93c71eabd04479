"""What each operation of the contract may make of a conversation, given what it answered.

A rule yields every state that may follow; none says that the answer cannot be explained there. Of
an operation without an answer it yields the states in which it took effect.
"""

from chatledger.testing.simulation.rules.common import Rule
from chatledger.testing.simulation.rules.reads import get, page, tail
from chatledger.testing.simulation.rules.several import (
    copied,
    fork_refused,
    forked,
    listed,
    owner_deleted,
)
from chatledger.testing.simulation.rules.updates import update, update_read
from chatledger.testing.simulation.rules.writes import (
    append,
    create,
    delete,
    pop,
    replace,
    truncate,
)

__all__ = [
    "RULES",
    "Rule",
    "copied",
    "fork_refused",
    "forked",
    "listed",
    "owner_deleted",
    "update",
    "update_read",
]

RULES: dict[str, Rule] = {
    "create": create,
    "append": append,
    "get": get,
    "tail": tail,
    "page": page,
    "truncate": truncate,
    "pop": pop,
    "replace": replace,
    "update": update,
    "delete": delete,
}
