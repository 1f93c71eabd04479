"""Conversations in prose, and what is asked of them, measured in requests and units."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from chatledger.conversations import BATCH_MESSAGES, Tail
from chatledger.errors import NotFound
from chatledger.messages import Message, Role
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from tests.stores.dynamodb import logs
from tests.stores.dynamodb.clients import watched_client
from tests.stores.dynamodb.conftest import SetClock
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.prose import prose
from tests.stores.dynamodb.tables import new_table, put_items

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TURNS = [10, 100, 1_000]
LONG = 100_000
OWNER = "9b1d5f0e-6c1f-4d7a-9a55-2f1f0c6f3a11"

Figures: TypeAlias = tuple[int, float, float]
"""Requests, write units, read units."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn, then its last 20 messages read, then two messages at once."""

    question: Figures
    reply: Figures
    last_20: Figures
    both: Figures


@dataclass(frozen=True, slots=True)
class Change:
    """What an operation took until every reader saw it, and in all."""

    seen: Figures
    whole: Figures


@dataclass(slots=True)
class Measured:
    turns: dict[str, Turn] = field(default_factory=dict)
    """By what a turn is one of."""
    operations: dict[str, Figures] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    in_long: dict[str, Change] = field(default_factory=dict)
    """The same in a conversation of ``LONG`` messages."""


class Bench:
    """A table, a store that is measured, and messages that are the same on every run."""

    def __init__(self, client: "DynamoDBClient", observer: "DynamoDBClient") -> None:
        self.table = new_table(client)
        self.clock = SetClock()
        self.meter = Meter(client)
        self.client = client
        self.store = self.open()
        self.observer = DynamoDBStore(observer, self.table, clock=self.clock)
        self._random = Random(1)
        self._said = 0

    def open(self, expire_after: timedelta | None = None) -> DynamoDBStore:
        """A store that remembers nothing yet."""
        return DynamoDBStore(self.client, self.table, expire_after=expire_after, clock=self.clock)

    def id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def message(self, role: Role, length: int = 1_000) -> Message:
        self._said += 1
        self.clock.advance(seconds=10)
        text = prose(self._said, length)
        return Message(role=role, content=text, id=self.id(), created_at=self.clock())

    def question(self) -> list[Message]:
        return [self.message("user")]

    def reply(self) -> list[Message]:
        return [self.message("assistant")]

    def talk(self, conversation_id: str, turns: int, store: DynamoDBStore | None = None) -> None:
        """Append questions and replies, each by itself."""
        for turn in range(turns):
            for message in (self.question(), self.reply()):
                # Only the last one renews the head: that is quicker, and all that is left of it.
                follows = turn < turns - 1 or message[0].role == "user"
                (store or self.store).append(conversation_id, message, reply_follows=follows)

    def fill(self, conversation_id: str, turns: int) -> None:
        """Have it hold so many turns more, without appending each."""
        conversation = self.store.get(conversation_id)
        last = self.store.tail(conversation_id, 1).messages[-1].seq
        roles: list[Role] = ["user", "assistant"] * turns
        assert last is not None
        made = logs.records(
            map(self.message, roles),
            owner=conversation.owner,
            created_at=conversation.created_at,
            first=conversation.revision + 1,
            after=last,
            count=conversation.message_count,
        )
        put_items(self.client, self.table, logs.items(conversation_id, made))

    def conversation(self, turns: int = 0) -> str:
        created = self.store.create(self.id(), owner=OWNER, title="A week in Portugal")
        self.talk(created.id, turns)
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
        """What ``operation`` takes; a second client looks on, call by call."""
        looks: list[tuple[Tail | None, Figures]] = []

        def look() -> Tail | None:
            try:
                return self.observer.tail(conversation_id, 20)
            except NotFound:
                return None

        def look_on(*_: object) -> None:
            looks.append((look(), cost.figures))

        store = DynamoDBStore(
            watched_client(self.client, behind=look_on), self.table, clock=self.clock
        )
        before = look()
        with self.meter.measured() as cost:
            operation(store)
        *_, (after, whole) = looks
        assert all(seen in (before, after) for seen, _ in looks), "nobody sees a half of it"
        return Change(next(figures for seen, figures in looks if seen == after), whole)


def measure(dynamodb: DynamoDBLocal) -> Measured:
    """All that is measured; it takes a while."""
    with ExitStack() as ends:
        client, observer = dynamodb.client(), dynamodb.client()
        ends.callback(client.close)
        ends.callback(observer.close)
        bench = Bench(client, observer)
        ends.callback(client.delete_table, TableName=bench.table)
        measured = Measured()
        long = long_conversation(bench)
        measure_turns(bench, measured.turns, long)
        measure_operations(bench, measured.operations)
        measure_changes(bench, measured.changes)
        bench.talk(long, 10)
        measure_cuts(bench, long, measured.in_long)
        measured.in_long["`clear`"] = bench.change(long, lambda store: store.clear(long))
        return measured


def measure_turns(bench: Bench, turns: dict[str, Turn], long: str) -> None:
    conversation_id = bench.conversation()
    turns["turn 1"] = bench.turn(conversation_id)
    held = 2
    for wanted in TURNS:
        # The last ones by hand: the store is to know them, as it would.
        bench.fill(conversation_id, wanted - held - 11)
        bench.talk(conversation_id, min(10, wanted - 1 - held))
        assert bench.store.get(conversation_id).message_count == 2 * (wanted - 1)
        turns[f"turn {wanted:,}"] = bench.turn(conversation_id)
        held = wanted + 1
    bench.talk(long, 1)
    assert bench.store.get(long).message_count == LONG - 2
    turns[f"turn {LONG // 2:,}"] = bench.turn(long)
    turns["one in a process that is new to the conversation"] = bench.turn(long, bench.open())
    turns["the first, where nobody created the conversation"] = bench.turn(bench.id())
    brief = bench.open(expire_after=timedelta(days=30))
    conversation_id = brief.create(bench.id(), owner=OWNER).id
    bench.talk(conversation_id, 10, brief)
    turns["one where conversations expire after 30 days"] = bench.turn(conversation_id, brief)
    anonymous = bench.store.create(bench.id()).id
    bench.talk(anonymous, 10)
    turns["one where the conversation has no owner"] = bench.turn(anonymous, owner=None)


def long_conversation(bench: Bench) -> str:
    """One of ``LONG`` messages but for the last two turns."""
    conversation_id = bench.conversation()
    batch = [bench.message("user", length=100) for _ in range(BATCH_MESSAGES)]
    early = LONG - 2 - 2 * 11
    while early:
        appended = bench.store.append(conversation_id, batch[:early], reply_follows=True)
        early -= len(appended.seqs)
    bench.talk(conversation_id, 10)
    return conversation_id


def measure_operations(bench: Bench, operations: dict[str, Figures]) -> None:
    store, figures = bench.store, bench.figures
    conversation_id = bench.conversation(turns=1)
    bench.fill(conversation_id, 100)
    bench.talk(conversation_id, 1)
    operations["`create`"] = figures(
        lambda: store.create(bench.id(), owner=OWNER, title="A week in Portugal")
    )
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
    operations["... of a fork, whose messages lie together"] = figures(
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


def measure_changes(bench: Bench, changes: dict[str, Change]) -> None:
    fewer = bench.conversation(turns=10)
    fork = bench.id()
    changes["`fork` of 20 messages"] = bench.change(
        fork, lambda store: store.fork(fewer, new_id=fork)
    )
    changes["`clear` of 20 messages"] = bench.change(fewer, lambda store: store.clear(fewer))
    fewer = bench.conversation(turns=10)
    changes["`delete` of 20 messages"] = bench.change(fewer, lambda store: store.delete(fewer))
    measure_cuts(bench, bench.conversation(turns=20), changes)


def measure_cuts(bench: Bench, conversation_id: str, changes: dict[str, Change]) -> None:
    def behind(n: int) -> int:
        """The seq of the message that only ``n`` follow."""
        message = bench.store.tail(conversation_id, n + 1).messages[0]
        assert message.seq is not None
        return message.seq

    seq = behind(5)
    changes["`replace` of a message"] = bench.change(
        conversation_id, lambda store: store.replace(conversation_id, seq, bench.message("user"))
    )
    changes["`pop` of the last message"] = bench.change(
        conversation_id, lambda store: store.pop(conversation_id)
    )
    after = behind(10)
    changes["`truncate` by 10 messages"] = bench.change(
        conversation_id, lambda store: store.truncate(conversation_id, after=after)
    )
