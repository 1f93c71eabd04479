"""The SQLite store against the same work by hand, in short and in long conversations.

One file holds many short conversations and a few long ones, with as many messages each.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path

from benchmarks.by_hand import ByHand
from benchmarks.measuring import Ratio, Work, benchmark
from chatledger import Message
from chatledger.stores.sqlite import SQLiteStore

SHORT, LONG = 100, 10_000
MESSAGES = 40_000
"""How many the conversations of each length have together."""
TEXT = "The quick brown fox jumps over the lazy dog, and the dog lets it. " * 15  # 1,000 characters
THREADS = 8

Operation = Callable[[str], object]
"""Does its work in the conversation of that id."""


@contextmanager
def both(folder: Path) -> Iterator[tuple[SQLiteStore, ByHand]]:
    """The store and its rival, each with a file of its own and the same rows in it."""
    with SQLiteStore(folder / "store.db") as store:
        for length in (SHORT, LONG):
            for conversation_id in ids(length):
                store.create(conversation_id, owner="bob", title="A title")
                for _ in range(0, length, 100):
                    store.append(conversation_id, [Message.user(TEXT) for _ in range(100)])
    shutil.copy(folder / "store.db", folder / "by_hand.db")
    with (
        SQLiteStore(folder / "store.db") as store,
        closing(ByHand(folder / "by_hand.db")) as by_hand,
    ):
        yield store, by_hand


def ids(length: int) -> list[str]:
    return [f"{length} messages, {n}" for n in range(MESSAGES // length)]


def in_turn(operation: Operation, length: int) -> Work:
    """The operation in one conversation of that length after the other, so that none grows much."""
    following = cycle(ids(length))
    return lambda: operation(next(following))


def at_both_lengths(store: Operation, by_hand: Operation) -> list[Ratio]:
    short, long = in_turn(store, SHORT), in_turn(store, LONG)
    return [
        Ratio(f"at {SHORT:,} messages, against by hand", short, in_turn(by_hand, SHORT)),
        Ratio(f"at {LONG:,} messages, against by hand", long, in_turn(by_hand, LONG)),
        Ratio(f"at {LONG:,} messages, against at {SHORT:,}", long, short),
    ]


@benchmark("SQLite: append one message", rounds=1000)
def append_one(folder: Path) -> Iterator[Sequence[Ratio]]:
    with both(folder) as (store, by_hand):
        yield at_both_lengths(
            lambda conversation_id: store.append(conversation_id, [Message.user(TEXT)]),
            lambda conversation_id: by_hand.append(conversation_id, [TEXT]),
        )


@benchmark("SQLite: append 100 messages in one", rounds=60)
def append_many(folder: Path) -> Iterator[Sequence[Ratio]]:
    texts = [TEXT] * 100
    with both(folder) as (store, by_hand):
        yield at_both_lengths(
            lambda conversation_id: store.append(
                conversation_id, [Message.user(text) for text in texts]
            ),
            lambda conversation_id: by_hand.append(conversation_id, texts),
        )


@benchmark("SQLite: read the last 20 messages", rounds=1000)
def tail(folder: Path) -> Iterator[Sequence[Ratio]]:
    with both(folder) as (store, by_hand):
        yield at_both_lengths(
            lambda conversation_id: store.tail(conversation_id, 20),
            lambda conversation_id: by_hand.tail(conversation_id, 20),
        )


@benchmark(f"SQLite: append from {THREADS} threads", rounds=100)
def append_from_threads(folder: Path) -> Iterator[Sequence[Ratio]]:
    [conversation_id, *_] = ids(SHORT)
    with both(folder) as (store, by_hand), ThreadPoolExecutor(THREADS) as threads:

        def from_each(append: Work) -> Work:
            def append_five(_: int) -> None:
                for _ in range(5):
                    append()

            return lambda: list(threads.map(append_five, range(THREADS)))

        yield [
            Ratio(
                "to one conversation, against by hand",
                from_each(lambda: store.append(conversation_id, [Message.user(TEXT)])),
                from_each(lambda: by_hand.append(conversation_id, [TEXT])),
            )
        ]
