"""The SQLite store compared with hand-written code, in short and in long conversations.

One file has many short conversations and a few long ones, with the same total of messages.
"""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import accumulate, cycle
from pathlib import Path
from random import Random
from time import perf_counter, sleep

from benchmarks.measurement import Figure, LimitedFigure, Milliseconds, Ratio, Work, benchmark
from benchmarks.sqlite_by_hand import SQLiteByHand
from chatledger import Message
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore

SHORT, LONG = 100, 10_000
MESSAGES = 40_000
"""The total number of messages in all conversations of one length."""
TEXT = "The quick brown fox jumps over the lazy dog, and the dog lets it. " * 15  # 1,000 characters
THREADS = 8
TASKS = 64
MANY = 100_000
"""The number of an owner's conversations that are deleted."""

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


SEARCHED, WORDS = 1_000, 160
"""The number of conversations of 100 messages that are searched, and of the words of a message."""


@benchmark(f"SQLite: search {SEARCHED * SHORT:,} messages", rounds=5)
def search(folder: Path) -> Iterator[Sequence[Figure]]:
    """Search with a complete index, against a loop over all messages."""
    random = Random(1)
    vocabulary = [f"word{n}" for n in range(20_000)]
    # As in prose (Zipf's law).
    weights = [*accumulate(1 / n for n in range(1, len(vocabulary) + 1))]
    with SQLiteStore(folder / "store.db") as store:
        for n in range(SEARCHED):
            messages = [
                Message.user(
                    " ".join(
                        [*random.choices(vocabulary, cum_weights=weights, k=WORDS), f"n{n}x{m}"]
                    )
                )
                for m in range(SHORT)
            ]
            store.append(f"{n}", messages, owner="bob", title=f"Conversation {n}")

        def find(query: str, matches: int) -> None:
            assert len(store.search("bob", query).matches) == matches

        def read_all(text: str) -> None:
            assert any(
                text in message.text
                for conversation in store.iter_conversations("bob")
                for message in store.iter_messages(conversation.id)
            )

        cursor, is_complete = None, False
        while not is_complete:  # the index is made meanwhile
            found = store.search("bob", "missing", cursor=cursor)
            cursor, is_complete = found.cursor, found.complete
        oldest = f"n0x{SHORT - 1}"
        read = partial(read_all, oldest)
        finds = {
            "for a word of one message": partial(find, oldest, 1),
            "for a word of most messages": partial(find, "word0", 20),
            "for the beginning of many words": partial(find, "w", 20),
            "for a word of no message": partial(find, "missing", 0),
        }
        yield [
            figure
            for name, work in finds.items()
            for figure in (Milliseconds(name, work), Ratio(f"{name}, vs. reading all", work, read))
        ]


# With limits --------------------------------------------------------------------------------------


def limited_figures(folder: Path) -> Iterator[LimitedFigure]:
    """Measure what must not exceed a limit."""
    commits = asyncio.run(commits_per_append(folder / "tasks.db"))
    yield LimitedFigure(f"SQLite: {TASKS} tasks append at once, commits an append", commits, 0.1)
    while_deleting = f"SQLite: longest wait while `delete_owner` deletes {MANY:,} conversations"
    for name, seconds in longest_waits(folder / "owner.db").items():
        yield LimitedFigure(f"{while_deleting}, {name}", seconds, 0.3, "s")


async def commits_per_append(path: Path, appends: int = 50) -> float:
    commits = 0

    def count(sql: str) -> None:
        nonlocal commits
        commits += sql == "COMMIT"

    async with AsyncSQLiteStore(path) as store:
        ids = [(await store.create()).id for _ in range(TASKS)]
        connection = store._database.writer._db
        assert connection is not None
        connection.set_trace_callback(count)

        async def append_some(conversation_id: str) -> None:
            for _ in range(appends):
                await store.append(conversation_id, [Message.user(TEXT)])

        await asyncio.gather(*map(append_some, ids))
        connection.set_trace_callback(None)
    return commits / (TASKS * appends)


async def fill_with_conversations(path: Path) -> None:
    async with AsyncSQLiteStore(path) as store:
        for first in range(0, MANY, 1_000):
            await asyncio.gather(
                *(
                    store.append(f"{n}", [Message.user(TEXT[:200])], owner="bob")
                    for n in range(first, first + 1_000)
                )
            )


def longest_waits(path: Path) -> dict[str, float]:
    """Return how long others waited at most (s) while all conversations of an owner were deleted.

    They are a thread that appends with the same store, one that reads with it, and another process
    that appends.
    """
    asyncio.run(fill_with_conversations(path))
    with (
        SQLiteStore(path) as store,
        ThreadPoolExecutor(3) as threads,
        subprocess.Popen(
            [sys.executable, "-c", APPEND_UNTIL_DELETED, str(path)],
            stdout=subprocess.PIPE,
            text=True,
        ) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == "appending\n"
        store.append("eve's", [Message.user(TEXT)], owner="eve")
        deletion = threads.submit(store.delete_owner, "bob")

        def longest_wait(operation: Work) -> float:
            longest = 0.0
            while not deletion.done():
                start = perf_counter()
                operation()
                longest = max(longest, perf_counter() - start)
                sleep(0.002)
            return longest

        append = threads.submit(
            longest_wait, lambda: store.append("eve's", [Message.user(TEXT)], owner="eve")
        )
        read = threads.submit(longest_wait, lambda: store.tail("eve's", 20))
        assert deletion.result() == MANY
        store.create("all deleted")
        return {
            "append of a thread": append.result(),
            "append of another process": float(other.stdout.read()),
            "read": read.result(),
        }


APPEND_UNTIL_DELETED = """
import sys
from time import perf_counter, sleep
from chatledger import Message, NotFound
from chatledger.stores.sqlite import SQLiteStore

def is_deleted():
    try:
        store.get("all deleted")
        return True
    except NotFound:
        return False

with SQLiteStore(sys.argv[1]) as store:
    store.append("process", [Message.user("hello")], owner="process")
    print("appending", flush=True)
    longest = 0
    while not is_deleted():
        start = perf_counter()
        store.append("process", [Message.user("hello")], owner="process")
        longest = max(longest, perf_counter() - start)
        sleep(0.002)
    print(longest)
"""
