"""Turns of Chat and SyncChat compared with hand-written ones, on both stores.

The model is the fake Bedrock server, in a process of its own, like DynamoDB Local.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, TypeAlias

import boto3
import botocore.session
from botocore.config import Config

from benchmarks.dynamodb import next_text
from benchmarks.markdown import markdown_table
from benchmarks.measurement import Benchmark, Elapsed, Figure, Milliseconds, Ratio, ResultRow, Work
from benchmarks.turns_by_hand import (
    WINDOW,
    DynamoDBHistory,
    History,
    SQLiteHistory,
    call_model,
    turn,
)
from benchmarks.turns_model import DELAY, FAST, LENGTH, PIECES, SLOW, run_model_server
from chatledger import AsyncStore, Message, Store, open_async_store
from chatledger.chat import Chat, SyncChat
from chatledger.models.bedrock import BedrockModel
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore, create_table
from chatledger.stores.sqlite import SQLiteStore
from chatledger.testing.bedrock_server import ACCESS_KEY, REGION, SECRET_KEY
from chatledger.testing.dynamodb_local import DynamoDBLocal

NAME = "Turns"
OWNER = "bob"
ASYNC, SYNC, BY_HAND = "async", "sync", "by hand"  # the id of each side's conversation
TURNS_PER_WORK = 3
"""How many turns one piece of work makes, one after the other."""
CONCURRENT = 200
CLIENT_CONFIG = Config(max_pool_connections=CONCURRENT)
"""A connection for each thread, for the hand-written clients and the sync store's."""

OneTurn: TypeAlias = Callable[[str, str], Elapsed]
"""Makes a turn with this model in this conversation; returns the time until its first piece."""


class TimedReply:
    """Collects a reply, and measures the time until its first piece."""

    def __init__(self) -> None:
        self._start = Elapsed(process_time(), perf_counter())
        self._pieces: list[str] = []
        self.threads = 0

    def add(self, piece: str) -> None:
        if not self._pieces:
            cpu, wall = process_time() - self._start.cpu, perf_counter() - self._start.wall
            self.until_first_piece = Elapsed(cpu, wall)
            self.threads = threading.active_count()
        self._pieces.append(piece)

    @property
    def text(self) -> str:
        return "".join(self._pieces)


@dataclass(frozen=True, slots=True)
class Sides:
    """The chats by model, and what the hand-written turns use instead."""

    store: Store
    chats: Mapping[str, Chat]
    sync_chats: Mapping[str, SyncChat]
    history: History
    bedrock: Any
    runner: asyncio.Runner
    """Runs the event loop of everything async."""
    texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The texts of each conversation, in order."""
    threads: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """The largest number of threads, by side."""

    def fill(self) -> None:
        """Give each side's conversation as many messages as a window has."""
        for conversation_id in (ASYNC, SYNC):
            self.store.create(conversation_id, owner=OWNER, title="A week in Portugal")
        for _ in range(WINDOW // 2):
            for conversation_id in (ASYNC, SYNC, BY_HAND):
                question, reply = next_text(), next_text()
                if conversation_id == BY_HAND:
                    self.history.add(conversation_id, "user", question)
                    self.history.add(conversation_id, "assistant", reply)
                else:
                    self.store.append(conversation_id, [Message.user(question)])
                    self.store.append(conversation_id, [Message.assistant(reply)])
                self.texts[conversation_id] += [question, reply]

    async def async_turn(self, model: str, conversation_id: str) -> Elapsed:
        question, reply = next_text(), TimedReply()
        events = self.chats[model].stream(question, conversation_id=conversation_id, owner=OWNER)
        async for event in events:
            if isinstance(event, str):
                reply.add(event)
        return self._finish(ASYNC, conversation_id, question, reply)

    def run_async_turn(self, model: str, conversation_id: str) -> Elapsed:
        return self.runner.run(self.async_turn(model, conversation_id))

    def sync_turn(self, model: str, conversation_id: str) -> Elapsed:
        question, reply = next_text(), TimedReply()
        chat = self.sync_chats[model]
        for event in chat.stream(question, conversation_id=conversation_id, owner=OWNER):
            if isinstance(event, str):
                reply.add(event)
        return self._finish(SYNC, conversation_id, question, reply)

    def turn_by_hand(self, model: str, conversation_id: str) -> Elapsed:
        question, reply = next_text(), TimedReply()
        for piece in turn(self.history, self.bedrock, model, conversation_id, question):
            reply.add(piece)
        return self._finish(BY_HAND, conversation_id, question, reply)

    def model_alone(self, model: str, conversation_id: str) -> Elapsed:
        """Call the model as in a hand-written turn, without saving anything."""
        texts = [*self.texts[conversation_id][-WINDOW + 2 :], next_text()]
        window = [("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
        reply = TimedReply()
        for piece in call_model(self.bedrock, model, window):
            reply.add(piece)
        return reply.until_first_piece

    def check(self) -> None:
        """Assert that all messages are stored, once and in order."""
        for conversation_id, texts in self.texts.items():
            if conversation_id.startswith(BY_HAND):
                stored = [text for _, text in self.history.last(conversation_id, 1000)]
            else:
                stored = [each.text for each in self.store.tail(conversation_id, 1000).messages]
            assert stored == texts[-1000:], f"{conversation_id} does not have all messages"

    def _finish(self, side: str, conversation_id: str, question: str, reply: TimedReply) -> Elapsed:
        assert len(reply.text) == LENGTH, f"{conversation_id} got only a part of its reply"
        self.texts[conversation_id] += [question, reply.text]
        self.threads[side] = max(self.threads[side], reply.threads)
        return reply.until_first_piece


def section() -> str:
    """Measure everything, and return the section of the results."""
    with TemporaryDirectory() as folder:
        with dynamodb_sides() as sides:
            rows = sequential_rows("DynamoDB", sides)
            rows.append(concurrent_row("DynamoDB", sides))
            chat_threads, threads_by_hand = sides.threads[ASYNC], sides.threads[BY_HAND]
        with sqlite_sides(Path(folder)) as sides:
            rows += sequential_rows("SQLite", sides)
    headings = ["", "CPU", "wall", "first piece", "ms: chat / hand-written / model alone"]
    thinking_time = f"{DELAY * 1000:.0f} ms"
    return f"""\
## {NAME}

The figures compare a turn of a chat with a hand-written one, as in tutorials: put the user's
message, query the last {WINDOW}, call `converse_stream`, and put the reply, with boto3, or with
`sqlite3` and the same durability. The hand-written turn takes no lease, has no owner and no list of
conversations, and loses the reply if the model fails; it makes 3 requests to DynamoDB, and a chat
makes 4. The model is a fake Bedrock server, whose reply has {LENGTH:,} characters in {PIECES}
pieces. It runs in a process of its own: its CPU time is not included, but much of the wall-clock
time is spent waiting for it.

CPU and wall are those of whole turns, with a model that sends its reply at once. The first piece is
timed with a model that thinks for {thinking_time} and then sends one piece after the other. The
figure is a ratio; the milliseconds compare a chat, a hand-written turn and that model called with
boto3 alone, all without the thinking time. The {CONCURRENT} concurrent turns, each in its own
conversation, use the model that thinks, and are compared with as many threads of hand-written
turns: {chat_threads} threads against {threads_by_hand}. The benchmark checks that every message is
stored, once and in order.

{markdown_table(headings, rows)}"""


def sequential_rows(store: str, sides: Sides) -> list[list[str]]:
    """Return a row for each kind of chat, with turns made one after the other."""
    sides.fill()
    chats: dict[str, tuple[OneTurn, str]] = {
        "Chat": (sides.run_async_turn, ASYNC),
        "SyncChat": (sides.sync_turn, SYNC),
    }
    baseline = whole_turns(sides.turn_by_hand, BY_HAND)
    turns = measure(
        [Ratio(name, whole_turns(*each), baseline) for name, each in chats.items()], rounds=30
    )
    by_hand = time_to_first_piece(sides.turn_by_hand, BY_HAND)
    alone = Milliseconds("alone", time_to_first_piece(sides.model_alone, BY_HAND))
    figures: list[Figure] = []
    for name, each in chats.items():
        work = time_to_first_piece(*each)
        figures += [Ratio(name, work, by_hand), Milliseconds(name, work)]
    first_pieces = measure([*figures, Milliseconds(BY_HAND, by_hand), alone], rounds=10)
    sides.check()
    *walls, by_hand_ms, alone_ms = [each.wall.removesuffix(" ms") for each in first_pieces]
    return [
        [f"{store}: {name}", turn.cpu, turn.wall, ratio, f"{ms} / {by_hand_ms} / {alone_ms}"]
        for name, turn, ratio, ms in zip(chats, turns, walls[::2], walls[1::2], strict=True)
    ]


def whole_turns(one_turn: OneTurn, conversation_id: str) -> Work:
    def turns() -> None:
        for _ in range(TURNS_PER_WORK):
            one_turn(FAST, conversation_id)

    return turns


def time_to_first_piece(one_turn: OneTurn, conversation_id: str) -> Work:
    """Return work that measures the time to the first piece, without the model's thinking time."""

    def without_thinking() -> Elapsed:
        elapsed = one_turn(SLOW, conversation_id)
        return Elapsed(elapsed.cpu, elapsed.wall - DELAY)

    return without_thinking


def concurrent_row(store: str, sides: Sides) -> list[str]:
    """Return the row of concurrent turns; an unmeasured round creates their conversations."""
    sides.threads.clear()

    async def in_tasks() -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(CONCURRENT):
                group.create_task(sides.async_turn(SLOW, f"{ASYNC} {n}"))

    def in_threads() -> None:
        all_started = threading.Barrier(CONCURRENT)

        def one_turn(n: int) -> None:
            all_started.wait()
            sides.turn_by_hand(SLOW, f"{BY_HAND} {n}")

        with ThreadPoolExecutor(CONCURRENT) as threads:
            list(threads.map(one_turn, range(CONCURRENT)))

    [turns] = measure([Ratio("Chat", lambda: sides.runner.run(in_tasks()), in_threads)], rounds=4)
    sides.check()
    return [f"{store}: Chat, {CONCURRENT} concurrent turns", turns.cpu, turns.wall, "", ""]


def measure(figures: Sequence[Figure], *, rounds: int) -> list[ResultRow]:
    return Benchmark(NAME, rounds, lambda _: nullcontext(figures)).run(Path())


@contextmanager
def dynamodb_sides() -> Iterator[Sides]:
    """Yield both sides, each with a table of its own."""
    with DynamoDBLocal() as dynamodb, asyncio.Runner() as runner:
        session = new_session()
        client = partial(
            session.client, "dynamodb", endpoint_url=dynamodb.endpoint, config=CLIENT_CONFIG
        )
        create_table(client(), "chatledger")
        async_store = AsyncDynamoDBStore("chatledger", endpoint=dynamodb.endpoint, session=session)
        store, history = DynamoDBStore(client(), "chatledger"), DynamoDBHistory(client(), "by-hand")
        with open_sides(store, async_store, history, runner) as sides:
            yield sides


@contextmanager
def sqlite_sides(folder: Path) -> Iterator[Sides]:
    """Yield both sides, each with a file of its own."""
    with (
        SQLiteStore(folder / "chatledger.db") as store,
        closing(SQLiteHistory(folder / "by_hand.db")) as history,
        asyncio.Runner() as runner,
    ):
        async_store = open_async_store(f"sqlite:///{folder / 'chatledger.db'}")
        with open_sides(store, async_store, history, runner) as sides:
            yield sides


@contextmanager
def open_sides(
    store: Store, async_store: AsyncStore, history: History, runner: asyncio.Runner
) -> Iterator[Sides]:
    """Yield both sides with the models of one server."""
    session = new_session()
    with (
        run_model_server() as endpoint,
        closing(
            session.client("bedrock-runtime", endpoint_url=endpoint, config=CLIENT_CONFIG)
        ) as bedrock,
    ):
        models = {id: BedrockModel(id, endpoint=endpoint, session=session) for id in (FAST, SLOW)}
        yield Sides(
            store,
            {id: Chat(async_store, model) for id, model in models.items()},
            {id: SyncChat(store, model) for id, model in models.items()},
            history,
            bedrock,
            runner,
        )
        runner.run(async_store.close())
        for model in models.values():
            runner.run(model.close())


def new_session() -> boto3.Session:
    core = botocore.session.Session()
    core.set_default_client_config(Config(proxies={}))
    return boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION, botocore_session=core)
