"""``docs/costs.md``, made of what was measured."""

from pathlib import Path

from tests.stores.dynamodb.measuring import Figures, Measured

PAGE = Path(__file__).parents[3] / "docs" / "costs.md"


def render(measured: Measured) -> str:
    """The page of costs."""
    turns = [
        [name, *map(shown, (turn.question, turn.reply, turn.both, turn.last_20))]
        for name, turn in measured.turns.items()
    ]
    operations = [[name, shown(figures)] for name, figures in measured.operations.items()]
    changes = [
        [name, shown(change.seen), shown(change.whole)] for name, change in measured.changes.items()
    ]
    return TEXT.format(
        turns=table_of(["turn", "question", "reply", "both at once", "last 20 read"], turns),
        operations=table_of(["operation", "cost"], operations),
        changes=table_of(["change", "until every reader sees it", "in all"], changes),
    )


TEXT = """\
# What it costs

This page is made by the tests, of what DynamoDB Local reports, and they fail when it is not true.
A message has 1,000 characters of English prose. **W** is a write unit, **R** a read unit (strongly
consistent), and the number in brackets counts requests.

## A turn

A question is appended with `reply_follows=True`; then the reply, which renews the conversation's
entry in its owner's list; then the last 20 messages are read. Or both are appended at once. The
length of the conversation does not matter.

{turns}

A thousand characters of English, compressed, take one unit; longer messages one for each KB.

## Other operations

{operations}

## Changes

Every reader sees a change from its first write on (a `fork` from its last but one). What follows
frees the storage of what was removed, at one unit for each KB of it, and renews the entry in the
list.

{changes}

In a conversation of 100,000 messages `replace`, `pop` and `truncate` cost the same, and `clear` is
seen after as much.

The transactions of an idempotency key and of a `replace` are priced as AWS documents it, at twice
the units: DynamoDB Local reports others.
"""


def shown(figures: Figures) -> str:
    requests, writes, reads = figures
    parts = [f"{units:g} {sign}" for units, sign in ((writes, "W"), (reads, "R")) if units]
    return f"{' + '.join(parts)} ({requests})"


def table_of(names: list[str], rows: list[list[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
