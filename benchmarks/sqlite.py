"""The SQLite store compared with hand-written code, in short and in long conversations.

One file has many short conversations and a few long ones, with the same total of messages.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path

from benchmarks.measurement import Ratio, Work, benchmark
from benchmarks.sqlite_by_hand import SQLiteByHand
from chatledger import Message
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore

SHORT, LONG = 100, 10_000
MESSAGES = 40_000
"""The total number of messages in all conversations of one length."""
TEXT = "The quick brown fox jumps over the lazy dog, and the dog lets it. " * 15  # 1,000 characters
THREADS = 8
TASKS = 64

Operation = Callable[[str], object]
"""Does its work in the conversation with this id."""


@contextmanager
def open_both(folder: Path) -> Iterator[tuple[SQLiteStore, SQLiteByHand]]:
    """Yield the store and the hand-written code, each with its own file and the same rows."""
    with SQLiteStore(folder / "store.db") as store:
        for length in (SHORT, LONG):
            for conversation_id in conversation_ids(length):
                store.create(conversation_id, owner="bob", title="A title")
                for _ in range(0, length, 100):
                    store.append(conversation_id, [Message.user(TEXT) for _ in range(100)])
    shutil.copy(folder / "store.db", folder / "by_hand.db")
    with (
        SQLiteStore(folder / "store.db") as store,
        closing(SQLiteByHand(folder / "by_hand.db")) as by_hand,
    ):
        yield store, by_hand


def conversation_ids(length: int) -> list[str]:
    return [f"{length} messages, {n}" for n in range(MESSAGES // length)]


def rotating(operation: Operation, length: int) -> Work:
    """Return work that does the operation in each conversation of that length in turn.

    So none of them grows much.
    """
    next_ids = cycle(conversation_ids(length))
    return lambda: operation(next(next_ids))


def ratios_at_both_lengths(store: Operation, by_hand: Operation) -> list[Ratio]:
    short, long = rotating(store, SHORT), rotating(store, LONG)
    return [
        Ratio(f"at {SHORT:,} messages, vs. hand-written", short, rotating(by_hand, SHORT)),
        Ratio(f"at {LONG:,} messages, vs. hand-written", long, rotating(by_hand, LONG)),
        Ratio(f"at {LONG:,} messages, vs. at {SHORT:,}", long, short),
    ]


@benchmark("SQLite: append one message", rounds=1000)
def append_one(folder: Path) -> Iterator[Sequence[Ratio]]:
    with open_both(folder) as (store, by_hand):
        yield ratios_at_both_lengths(
            lambda conversation_id: store.append(conversation_id, [Message.user(TEXT)]),
            lambda conversation_id: by_hand.append(conversation_id, [TEXT]),
        )


@benchmark("SQLite: append 100 messages in one call", rounds=60)
def append_many(folder: Path) -> Iterator[Sequence[Ratio]]:
    texts = [TEXT] * 100
    with open_both(folder) as (store, by_hand):
        yield ratios_at_both_lengths(
            lambda conversation_id: store.append(
                conversation_id, [Message.user(text) for text in texts]
            ),
            lambda conversation_id: by_hand.append(conversation_id, texts),
        )


@benchmark("SQLite: read the last 20 messages", rounds=1000)
def tail(folder: Path) -> Iterator[Sequence[Ratio]]:
    with open_both(folder) as (store, by_hand):
        yield ratios_at_both_lengths(
            lambda conversation_id: store.tail(conversation_id, 20),
            lambda conversation_id: by_hand.tail(conversation_id, 20),
        )


@benchmark(f"SQLite: append from {THREADS} threads", rounds=100)
def append_from_threads(folder: Path) -> Iterator[Sequence[Ratio]]:
    [conversation_id, *_] = conversation_ids(SHORT)
    with open_both(folder) as (store, by_hand), ThreadPoolExecutor(THREADS) as threads:

        def in_all_threads(append: Work) -> Work:
            def append_five(_: int) -> None:
                for _ in range(5):
                    append()

            return lambda: list(threads.map(append_five, range(THREADS)))

        yield [
            Ratio(
                "to one conversation, vs. hand-written",
                in_all_threads(lambda: store.append(conversation_id, [Message.user(TEXT)])),
                in_all_threads(lambda: by_hand.append(conversation_id, [TEXT])),
            )
        ]


@benchmark(f"SQLite: {TASKS} tasks append one message each", rounds=60)
def append_from_tasks(folder: Path) -> Iterator[Sequence[Ratio]]:
    """One transaction for all of them, against one for each."""
    ids = conversation_ids(SHORT)[:TASKS]
    with open_both(folder) as (_, by_hand), asyncio.Runner() as runner:

        async def append_all() -> None:
            await asyncio.gather(
                *(tasks_store.append(one_id, [Message.user(TEXT)]) for one_id in ids)
            )

        def append_each_by_hand() -> None:
            for one_id in ids:
                by_hand.append(one_id, [TEXT])

        tasks_store = AsyncSQLiteStore(folder / "store.db")
        yield [
            Ratio(
                "vs. hand-written, one after the other",
                lambda: runner.run(append_all()),
                append_each_by_hand,
            )
        ]
        runner.run(tasks_store.close())
