"""What turns take beyond the model: Chat and SyncChat against a loop by hand, on both stores.

The model is the fake of Bedrock, in a process of its own, as DynamoDB Local is.
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

from benchmarks.dynamodb import text
from benchmarks.markdown import table
from benchmarks.measuring import Benchmark, Figure, Measured, Milliseconds, Ratio, Taken, Work
from benchmarks.turns_by_hand import WINDOW, DynamoDBHistory, History, SQLiteHistory, asked, turn
from benchmarks.turns_model import DELAY, LENGTH, PIECES, PROMPT, SLOW, served
from chatledger import AsyncStore, Message, Store, open_async_store
from chatledger.chat import Chat, SyncChat
from chatledger.models.bedrock import BedrockModel
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore, create_table
from chatledger.stores.sqlite import SQLiteStore
from chatledger.testing.bedrock_server import ACCESS_KEY, REGION, SECRET_KEY
from chatledger.testing.dynamodb_local import DynamoDBLocal

NAME = "Turns"
OWNER = "bob"
ASYNC, SYNC, BY_HAND = "in async", "in sync", "by hand"  # a conversation each
ONE_BY_ONE = 3
"""How many turns one piece of work makes, one after the other."""
TOGETHER = 200
ALIKE = Config(max_pool_connections=TOGETHER)
"""Of all clients by hand, and of the sync store's: a connection for each thread."""

OneTurn: TypeAlias = Callable[[str, str], Taken]
"""A turn with that model in that conversation; what passed until its first piece."""


class Reply:
    """A reply as it comes, and what passes until its first piece."""

    def __init__(self) -> None:
        self._begun = Taken(process_time(), perf_counter())
        self._pieces: list[str] = []
        self.threads = 0

    def add(self, piece: str) -> None:
        if not self._pieces:
            cpu, wall = process_time() - self._begun.cpu, perf_counter() - self._begun.wall
            self.first = Taken(cpu, wall)
            self.threads = threading.active_count()
        self._pieces.append(piece)

    @property
    def text(self) -> str:
        return "".join(self._pieces)


@dataclass(frozen=True, slots=True)
class Sides:
    """The chats of each model, and what the loop by hand has instead."""

    store: Store
    chats: Mapping[str, Chat]
    sync_chats: Mapping[str, SyncChat]
    history: History
    bedrock: Any
    runner: asyncio.Runner
    """Of the event loop of all that is async."""
    said: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """What was said in each conversation, in its order."""
    threads: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How many there were at most, by the side."""

    def fill(self) -> None:
        """As many messages for each as a window has."""
        for conversation_id in (ASYNC, SYNC):
            self.store.create(conversation_id, owner=OWNER, title="A week in Portugal")
        for _ in range(WINDOW // 2):
            for conversation_id in (ASYNC, SYNC, BY_HAND):
                question, answer = text(), text()
                if conversation_id == BY_HAND:
                    self.history.add(conversation_id, "user", question)
                    self.history.add(conversation_id, "assistant", answer)
                else:
                    self.store.append(conversation_id, [Message.user(question)])
                    self.store.append(conversation_id, [Message.assistant(answer)])
                self.said[conversation_id] += [question, answer]

    async def awaited_turn(self, model: str, conversation_id: str) -> Taken:
        question, reply = text(), Reply()
        events = self.chats[model].stream(question, conversation_id=conversation_id, owner=OWNER)
        async for event in events:
            if isinstance(event, str):
                reply.add(event)
        return self._ended(ASYNC, conversation_id, question, reply)

    def async_turn(self, model: str, conversation_id: str) -> Taken:
        return self.runner.run(self.awaited_turn(model, conversation_id))

    def sync_turn(self, model: str, conversation_id: str) -> Taken:
        question, reply = text(), Reply()
        chat = self.sync_chats[model]
        for event in chat.stream(question, conversation_id=conversation_id, owner=OWNER):
            if isinstance(event, str):
                reply.add(event)
        return self._ended(SYNC, conversation_id, question, reply)

    def turn_by_hand(self, model: str, conversation_id: str) -> Taken:
        question, reply = text(), Reply()
        for piece in turn(self.history, self.bedrock, model, conversation_id, question):
            reply.add(piece)
        return self._ended(BY_HAND, conversation_id, question, reply)

    def model_alone(self, model: str, conversation_id: str) -> Taken:
        """Asked what it is asked in a turn by hand, of which nothing is stored."""
        said = [*self.said[conversation_id][-WINDOW + 2 :], text()]
        window = [("assistant" if n % 2 else "user", text) for n, text in enumerate(said)]
        reply = Reply()
        for piece in asked(self.bedrock, model, window):
            reply.add(piece)
        return reply.first

    def check(self) -> None:
        """All that was said is stored, once and in its order."""
        for conversation_id, said in self.said.items():
            if conversation_id.startswith(BY_HAND):
                kept = [text for _, text in self.history.last(conversation_id, 1000)]
            else:
                kept = [each.text for each in self.store.tail(conversation_id, 1000).messages]
            assert kept == said[-1000:], f"{conversation_id} does not hold what was said"

    def _ended(self, side: str, conversation_id: str, question: str, reply: Reply) -> Taken:
        assert len(reply.text) == LENGTH, f"{conversation_id} was told a part of its reply"
        self.said[conversation_id] += [question, reply.text]
        self.threads[side] = max(self.threads[side], reply.threads)
        return reply.first


def section() -> str:
    """Measures, and says it in Markdown."""
    with TemporaryDirectory() as folder:
        with on_dynamodb() as on:
            rows = one_by_one("DynamoDB", on)
            rows.append(at_once("DynamoDB", on))
            ours, theirs = on.threads[ASYNC], on.threads[BY_HAND]
        with on_sqlite(Path(folder)) as on:
            rows += one_by_one("SQLite", on)
    headings = ["", "CPU", "wall", "first piece", "ms: ours / by hand / model alone"]
    thinks = f"{DELAY * 1000:.0f} ms"
    return f"""\
## {NAME}

A turn of a chat as a multiple of the same turn by hand, as tutorials write it: put the user's
message, query the last {WINDOW}, `converse_stream`, put the reply; with boto3, or with `sqlite3`
and as durable. By hand nothing holds the conversation, owns or lists it, or keeps what was said
when the model fails: that is 3 requests to DynamoDB against our 4. The model is the fake of
Bedrock, and says {LENGTH:,} characters in {PIECES} pieces. It is a process of its own, whose CPU
time does not count, and whose answers are much of the wall time.

CPU and wall are of whole turns, with a model that says all at once. The first piece is timed with
one that thinks for {thinks} and says its pieces one by one: as a multiple and in milliseconds,
beside those by hand and those of that model asked by boto3 alone, all without what it thinks. Turns
at once are {TOGETHER}, each in a conversation of its own, with the model that thinks, against as
many threads by hand: {ours} threads against {theirs}. All that was said is checked to be stored,
once and in order.

{table(headings, rows)}"""


def one_by_one(store: str, on: Sides) -> list[list[str]]:
    """A row for each chat."""
    on.fill()
    ours: dict[str, tuple[OneTurn, str]] = {
        "Chat": (on.async_turn, ASYNC),
        "SyncChat": (on.sync_turn, SYNC),
    }
    theirs = whole_turns(on.turn_by_hand, BY_HAND)
    turns = measured(
        [Ratio(name, whole_turns(*each), theirs) for name, each in ours.items()], rounds=30
    )
    by_hand = first_piece(on.turn_by_hand, BY_HAND)
    alone = Milliseconds("alone", first_piece(on.model_alone, BY_HAND))
    figures: list[Figure] = []
    for name, each in ours.items():
        work = first_piece(*each)
        figures += [Ratio(name, work, by_hand), Milliseconds(name, work)]
    firsts = measured([*figures, Milliseconds(BY_HAND, by_hand), alone], rounds=10)
    on.check()
    *walls, by_hand_ms, alone_ms = [each.wall.removesuffix(" ms") for each in firsts]
    return [
        [f"{store}: {name}", turn.cpu, turn.wall, ratio, f"{ms} / {by_hand_ms} / {alone_ms}"]
        for name, turn, ratio, ms in zip(ours, turns, walls[::2], walls[1::2], strict=True)
    ]


def whole_turns(one_turn: OneTurn, conversation_id: str) -> Work:
    def turns() -> None:
        for _ in range(ONE_BY_ONE):
            one_turn(PROMPT, conversation_id)

    return turns


def first_piece(one_turn: OneTurn, conversation_id: str) -> Work:
    """What passes until then beyond the model's thinking."""

    def beyond_the_model() -> Taken:
        first = one_turn(SLOW, conversation_id)
        return Taken(first.cpu, first.wall - DELAY)

    return beyond_the_model


def at_once(store: str, on: Sides) -> list[str]:
    """A row of turns that all run together. Their conversations start before the first round."""
    on.threads.clear()

    async def in_tasks() -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(TOGETHER):
                group.create_task(on.awaited_turn(SLOW, f"{ASYNC} {n}"))

    def in_threads() -> None:
        all_there = threading.Barrier(TOGETHER)

        def one_turn(n: int) -> None:
            all_there.wait()
            on.turn_by_hand(SLOW, f"{BY_HAND} {n}")

        with ThreadPoolExecutor(TOGETHER) as threads:
            list(threads.map(one_turn, range(TOGETHER)))

    [turns] = measured([Ratio("Chat", lambda: on.runner.run(in_tasks()), in_threads)], rounds=4)
    on.check()
    return [f"{store}: Chat, {TOGETHER} turns at once", turns.cpu, turns.wall, "", ""]


def measured(figures: Sequence[Figure], *, rounds: int) -> list[Measured]:
    return Benchmark(NAME, rounds, lambda _: nullcontext(figures)).run(Path())


@contextmanager
def on_dynamodb() -> Iterator[Sides]:
    """Each with a table of its own."""
    with DynamoDBLocal() as dynamodb, asyncio.Runner() as runner:
        session = new_session()
        client = partial(session.client, "dynamodb", endpoint_url=dynamodb.endpoint, config=ALIKE)
        create_table(client(), "ours")
        async_store = AsyncDynamoDBStore("ours", endpoint=dynamodb.endpoint, session=session)
        store, history = DynamoDBStore(client(), "ours"), DynamoDBHistory(client(), "theirs")
        with sides(store, async_store, history, runner) as on:
            yield on


@contextmanager
def on_sqlite(folder: Path) -> Iterator[Sides]:
    """Each with a file of its own."""
    with (
        SQLiteStore(folder / "ours.db") as store,
        closing(SQLiteHistory(folder / "theirs.db")) as history,
        asyncio.Runner() as runner,
    ):
        async_store = open_async_store(f"sqlite:///{folder / 'ours.db'}")
        with sides(store, async_store, history, runner) as on:
            yield on


@contextmanager
def sides(
    store: Store, async_store: AsyncStore, history: History, runner: asyncio.Runner
) -> Iterator[Sides]:
    """All of them with one server's models."""
    session = new_session()
    with (
        served() as endpoint,
        closing(session.client("bedrock-runtime", endpoint_url=endpoint, config=ALIKE)) as bedrock,
    ):
        models = {id: BedrockModel(id, endpoint=endpoint, session=session) for id in (PROMPT, SLOW)}
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
