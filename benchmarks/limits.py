"""Operations on very long conversations and very many of them, measured against limits.

Time passes by a clock that is set by hand, so that a conversation can be hours or months old.
"""

import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from benchmarks import sqlite
from benchmarks.dynamodb import OWNER, next_text
from benchmarks.markdown import markdown_table
from benchmarks.measurement import LimitedFigure
from chatledger import Message
from chatledger.conversations import MAX_BATCH_MESSAGES
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.calls import Item
from chatledger.stores.dynamodb.records import size_of
from chatledger.stores.dynamodb.table import CLEANUP_SECONDS
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.values import milliseconds
from tests.stores.dynamodb import logs
from tests.stores.dynamodb.conftest import ManualClock
from tests.stores.dynamodb.meter import Cost, Meter
from tests.stores.dynamodb.tables import new_table, put_items

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NAME = "Limits"
ID, FORK = "trip", "fork"
MESSAGES = 100_000
RENEWED, EXPIRED, REMOVED = 5_000, 1_000, 2_000
REGENERATIONS = 300
CONVERSATIONS, CHARACTERS = 10_000, 20_000
CHANGES = 6
"""The number of times that each change in a fork is made."""
ANSWER_SECONDS = 3
HOUR, MONTH = timedelta(hours=1), timedelta(days=30)
MIB = 1024 * 1024

T = TypeVar("T")
Operation: TypeAlias = Callable[[DynamoDBStore], object]


def section() -> str:
    """Measure everything, and return the section of the results."""
    with TemporaryDirectory() as folder:
        figures = [*dynamodb_figures(), *sqlite.limited_figures(Path(folder))]
    headings = ["", "measured", "at most", ""]
    return f"""\
## {NAME}

These figures are not ratios, but have limits. They are measured on DynamoDB Local, in very long
conversations or with very many of them; those of SQLite are marked. Each call is made by a new
store, so that nothing is cached, and the worst one counts. Only the memory is that of a single
store, whose client answers at once, without a server.

Removed messages are four hours old. Those that were appended one by one are an item each, which the
benchmark writes directly, as the store encodes it. A call that removes messages frees some of
their storage before it answers; "all freed" counts its requests and those of the `sweep` that frees
the rest. To delete {MESSAGES:,} items takes {MESSAGES // 25:,} requests at the least.

{markdown_table(headings, [figure.row for figure in figures])}"""


def dynamodb_figures() -> Iterator[LimitedFigure]:
    with DynamoDBLocal() as dynamodb, ExitStack() as stack:

        def new_setting() -> Setting:
            client = dynamodb.client()
            stack.callback(client.close)
            return Setting(client)

        yield from removals_of_single_messages(new_setting)
        yield from removals_of_batches(new_setting)
        yield from renewals(new_setting())
        yield from reading_past_expired(new_setting())
        yield from reading_past_removed(new_setting())
        yield from regenerations(new_setting())
        yield from memory(new_setting())


class Setting:
    """A table of its own, with a client whose requests are counted, and a clock set by hand."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self.client = client
        self.table = new_table(client)
        self.clock = ManualClock()
        self.meter = Meter(client)

    def open_store(self, *, cleanup: float = CLEANUP_SECONDS) -> DynamoDBStore:
        """Open a store with an empty cache, like that of another process."""
        return DynamoDBStore(self.client, self.table, clock=self.clock, cleanup=cleanup)

    def cost(self, operation: Operation) -> Cost:
        """Return the cost of the operation with a store that has cached nothing."""
        store = self.open_store()
        with self.meter.measured() as cost:
            operation(store)
        return cost

    def put_conversation(
        self,
        messages: int,
        *,
        conversation_id: str = ID,
        at: datetime | None = None,
        lifetime: timedelta | None = None,
    ) -> None:
        """Put a conversation with one item per message, as if they had been appended one by one."""
        items = conversation_items(
            messages, conversation_id=conversation_id, at=at or self.clock(), lifetime=lifetime
        )
        put_items(self.client, self.table, items)

    def append_in_batches(self, messages: int) -> None:
        store = self.open_store()
        for first in range(0, messages, MAX_BATCH_MESSAGES):
            batch = range(first, min(first + MAX_BATCH_MESSAGES, messages))
            store.append(ID, [self.message() for _ in batch], owner=OWNER, reply_follows=True)

    def message(self) -> Message:
        return Message.user(next_text(), created_at=self.clock())

    def number_of_items(self) -> int:
        pages = self.client.get_paginator("scan").paginate(TableName=self.table, Select="COUNT")
        return sum(page["Count"] for page in pages)


def conversation_items(
    messages: int,
    *,
    conversation_id: str,
    at: datetime,
    lifetime: timedelta | None = None,
    characters: int = 1_000,
) -> list[Item]:
    records = logs.make_records(
        (Message.user(next_text()[:characters], created_at=at) for _ in range(messages)),
        owner=OWNER,
        created_at=at,
        lifetime=None if lifetime is None else milliseconds(lifetime),
    )
    items = logs.record_items(conversation_id, records)
    return [*items, logs.head_item(conversation_id, records[-1])]


# Removals -----------------------------------------------------------------------------------------

REMOVALS: dict[str, Operation] = {
    "`clear`": lambda store: store.clear(ID),
    "`delete`": lambda store: store.delete(ID),
    "`truncate`": lambda store: store.truncate(ID, after=10),
}


def removals_of_single_messages(new_setting: Callable[[], Setting]) -> Iterator[LimitedFigure]:
    names = ["`clear`", "`delete`"]  # `truncate` frees what `clear` does, and takes a minute more
    settings = [new_setting() for _ in names]
    # The messages are short, because there are so many items.
    items = conversation_items(MESSAGES, conversation_id=ID, at=settings[0].clock(), characters=100)
    in_threads(lambda setting: put_items(setting.client, setting.table, items), settings)
    yield from removals(dict(zip(names, settings, strict=True)), "appended one by one")


def removals_of_batches(new_setting: Callable[[], Setting]) -> Iterator[LimitedFigure]:
    settings = [new_setting() for _ in REMOVALS]
    in_threads(lambda setting: setting.append_in_batches(MESSAGES), settings)
    yield from changes_in_a_fork(settings[0])
    by_removal = dict(zip(REMOVALS, settings, strict=True))
    yield from removals(by_removal, f"appended {MAX_BATCH_MESSAGES:,} at a time")


def removals(settings: Mapping[str, Setting], which: str) -> Iterator[LimitedFigure]:
    """Make each of these removals in its setting, which contains the conversation.

    They run one after the other, because their time is measured. What they leave is then freed in
    all settings at once.
    """
    answers = [timed_answer(setting, REMOVALS[name]) for name, setting in settings.items()]
    sweeps = in_threads(free_rest, list(settings.values()))
    for name, (seconds, requests), more in zip(settings, answers, sweeps, strict=True):
        removal = f"{name} of {MESSAGES:,} messages, {which}"
        yield LimitedFigure(f"{removal}, until it answers", seconds, ANSWER_SECONDS, "s")
        yield LimitedFigure(f"{removal}, all freed", requests + more, 6_000, "requests")
    for setting in settings.values():
        setting.client.delete_table(TableName=setting.table)


def timed_answer(setting: Setting, removal: Operation) -> tuple[float, int]:
    """Return the seconds until the removal answers, and its requests."""
    setting.clock.advance(hours=4)
    started = perf_counter()
    cost = setting.cost(removal)
    return perf_counter() - started, len(cost.requests)


def free_rest(setting: Setting) -> int:
    """Free what the removal left, and return the number of requests."""
    requests = len(setting.cost(lambda store: store.sweep()).requests)
    left = setting.number_of_items()
    assert left < 20, f"{left} items are left"
    return requests


def in_threads(work: Callable[[Setting], T], settings: Sequence[Setting]) -> list[T]:
    with ThreadPoolExecutor(len(settings)) as threads:
        return list(threads.map(work, settings))


def changes_in_a_fork(setting: Setting) -> Iterator[LimitedFigure]:
    """Measure changes in a fork of the conversation, whose messages are stored together."""
    last = setting.open_store().fork(ID, new_id=FORK).revision
    fork = f"in a fork of {MESSAGES:,} messages"
    changes: dict[str, Callable[[int, DynamoDBStore], object]] = {
        "`pop(1)`": lambda n, store: store.pop(FORK),
        "`append(truncate_after=)`": lambda n, store: store.append(
            FORK, [setting.message()], truncate_after=last - CHANGES - 1 - n
        ),
        "`replace`": lambda n, store: store.replace(FORK, last // 2 + n, setting.message()),
    }
    for name, change in changes.items():
        # Several times: a chunk has about four messages, and is written if any of them changes.
        costs = [setting.cost(partial(change, n)) for n in range(CHANGES)]
        yield LimitedFigure(f"{name} {fork}", max(cost.writes for cost in costs), 15, "units")
    seconds, _ = timed_answer(setting, lambda store: store.truncate(FORK, after=10))
    yield LimitedFigure(f"`truncate` {fork}, until it answers", seconds, ANSWER_SECONDS, "s")
    setting.open_store().delete(FORK)
    setting.open_store().sweep()


# Lifetimes ----------------------------------------------------------------------------------------


def renewals(setting: Setting) -> Iterator[LimitedFigure]:
    setting.put_conversation(RENEWED, lifetime=MONTH)
    costs: list[Cost] = []
    while sum(cost.operations.count("UpdateItem") for cost in costs) < RENEWED:
        setting.clock.advance(days=27)
        costs.append(setting.cost(lambda store: store.append(ID, [setting.message()])))
    requests = max(len(cost.requests) for cost in costs)
    yield LimitedFigure(
        f"append that renews a part of {RENEWED:,} messages", requests, 30, "requests"
    )


def reading_past_expired(setting: Setting) -> Iterator[LimitedFigure]:
    now = setting.clock()
    for n in range(20):
        setting.put_conversation(1, conversation_id=f"live {n}", at=now - 9 * HOUR)
    for n in range(EXPIRED):
        at = now - 5 * HOUR + timedelta(seconds=n)
        setting.put_conversation(1, conversation_id=f"expired {n}", at=at, lifetime=HOUR)
    cost = setting.cost(lambda store: store.list(OWNER, limit=20))
    yield LimitedFigure(
        f"`list(limit=20)` past {EXPIRED:,} expired conversations",
        len(cost.requests),
        12,
        "requests",
    )


# Removed messages ---------------------------------------------------------------------------------


def reading_past_removed(setting: Setting) -> Iterator[LimitedFigure]:
    """Remove messages that are so young that each leaves a tombstone."""
    setting.put_conversation(100 + REMOVED)
    setting.open_store(cleanup=60).truncate(ID, after=100)
    last = setting.open_store().append(ID, [setting.message()]).revision
    assert setting.number_of_items() > REMOVED
    reads: list[Operation] = [
        lambda store: store.page(ID, after=0, limit=101),
        lambda store: store.page(ID, after=1, limit=100),
        lambda store: store.page(ID, after=99, limit=100),
        lambda store: store.page(ID, before=last + 1, limit=100),
        lambda store: store.tail(ID, 100),
    ]
    requests = max(len(setting.cost(read).requests) for read in reads)
    yield LimitedFigure(
        f"`page(limit=100)` past {REMOVED:,} removed messages", requests, 25, "requests"
    )


def regenerations(setting: Setting) -> Iterator[LimitedFigure]:
    """Regenerate a reply with a new store each time, as if each were another process."""
    store = setting.open_store()
    for conversation_id in (ID, "never regenerated"):
        store.create(conversation_id, owner=OWNER)
        store.append(conversation_id, [setting.message()])
        store.append(conversation_id, [setting.message()])
    for _ in range(REGENERATIONS):
        setting.open_store().append(ID, [setting.message()], truncate_after=2)
        setting.open_store().append("never regenerated", [setting.message()])
    setting.clock.advance(seconds=1)
    message = setting.message()
    cost = setting.cost(lambda store: store.append(ID, [message]))
    setting.open_store().append("never regenerated", [message])
    regenerated, other = (last_record(setting, id) for id in (ID, "never regenerated"))
    name = f"append after {REGENERATIONS} regenerations by as many stores"
    yield LimitedFigure(name, cost.writes, 4, "units")
    extra = size_of(regenerated) - size_of(other) + len("never regenerated") - len(ID)
    yield LimitedFigure(f"{name}, its record's extra bytes", extra, 0, "bytes")


def last_record(setting: Setting, conversation_id: str) -> Item:
    reply = setting.client.query(
        TableName=setting.table,
        KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
        ExpressionAttributeValues={":pk": {"S": f"c#{conversation_id}"}, ":sk": {"S": "m#"}},
        ScanIndexForward=False,
        Limit=1,
        ConsistentRead=True,
    )
    items: list[Any] = reply["Items"]
    record: Item = items[0]
    return record


# Memory -------------------------------------------------------------------------------------------


def memory(setting: Setting) -> Iterator[LimitedFigure]:
    """Append a message in each of many conversations, and see what the store keeps."""
    store = DynamoDBStore(EmptyTable(setting.client), "empty")  # type: ignore[arg-type]

    def append(n: int) -> None:
        text = f"{n} " + next_text() * (CHARACTERS // 1_000)
        store.append(f"conversation {n}", [Message.user(text)], owner=OWNER)

    append(CONVERSATIONS)  # what the modules keep does not count
    tracemalloc.start()
    try:
        for n in range(CONVERSATIONS):
            append(n)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    yield LimitedFigure(
        f"the store's memory after {CONVERSATIONS:,} conversations, {CHARACTERS:,} characters each",
        kept / MIB,
        20,
        "MiB",
    )


class EmptyTable:
    """A boto3 client, as far as the store uses one, of a table that stays empty.

    While memory is traced, 30,000 real requests would take minutes.
    """

    def __init__(self, client: "DynamoDBClient") -> None:
        self.meta = client.meta

    def __getattr__(self, operation: str) -> Callable[..., dict[str, Any]]:
        return lambda **_: {"Items": []}
