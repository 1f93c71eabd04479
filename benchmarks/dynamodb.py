"""The DynamoDB stores compared with hand-written code that makes the same requests.

DynamoDB Local is a process of its own: its CPU time is not included, but most of the wall-clock
time is spent waiting for it. The boto3 clients of both sides are configured alike: with botocore's
defaults (it validates parameters and retries), and a connection for each thread.
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

from benchmarks.dynamodb_by_hand import DynamoDBByHand
from benchmarks.measurement import Elapsed, Milliseconds, Ratio, Work, benchmark
from chatledger import Message
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore, create_table
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.stores.dynamodb.sample_text import sample_text

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TABLE = "benchmark"
OWNER = "bob"
SYNC, ASYNC, BY_HAND = "sync", "async", "by hand"  # the id of each side's conversation
INITIAL_MESSAGES = 40
"""The messages in a conversation before it is measured."""
REPEATS = 10
"""How often one piece of work does its operation."""
TASKS, THREADS = 200, 50

TEXTS = [sample_text(n) for n in range(100)]  # of 1,000 characters
_text_numbers = count()


def next_text() -> str:
    return TEXTS[next(_text_numbers) % len(TEXTS)]


@dataclass(frozen=True, slots=True)
class Sides:
    """The two stores and the hand-written code, on one table."""

    store: DynamoDBStore
    async_store: AsyncDynamoDBStore
    by_hand: DynamoDBByHand
    runner: asyncio.Runner
    """Runs the event loop of the async store."""

    def fill(self, ids: Sequence[str], *, messages: int) -> None:
        for conversation_id in ids:
            self.store.create(conversation_id, owner=OWNER, title="A week in Portugal")
            for _ in range(messages):
                message = Message.user(next_text())
                self.store.append(conversation_id, [message], owner=OWNER, reply_follows=True)

    def turn(self, conversation_id: str) -> None:
        question, reply = Message.user(next_text()), Message.assistant(next_text())
        self.store.append(conversation_id, [question], owner=OWNER, reply_follows=True)
        self.store.append(conversation_id, [reply], owner=OWNER)

    async def async_turn(self, conversation_id: str) -> None:
        question, reply = Message.user(next_text()), Message.assistant(next_text())
        await self.async_store.append(conversation_id, [question], owner=OWNER, reply_follows=True)
        await self.async_store.append(conversation_id, [reply], owner=OWNER)

    def turn_by_hand(self, conversation_id: str) -> None:
        self.by_hand.append(conversation_id, "user", next_text(), owner=OWNER, reply_follows=True)
        self.by_hand.append(conversation_id, "assistant", next_text(), owner=OWNER)


@contextmanager
def open_sides() -> Iterator[Sides]:
    with DynamoDBLocal() as dynamodb, asyncio.Runner() as runner:
        client, client_by_hand = new_client(dynamodb.endpoint), new_client(dynamodb.endpoint)
        create_table(client, TABLE)
        session = boto3.Session(KEY, KEY, region_name=REGION)
        async_store = AsyncDynamoDBStore(TABLE, endpoint=dynamodb.endpoint, session=session)
        sides = Sides(
            DynamoDBStore(client, TABLE), async_store, DynamoDBByHand(client_by_hand, TABLE), runner
        )
        sides.fill([SYNC, ASYNC, BY_HAND], messages=INITIAL_MESSAGES)
        check_same_requests(sides, client, client_by_hand)
        yield sides
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


def check_same_requests(
    sides: Sides, client: "DynamoDBClient", client_by_hand: "DynamoDBClient"
) -> None:
    """Assert that both sides make the same requests; otherwise a comparison means nothing."""
    with recorded_requests(client) as chatledger:
        sides.turn(SYNC)
        sides.store.tail(SYNC, 20, owner=OWNER)
    sides.turn_by_hand(BY_HAND)  # the first append also reads the last record
    with recorded_requests(client_by_hand) as by_hand:
        sides.turn_by_hand(BY_HAND)
        sides.by_hand.tail(BY_HAND, 20, owner=OWNER)
    assert chatledger == by_hand, f"{chatledger}\nis not\n{by_hand}"


@contextmanager
def recorded_requests(client: "DynamoDBClient") -> Iterator[list[tuple[str, object]]]:
    """Yield a list of the requests made meanwhile: operations, and parameters without values."""
    requests: list[tuple[str, object]] = []

    def record(params: dict[str, Any], model: Any, **_: object) -> None:
        requests.append((model.name, shape(params)))

    events: Any = client.meta.events
    events.register("provide-client-params.dynamodb", record)
    yield requests
    events.unregister("provide-client-params.dynamodb", record)


def shape(value: object, name: str = "") -> object:
    if isinstance(value, dict):
        return {name: shape(inner, name) for name, inner in value.items()}
    # The values that DynamoDB stores or looks for differ; everything else must be the same.
    return type(value) if name in ("S", "N", "B") else value


def ratios_to_by_hand(
    sides: Sides, store: Work, async_store: Callable[[], Coroutine[Any, Any, object]], by_hand: Work
) -> list[Ratio]:
    async def repeated_async() -> None:
        for _ in range(REPEATS):
            await async_store()

    baseline = repeated(by_hand)
    return [
        Ratio("sync, vs. hand-written", repeated(store), baseline),
        Ratio("async, vs. hand-written", lambda: sides.runner.run(repeated_async()), baseline),
    ]


def repeated(work: Work) -> Work:
    """Return work that does ``work`` ``REPEATS`` times, one after the other."""

    def repeat() -> None:
        for _ in range(REPEATS):
            work()

    return repeat


@benchmark("DynamoDB: append one message", rounds=200)
def append_one(folder: Path) -> Iterator[Sequence[Ratio]]:
    with open_sides() as sides:
        yield ratios_to_by_hand(
            sides,
            lambda: sides.store.append(SYNC, [Message.user(next_text())], owner=OWNER),
            lambda: sides.async_store.append(ASYNC, [Message.user(next_text())], owner=OWNER),
            lambda: sides.by_hand.append(BY_HAND, "user", next_text(), owner=OWNER),
        )


@benchmark("DynamoDB: append one message that a reply follows", rounds=200)
def append_question(folder: Path) -> Iterator[Sequence[Ratio]]:
    with open_sides() as sides:
        yield ratios_to_by_hand(
            sides,
            lambda: sides.store.append(
                SYNC, [Message.user(next_text())], owner=OWNER, reply_follows=True
            ),
            lambda: sides.async_store.append(
                ASYNC, [Message.user(next_text())], owner=OWNER, reply_follows=True
            ),
            lambda: sides.by_hand.append(
                BY_HAND, "user", next_text(), owner=OWNER, reply_follows=True
            ),
        )


@benchmark("DynamoDB: a turn", rounds=200)
def turn(folder: Path) -> Iterator[Sequence[Ratio]]:
    with open_sides() as sides:
        yield ratios_to_by_hand(
            sides,
            lambda: sides.turn(SYNC),
            lambda: sides.async_turn(ASYNC),
            lambda: sides.turn_by_hand(BY_HAND),
        )


@benchmark("DynamoDB: read the last 20 messages", rounds=200)
def tail(folder: Path) -> Iterator[Sequence[Ratio]]:
    with open_sides() as sides:
        yield ratios_to_by_hand(
            sides,
            lambda: sides.store.tail(SYNC, 20, owner=OWNER),
            lambda: sides.async_store.tail(ASYNC, 20, owner=OWNER),
            lambda: sides.by_hand.tail(BY_HAND, 20, owner=OWNER),
        )


@benchmark(f"DynamoDB: {TASKS} concurrent turns", rounds=20)
def concurrent_turns(folder: Path) -> Iterator[Sequence[Ratio]]:
    """Run each turn in a conversation of its own."""
    task_ids = [f"task {n}" for n in range(TASKS)]
    thread_ids = [f"thread {n}" for n in range(TASKS)]
    with open_sides() as sides, ThreadPoolExecutor(THREADS) as threads:
        sides.fill([*task_ids, *thread_ids], messages=2)

        async def run_tasks() -> None:
            async with asyncio.TaskGroup() as group:
                for conversation_id in task_ids:
                    group.create_task(sides.async_turn(conversation_id))

        yield [
            Ratio(
                f"async, vs. hand-written in {THREADS} threads",
                lambda: sides.runner.run(run_tasks()),
                lambda: list(threads.map(sides.turn_by_hand, thread_ids)),
            )
        ]


@benchmark("DynamoDB: import the store", rounds=20)
def import_store(folder: Path) -> Iterator[Sequence[Milliseconds]]:
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # measure with compiled modules

    def import_in_new_process() -> Elapsed:
        """Import the store in a new process that has imported boto3 and made no client."""
        completed = subprocess.run(
            [sys.executable, "-c", IMPORT],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        cpu, wall = map(float, completed.stdout.split())
        return Elapsed(cpu, wall)

    yield [Milliseconds("in addition to boto3", import_in_new_process)]


IMPORT = """
from time import perf_counter, process_time
import boto3
cpu, wall = process_time(), perf_counter()
import chatledger.stores.dynamodb
print(process_time() - cpu, perf_counter() - wall)
"""
