"""``docs/costs.md``, generated from the measurements."""

from pathlib import Path

from tests.stores.dynamodb.measurements import Figures, Measurements

COSTS_PAGE = Path(__file__).parents[3] / "docs" / "costs.md"


def render_page(measured: Measurements) -> str:
    """Return the text of the page."""
    turns = [
        [name, *map(format_figures, (turn.question, turn.reply, turn.both, turn.last_20))]
        for name, turn in measured.turns.items()
    ]
    operations = [[name, format_figures(figures)] for name, figures in measured.operations.items()]
    changes = [
        [name, format_figures(change.until_visible), format_figures(change.total)]
        for name, change in measured.changes.items()
    ]
    lengths = list(measured.by_length)
    by_length = [
        [operation, *(format_figures(measured.by_length[name][operation]) for name in lengths)]
        for operation in measured.by_length[lengths[0]]
    ]
    return TEXT.format(
        by_length=markdown_table(["operation", *lengths], by_length),
        turns=markdown_table(["turn", "question", "reply", "both at once", "last 20 read"], turns),
        operations=markdown_table(["operation", "cost"], operations),
        changes=markdown_table(["change", "until every reader sees it", "in total"], changes),
    )


TEXT = """\
# What it costs

The tests generate this page from the capacity that DynamoDB Local reports, and fail if it is out of
date. Each message is 1,000 characters of English prose. **W** is a write unit, **R** a read unit
(strongly consistent), and the number in parentheses is the number of requests.

## A turn

A turn appends a question with `reply_follows=True`, then the reply, which also updates the
conversation's entry in its owner's list. Then the last 20 messages are read. "Both at once" is the
question and the reply in a single append. The length of the conversation makes no difference.

{turns}

A thousand characters of English fit into one unit once they are compressed; longer messages take
one unit for each KB.

## Other operations

{operations}

## Changes

Every reader sees a change as soon as its first write is done (for a `fork`, its last but one). The
writes after that update the entry in the list, and free the storage of the removed messages, 25 in
a request, at one unit for each KB.

{changes}

A call frees storage for 2 seconds at most (`cleanup`); later calls and `sweep` free the rest. All
of a `clear` or `delete` of 100,000 messages takes some 4,100 requests and 100,000 write units.

## Short and long conversations, and forks

The cost does not depend on the length of the conversation. The messages of a fork, and those of an
append that do not fit into a record, are stored in chunks of about 4,500 characters; a change
writes one chunk anew. Its record names each changed chunk, so that after 200 changes in one fork a
change costs about four times as much. Every 201st change writes all messages of the fork anew.

{by_length}

After a `remove`, a truncation reads the messages that it takes away, to count them, unless the last
message that stays was written after the `remove`.

A conversation with a lifetime renews the TTLs of its items now and then: in a long one each append
renews 25 items for a while, at one unit for each KB of them.

## Metadata

Each update of the entry in the list writes the whole entry: with 4 KB of metadata, 5 units to the
table and up to 10 to the index instead of 1 and 2. Keep the metadata of a conversation small.

The transactions of an idempotency key, a `replace` and a `remove` are priced as AWS documents them,
at twice the units, because DynamoDB Local reports other numbers.
"""


def format_figures(figures: Figures) -> str:
    requests, writes, reads = figures
    parts = [f"{units:g} {sign}" for units, sign in ((writes, "W"), (reads, "R")) if units]
    return f"{' + '.join(parts)} ({requests})"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
