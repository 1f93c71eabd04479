"""The requests and capacity units of operations on conversations in English prose."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from chatledger.conversations import MAX_BATCH_MESSAGES, Tail
from chatledger.errors import NotFound
from chatledger.messages import Message, Role
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from tests.stores.dynamodb import logs
from tests.stores.dynamodb.conftest import ManualClock
from tests.stores.dynamodb.faulty_clients import client_with_hooks
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.sample_text import sample_text
from tests.stores.dynamodb.tables import new_table, put_items

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TURNS = [10, 100, 1_000]
LONG_CONVERSATION = 100_000
FORKED_MESSAGES = 2_000
OWNER = "9b1d5f0e-6c1f-4d7a-9a55-2f1f0c6f3a11"

Figures: TypeAlias = tuple[int, float, float]
"""Requests, write units, read units."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The cost of a turn, of reading the last 20 messages, and of both messages in one append."""

    question: Figures
    reply: Figures
    last_20: Figures
    both: Figures


@dataclass(frozen=True, slots=True)
class Change:
    """The cost of an operation until every reader sees its effect, and in total."""

    until_visible: Figures
    total: Figures


@dataclass(slots=True)
class Measurements:
    """Figures by the description that ``docs/costs.md`` gives of a turn, operation or change."""

    turns: dict[str, Turn] = field(default_factory=dict)
    operations: dict[str, Figures] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    in_long: dict[str, Change] = field(default_factory=dict)
    """The same in a conversation of ``LONG_CONVERSATION`` messages."""
    by_length: dict[str, dict[str, Figures]] = field(default_factory=dict)
    """Figures by operation, for conversations by their description."""


class Bench:
    """A table, a store that is measured, and messages that are equal on every run."""

    def __init__(self, client: "DynamoDBClient", observer: "DynamoDBClient") -> None:
        self.table = new_table(client)
        self.clock = ManualClock()
        self.meter = Meter(client)
        self.client = client
        self.store = self.open_store()
        self.observer = DynamoDBStore(observer, self.table, clock=self.clock)
        self._random = Random(1)
        self._messages_made = 0

    def open_store(self, expire_after: timedelta | None = None) -> DynamoDBStore:
        """Open a store with an empty cache."""
        return DynamoDBStore(self.client, self.table, expire_after=expire_after, clock=self.clock)

    def new_id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def message(self, role: Role, length: int = 1_000) -> Message:
        self._messages_made += 1
        self.clock.advance(seconds=10)
        text = sample_text(self._messages_made, length)
        return Message(role=role, content=text, id=self.new_id(), created_at=self.clock())

    def question(self) -> list[Message]:
        return [self.message("user")]

    def reply(self) -> list[Message]:
        return [self.message("assistant")]

    def append_turns(
        self, conversation_id: str, turns: int, store: DynamoDBStore | None = None
    ) -> None:
        """Append questions and replies, one message at a time."""
        for turn in range(turns):
            for message in (self.question(), self.reply()):
                # Only the last reply updates the head: this is faster, and its result is the same.
                follows = turn < turns - 1 or message[0].role == "user"
                (store or self.store).append(conversation_id, message, reply_follows=follows)

    def add_turns(self, conversation_id: str, turns: int) -> None:
        """Add turns by writing their items directly, which is faster than appending."""
        conversation = self.store.get(conversation_id)
        last = self.store.tail(conversation_id, 1).messages[-1].seq
        roles: list[Role] = ["user", "assistant"] * turns
        assert last is not None
        records = logs.make_records(
            map(self.message, roles),
            owner=conversation.owner,
            created_at=conversation.created_at,
            first=conversation.revision + 1,
            previous_seq=last,
            count=conversation.message_count,
        )
        put_items(self.client, self.table, logs.record_items(conversation_id, records))

    def conversation(self, turns: int = 0) -> str:
        created = self.store.create(self.new_id(), owner=OWNER, title="A week in Portugal")
        self.append_turns(created.id, turns)
        return created.id

    def figures(self, call: Callable[[], object]) -> Figures:
        with self.meter.measured() as cost:
            call()
        return cost.figures

    def turn(
        self, conversation_id: str, store: DynamoDBStore | None = None, *, owner: str | None = OWNER
    ) -> Turn:
        store = store or self.store
        return Turn(
            question=self.figures(
                partial(
                    store.append, conversation_id, self.question(), owner=owner, reply_follows=True
                )
            ),
            reply=self.figures(partial(store.append, conversation_id, self.reply(), owner=owner)),
            last_20=self.figures(partial(store.tail, conversation_id, 20, owner=owner)),
            both=self.figures(
                partial(
                    store.append, conversation_id, [*self.question(), *self.reply()], owner=owner
                )
            ),
        )

    def change(self, conversation_id: str, operation: Callable[[DynamoDBStore], object]) -> Change:
        """Measure ``operation``, while a second client reads the conversation after each call."""
        observations: list[tuple[Tail | None, Figures]] = []

        def read_tail() -> Tail | None:
            try:
                return self.observer.tail(conversation_id, 20)
            except NotFound:
                return None

        def observe(*_: object) -> None:
            observations.append((read_tail(), cost.figures))

        store = DynamoDBStore(
            client_with_hooks(self.client, after=observe), self.table, clock=self.clock
        )
        before = read_tail()
        with self.meter.measured() as cost:
            operation(store)
        *_, (after, total) = observations
        assert all(seen in (before, after) for seen, _ in observations), (
            "no reader sees a part of it"
        )
        return Change(next(figures for seen, figures in observations if seen == after), total)


def measure(dynamodb: DynamoDBLocal) -> Measurements:
    """Measure everything; this takes a while."""
    with ExitStack() as stack:
        client, observer = dynamodb.client(), dynamodb.client()
        stack.callback(client.close)
        stack.callback(observer.close)
        bench = Bench(client, observer)
        stack.callback(client.delete_table, TableName=bench.table)
        measurements = Measurements()
        long = long_conversation(bench)
        measure_turns(bench, measurements.turns, long)
        measure_operations(bench, measurements.operations)
        measure_changes(bench, measurements.changes)
        bench.append_turns(long, 10)
        short = bench.conversation(turns=1)
        bench.add_turns(short, 38)
        bench.append_turns(short, 11)
        for name, conversation_id in (
            ("100 messages", short),
            (f"{LONG_CONVERSATION:,} messages", long),
            (f"a fork of {FORKED_MESSAGES:,} messages", long_fork(bench)),
        ):
            measurements.by_length[name] = measure_by_length(bench, conversation_id)
        bench.append_turns(long, 10)
        measure_changes_near_the_end(bench, long, measurements.in_long)
        measurements.in_long["`clear`"] = bench.change(long, lambda store: store.clear(long))
        return measurements


def measure_turns(bench: Bench, turns: dict[str, Turn], long: str) -> None:
    conversation_id = bench.conversation()
    turns["turn 1"] = bench.turn(conversation_id)
    present = 2
    for turn in TURNS:
        # The last ones are appended, so that they are in the store's cache as usual.
        bench.add_turns(conversation_id, turn - present - 11)
        bench.append_turns(conversation_id, min(10, turn - 1 - present))
        assert bench.store.get(conversation_id).message_count == 2 * (turn - 1)
        turns[f"turn {turn:,}"] = bench.turn(conversation_id)
        present = turn + 1
    bench.append_turns(long, 1)
    assert bench.store.get(long).message_count == LONG_CONVERSATION - 2
    turns[f"turn {LONG_CONVERSATION // 2:,}"] = bench.turn(long)
    turns["in a process that has not used the conversation before"] = bench.turn(
        long, bench.open_store()
    )
    turns["the first, if the conversation was not created before"] = bench.turn(bench.new_id())
    expiring = bench.open_store(expire_after=timedelta(days=30))
    conversation_id = expiring.create(bench.new_id(), owner=OWNER).id
    bench.append_turns(conversation_id, 10, expiring)
    turns["with a lifetime of 30 days"] = bench.turn(conversation_id, expiring)
    anonymous = bench.store.create(bench.new_id()).id
    bench.append_turns(anonymous, 10)
    turns["without an owner"] = bench.turn(anonymous, owner=None)


def long_conversation(bench: Bench) -> str:
    """Append ``LONG_CONVERSATION`` messages except for the last two turns; return the id."""
    conversation_id = bench.conversation()
    batch = [bench.message("user", length=100) for _ in range(MAX_BATCH_MESSAGES)]
    missing = LONG_CONVERSATION - 2 - 2 * 11
    while missing:
        appended = bench.store.append(conversation_id, batch[:missing], reply_follows=True)
        missing -= len(appended.seqs)
    bench.append_turns(conversation_id, 10)
    return conversation_id


def long_fork(bench: Bench) -> str:
    """Return the id of a fork of ``FORKED_MESSAGES`` messages, which are stored together."""
    source = bench.conversation()
    roles: list[Role] = ["user", "assistant"] * (FORKED_MESSAGES // 2)
    bench.store.append(source, list(map(bench.message, roles)))
    return bench.store.fork(source).id


def measure_by_length(bench: Bench, conversation_id: str) -> dict[str, Figures]:
    """Measure operations whose cost might depend on the length of the conversation."""
    store, figures = bench.store, bench.figures
    last = store.tail(conversation_id, 8).messages
    before_first, first, before_last, last_seq = (last[n].seq for n in (0, 1, -2, -1))
    assert before_first is not None
    assert first is not None
    assert before_last is not None
    assert last_seq is not None
    return {
        "`get`": figures(lambda: store.get(conversation_id)),
        "`tail` of 20 messages": figures(lambda: store.tail(conversation_id, 20)),
        "`page` of the first 20 messages": figures(lambda: store.page(conversation_id, limit=20)),
        "`page` of the 20 messages before one": figures(
            lambda: store.page(conversation_id, before=last_seq, limit=20)
        ),
        "`update` of the title": figures(lambda: store.update(conversation_id, title="Portugal")),
        "`replace` of a message": figures(
            lambda: store.replace(conversation_id, first, bench.message("user"))
        ),
        "`append(truncate_after=)`: another reply in place of the last one": figures(
            lambda: store.append(conversation_id, bench.reply(), truncate_after=before_last)
        ),
        "`append` of the next question and reply": figures(
            lambda: store.append(conversation_id, [*bench.question(), *bench.reply()])
        ),
        "`pop` of the last message": figures(lambda: store.pop(conversation_id)),
        "`truncate` after a message, by five": figures(
            lambda: store.truncate(conversation_id, after=first)
        ),
        "`remove` of a message": figures(lambda: store.remove(conversation_id, before_first)),
    }


def measure_operations(bench: Bench, operations: dict[str, Figures]) -> None:
    store, figures = bench.store, bench.figures
    conversation_id = bench.conversation(turns=1)
    bench.add_turns(conversation_id, 100)
    bench.append_turns(conversation_id, 1)
    operations["`create`"] = figures(
        lambda: store.create(bench.new_id(), owner=OWNER, title="A week in Portugal")
    )
    operations["`create` with an idempotency key"] = figures(
        lambda: store.create(
            bench.new_id(), owner=OWNER, title="A week in Portugal", idempotency_key="request-6"
        )
    )
    anonymous = store.create(bench.new_id(), title="A week in Portugal").id
    operations["`claim`"] = figures(lambda: store.claim(anonymous, OWNER))
    operations["`append` of a message with an idempotency key"] = figures(
        lambda: store.append(
            conversation_id, bench.reply(), owner=OWNER, idempotency_key="request-7"
        )
    )
    operations["`get`"] = figures(lambda: store.get(conversation_id, owner=OWNER))
    operations["`tail` of 100 messages"] = figures(
        lambda: store.tail(conversation_id, 100, owner=OWNER)
    )
    operations["`tail` of 20 messages"] = figures(
        lambda: store.tail(conversation_id, 20, owner=OWNER)
    )
    fork = store.fork(conversation_id).id
    operations["... of a fork, whose messages are stored together"] = figures(
        lambda: store.tail(fork, 20, owner=OWNER)
    )
    operations["`page` of 100 messages"] = figures(
        lambda: store.page(conversation_id, limit=100, owner=OWNER)
    )
    for _ in range(25):
        bench.conversation()
        bench.clock.advance(seconds=1)
    operations["`list` of 20 conversations"] = figures(lambda: store.list(OWNER, limit=20))
    operations["`update` of the title"] = figures(
        lambda: store.update(conversation_id, title="Eight days in Portugal", owner=OWNER)
    )
    measure_entries(bench, operations)


def measure_entries(bench: Bench, operations: dict[str, Figures]) -> None:
    store, figures = bench.store, bench.figures
    conversation_id, value = bench.conversation(), sample_text(1)
    put = figures(lambda: store.put_entry(conversation_id, "a", value))
    operations["`put_entry` of 1,000 characters"] = put
    first = store.put_entry(None, "a", value, owner=OWNER)
    operations["... of an owner"] = figures(lambda: store.put_entry(None, "a", value, owner=OWNER))
    operations["... of an owner, at a revision"] = figures(
        lambda: store.put_entry(None, "a", value, revision=first.revision + 1, owner=OWNER)
    )
    operations["`entry`"] = figures(lambda: store.entry(conversation_id, "a"))
    operations["`entry` of an owner"] = figures(lambda: store.entry(None, "a", owner=OWNER))
    for number in range(19):
        store.put_entry(conversation_id, f"{number}", value)
    operations["`entries`, 20 of 1,000 characters"] = figures(
        lambda: store.entries(conversation_id)
    )
    operations["`delete_entry`"] = figures(lambda: store.delete_entry(conversation_id, "a"))


def measure_changes(bench: Bench, changes: dict[str, Change]) -> None:
    short = bench.conversation(turns=10)
    fork = bench.new_id()
    changes["`fork` of 20 messages"] = bench.change(
        fork, lambda store: store.fork(short, new_id=fork)
    )
    changes["`clear` of 20 messages"] = bench.change(short, lambda store: store.clear(short))
    short = bench.conversation(turns=10)
    changes["`delete` of 20 messages"] = bench.change(short, lambda store: store.delete(short))
    measure_changes_near_the_end(bench, bench.conversation(turns=20), changes)


def measure_changes_near_the_end(
    bench: Bench, conversation_id: str, changes: dict[str, Change]
) -> None:
    def seq_before_last(n: int) -> int:
        """Return the seq of the message that is followed by exactly ``n`` others."""
        message = bench.store.tail(conversation_id, n + 1).messages[0]
        assert message.seq is not None
        return message.seq

    seq = seq_before_last(5)
    changes["`replace` of a message"] = bench.change(
        conversation_id, lambda store: store.replace(conversation_id, seq, bench.message("user"))
    )
    changes["`pop` of the last message"] = bench.change(
        conversation_id, lambda store: store.pop(conversation_id)
    )
    after = seq_before_last(10)
    changes["`truncate` by 10 messages"] = bench.change(
        conversation_id, lambda store: store.truncate(conversation_id, after=after)
    )
