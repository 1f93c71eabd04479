"""The DynamoDB stores against the same requests by hand, on DynamoDB Local.

The server is a process of its own, whose CPU time does not count; the time that passes is mostly
the server's. The boto3 clients of the two sides are configured alike, and as botocore does by
itself (it checks parameters, and tries again), but for a connection for each thread.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from benchmarks.dynamodb_by_hand import ByHand
from benchmarks.measuring import Milliseconds, Ratio, Taken, Work, benchmark
from chatledger import Message
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore, create_table
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.stores.dynamodb.prose import prose

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TABLE = "benchmark"
OWNER = "bob"
SYNC, ASYNC, BY_HAND = "in sync", "in async", "by hand"  # a conversation each
HELD = 40
"""How many messages a conversation has before it is measured."""
AT_ONCE = 10
"""How often one piece of work does its operation."""
TASKS, THREADS = 200, 50

TEXTS = [prose(n) for n in range(100)]  # of 1,000 characters
numbers = count()


def text() -> str:
    return TEXTS[next(numbers) % len(TEXTS)]


@dataclass(frozen=True, slots=True)
class Sides:
    """The stores and their rival, over one table."""

    store: DynamoDBStore
    async_store: AsyncDynamoDBStore
    by_hand: ByHand
    runner: asyncio.Runner
    """Of the event loop that the async store is used in."""

    def fill(self, ids: Sequence[str], *, messages: int) -> None:
        for conversation_id in ids:
            self.store.create(conversation_id, owner=OWNER, title="A week in Portugal")
            for _ in range(messages):
                message = Message.user(text())
                self.store.append(conversation_id, [message], owner=OWNER, reply_follows=True)

    def turn(self, conversation_id: str) -> None:
        question, reply = Message.user(text()), Message.assistant(text())
        self.store.append(conversation_id, [question], owner=OWNER, reply_follows=True)
        self.store.append(conversation_id, [reply], owner=OWNER)

    async def async_turn(self, conversation_id: str) -> None:
        question, reply = Message.user(text()), Message.assistant(text())
        await self.async_store.append(conversation_id, [question], owner=OWNER, reply_follows=True)
        await self.async_store.append(conversation_id, [reply], owner=OWNER)

    def turn_by_hand(self, conversation_id: str) -> None:
        self.by_hand.append(conversation_id, "user", text(), owner=OWNER, reply_follows=True)
        self.by_hand.append(conversation_id, "assistant", text(), owner=OWNER)


@contextmanager
def sides() -> Iterator[Sides]:
    with DynamoDBLocal() as dynamodb, asyncio.Runner() as runner:
        client, client_by_hand = new_client(dynamodb.endpoint), new_client(dynamodb.endpoint)
        create_table(client, TABLE)
        session = boto3.Session(KEY, KEY, region_name=REGION)
        async_store = AsyncDynamoDBStore(TABLE, endpoint=dynamodb.endpoint, session=session)
        on = Sides(DynamoDBStore(client, TABLE), async_store, ByHand(client_by_hand, TABLE), runner)
        on.fill([SYNC, ASYNC, BY_HAND], messages=HELD)
        check_sameness(on, client, client_by_hand)
        yield on
        runner.run(async_store.close())


def new_client(endpoint: str) -> "DynamoDBClient":
    return boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=KEY,
        config=Config(proxies={}, max_pool_connections=THREADS),
    )


def check_sameness(on: Sides, client: "DynamoDBClient", client_by_hand: "DynamoDBClient") -> None:
    """A comparison is none where the two sides do not make the same requests."""
    with watched(client) as ours:
        on.turn(SYNC)
        on.store.tail(SYNC, 20, owner=OWNER)
    on.turn_by_hand(BY_HAND)  # the first reads where the conversation ends
    with watched(client_by_hand) as theirs:
        on.turn_by_hand(BY_HAND)
        on.by_hand.tail(BY_HAND, 20, owner=OWNER)
    assert ours == theirs, f"{ours}\nis not\n{theirs}"


@contextmanager
def watched(client: "DynamoDBClient") -> Iterator[list[tuple[str, object]]]:
    """The requests that are made within: the operation, and its parameters but for their values."""
    made: list[tuple[str, object]] = []

    def watch(params: dict[str, Any], model: Any, **_: object) -> None:
        made.append((model.name, shape(params)))

    events: Any = client.meta.events
    events.register("provide-client-params.dynamodb", watch)
    yield made
    events.unregister("provide-client-params.dynamodb", watch)


def shape(value: object, name: str = "") -> object:
    if isinstance(value, dict):
        return {name: shape(inner, name) for name, inner in value.items()}
    # What DynamoDB stores or looks for differs; what it is told to do must not.
    return type(value) if name in ("S", "N", "B") else value


def against_by_hand(
    on: Sides, store: Work, async_store: Callable[[], Coroutine[Any, Any, object]], by_hand: Work
) -> list[Ratio]:
    async def awaited() -> None:
        for _ in range(AT_ONCE):
            await async_store()

    theirs = repeated(by_hand)
    return [
        Ratio("sync, against by hand", repeated(store), theirs),
        Ratio("async, against by hand", lambda: on.runner.run(awaited()), theirs),
    ]


def repeated(work: Work) -> Work:
    """The work ``AT_ONCE`` times, one after the other."""

    def times() -> None:
        for _ in range(AT_ONCE):
            work()

    return times


@benchmark("DynamoDB: append one message", rounds=200)
def append_one(folder: Path) -> Iterator[Sequence[Ratio]]:
    with sides() as on:
        yield against_by_hand(
            on,
            lambda: on.store.append(SYNC, [Message.user(text())], owner=OWNER),
            lambda: on.async_store.append(ASYNC, [Message.user(text())], owner=OWNER),
            lambda: on.by_hand.append(BY_HAND, "user", text(), owner=OWNER),
        )


@benchmark("DynamoDB: append one message, a reply follows", rounds=200)
def append_question(folder: Path) -> Iterator[Sequence[Ratio]]:
    with sides() as on:
        yield against_by_hand(
            on,
            lambda: on.store.append(SYNC, [Message.user(text())], owner=OWNER, reply_follows=True),
            lambda: on.async_store.append(
                ASYNC, [Message.user(text())], owner=OWNER, reply_follows=True
            ),
            lambda: on.by_hand.append(BY_HAND, "user", text(), owner=OWNER, reply_follows=True),
        )


@benchmark("DynamoDB: a turn", rounds=200)
def turn(folder: Path) -> Iterator[Sequence[Ratio]]:
    with sides() as on:
        yield against_by_hand(
            on,
            lambda: on.turn(SYNC),
            lambda: on.async_turn(ASYNC),
            lambda: on.turn_by_hand(BY_HAND),
        )


@benchmark("DynamoDB: read the last 20 messages", rounds=200)
def tail(folder: Path) -> Iterator[Sequence[Ratio]]:
    with sides() as on:
        yield against_by_hand(
            on,
            lambda: on.store.tail(SYNC, 20, owner=OWNER),
            lambda: on.async_store.tail(ASYNC, 20, owner=OWNER),
            lambda: on.by_hand.tail(BY_HAND, 20, owner=OWNER),
        )


@benchmark(f"DynamoDB: {TASKS} turns at once", rounds=20)
def turns_at_once(folder: Path) -> Iterator[Sequence[Ratio]]:
    """Each of a conversation of its own."""
    in_tasks = [f"task {n}" for n in range(TASKS)]
    in_threads = [f"thread {n}" for n in range(TASKS)]
    with sides() as on, ThreadPoolExecutor(THREADS) as threads:
        on.fill([*in_tasks, *in_threads], messages=2)

        async def tasks() -> None:
            async with asyncio.TaskGroup() as group:
                for conversation_id in in_tasks:
                    group.create_task(on.async_turn(conversation_id))

        yield [
            Ratio(
                f"async, against by hand in {THREADS} threads",
                lambda: on.runner.run(tasks()),
                lambda: list(threads.map(on.turn_by_hand, in_threads)),
            )
        ]


@benchmark("DynamoDB: import the store", rounds=20)
def start(folder: Path) -> Iterator[Sequence[Milliseconds]]:
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what was never compiled is no measure

    def imported() -> Taken:
        """In a process of its own, that has imported boto3 and made no client."""
        ran = subprocess.run(
            [sys.executable, "-c", IMPORT],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        cpu, wall = map(float, ran.stdout.split())
        return Taken(cpu, wall)

    yield [Milliseconds("beyond boto3", imported)]


IMPORT = """
from time import perf_counter, process_time
import boto3
cpu, wall = process_time(), perf_counter()
import chatledger.stores.dynamodb
print(process_time() - cpu, perf_counter() - wall)
"""
