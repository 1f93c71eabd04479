"""LangGraph's checkpointers: ChatledgerSaver, DynamoDBSaver, SqliteSaver, and requests by hand.

All of them have the same thread, turn by turn, on one DynamoDB Local or one disk.
"""

import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, TypeAlias

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState

from benchmarks.dynamodb_by_hand import DynamoDBByHand
from benchmarks.markdown import markdown_table
from benchmarks.measurement import Elapsed
from benchmarks.meter import Cost, Meter
from benchmarks.sqlite_by_hand import SQLiteByHand
from chatledger import Message, Store
from chatledger.langgraph import ChatledgerSaver
from chatledger.stores.dynamodb import DynamoDBStore, create_table
from chatledger.stores.dynamodb.records import size_of
from chatledger.stores.sqlite import SQLiteStore
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.langgraph.graphs import DeltaState, Graph, chat_graph, config_of, question, reply
from tests.langgraph.peers import PEERS, new_checkpoint_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NAME = "LangGraph"
TURNS = {1: range(1, 2), 10: range(8, 13), 100: range(97, 104), 1_000: range(996, 1_001)}
"""The turns in the results, and those that are measured for each."""
SHORT = 5
"""Threads of one turn, besides the long one."""
STORED_AT = 100
LAST_BEFORE_SEED, FIRST_SEEDED = max(TURNS[100]), min(TURNS[1_000]) - 2
"""A contender that stores the whole state with each checkpoint would store gigabytes in a thousand
turns. It skips the turns between these, and begins another thread with their messages."""
LONG, SEEDED = "long", "seeded"  # the ids of the threads
OWNER = "bob"
SMALL = "x" * 200
"""In the place of what is stored without a message, such as a checkpoint that refers to some."""
READ = 4
"""The last records that a turn by hand reads, as ChatledgerSaver does."""
WALL_LIMIT = 0.3

Saver: TypeAlias = BaseCheckpointSaver[Any]
DELTA = " delta channel"


@dataclass(slots=True, eq=False)
class GraphContender:
    """A graph of one node, which answers with a message that is known in advance.

    Attributes:
        open_saver: Opens another saver over the same table or file.
        stored_bytes: Returns how much is stored.
        state: The graph's state.
        is_cold: Whether each measured turn has a new saver, as in a process that has not used the
            thread before.
        is_seeded: Whether it skips the turns before ``FIRST_SEEDED``.
    """

    name: str
    open_saver: Callable[[], Saver]
    stored_bytes: Callable[[], int]
    state: type = MessagesState
    is_cold: bool = False
    is_seeded: bool = False
    _answer: AIMessage = field(init=False)
    _graph: Graph = field(init=False)

    def __post_init__(self) -> None:
        self._graph = self._open_graph()

    def _open_graph(self) -> Graph:
        return chat_graph(self.open_saver(), self.state, answer=lambda _: self._answer)

    def prepare_turn(
        self, thread_id: str, asked: HumanMessage, answer: AIMessage, *, is_measured: bool
    ) -> Callable[[], object]:
        """Return a function that makes the turn."""
        self._answer = answer
        graph = self._open_graph() if self.is_cold and is_measured else self._graph
        return lambda: graph.invoke({"messages": [asked]}, config_of(thread_id))

    def seed(self, thread_id: str, messages: list[BaseMessage]) -> None:
        """Begin a thread with the messages."""
        self._graph.update_state(config_of(thread_id), {"messages": messages}, as_node="model")

    def texts(self, thread_id: str) -> list[str]:
        """Return the texts of the thread's messages."""
        messages = self._open_graph().get_state(config_of(thread_id)).values["messages"]
        return [str(message.content) for message in messages]


@dataclass(slots=True, eq=False)
class HandContender:
    """The same reads and writes without LangGraph, for which it needs the store only once.

    Attributes:
        append: Appends a text to a thread.
        read: Reads the last records of a thread.
    """

    name: str
    store: Store
    append: Callable[[str, str], object]
    read: Callable[[str], object]
    stored_bytes: Callable[[], int]
    is_seeded: bool = False
    _threads: set[str] = field(default_factory=set)

    def prepare_turn(
        self, thread_id: str, asked: HumanMessage, answer: AIMessage, *, is_measured: bool
    ) -> Callable[[], object]:
        """Return a function that makes the turn."""
        if thread_id not in self._threads:
            self.store.create(thread_id, owner=OWNER)
            self.store.append(thread_id, [Message.user(SMALL)], owner=OWNER)
            for _ in range(READ):
                self.append(thread_id, SMALL)
            self._threads.add(thread_id)
        # The records of a turn: the question with its checkpoint, the start, the next checkpoint,
        # the reply, and the last checkpoint.
        texts = [str(asked.content), SMALL, SMALL, str(answer.content), SMALL]
        return lambda: (self.read(thread_id), [self.append(thread_id, text) for text in texts])


Contender: TypeAlias = GraphContender | HandContender


@dataclass(frozen=True, slots=True)
class Turn:
    contender: Contender
    number: int
    elapsed: Elapsed
    cost: Cost


@dataclass(slots=True)
class Results:
    """The measured turns, the bytes at turn ``STORED_AT``, and the turns that failed."""

    turns: list[Turn] = field(default_factory=list)
    stored_bytes: dict[Contender, int] = field(default_factory=dict)
    ended_at: dict[Contender, int] = field(default_factory=dict)

    def of(self, contender: Contender, near: range) -> list[Turn]:
        return [turn for turn in self.turns if turn.contender is contender and turn.number in near]


def section() -> str:
    """Measure everything, and return the section of the results."""
    if not PEERS.exists():
        sys.exit(f"{PEERS} is missing; run scripts/bench-programs to install it.")
    sys.path.append(str(PEERS))  # last, so that only the packages themselves come from it
    with open_dynamodb_contenders() as (contenders, meter):
        on_dynamodb = measure(contenders, meter)
    ours, theirs = contenders[1], contenders[4]
    ratio, delta_ratio = (
        milliseconds(on_dynamodb.of(one, TURNS[100]))
        / milliseconds(on_dynamodb.of(other, TURNS[100]))
        for one, other in ((ours, theirs), (contenders[2], contenders[5]))
    )
    dynamodb_rows = [dynamodb_row(each, on_dynamodb) for each in contenders]
    with TemporaryDirectory() as folder, open_sqlite_contenders(Path(folder)) as contenders:
        on_sqlite = measure(contenders, Meter(boto3.Session()))
    sqlite_rows = [row(each, on_sqlite) for each in contenders]
    dynamodb_headings = ["DynamoDB", "write units", "writes", "read units", "reads"]
    headings = ["ms", "CPU ms", f"KB at turn {STORED_AT}"]
    return f"""\
## {NAME}

A turn is one `invoke` of a graph with one node: the question and the reply, of 1,000 characters
each, with the fields that a model fills in. The figures are for the turns
{" / ".join(f"{turn:,}" for turn in TURNS)} of a thread. Units and requests are means of the turns
around that one; milliseconds are medians. DynamoDBSaver's reads are eventually consistent, at half
the price. It ends when a checkpoint exceeds 400 KB, unless it has an S3 bucket. "New saver" is a
process that has not used the thread before. By hand are the same requests with boto3, or `sqlite3`
with the same durability, without LangGraph: a read of the last records, and a write for each
checkpoint and each task. SqliteSaver and InMemorySaver store the whole state with each checkpoint,
so that their turns around 1,000 are those of a thread that was begun with the messages before.

At turn 100, a turn of ChatledgerSaver takes {ratio:.2f} of DynamoDBSaver's wall-clock time
(at most {WALL_LIMIT} is wanted), and {delta_ratio:.2f} with a delta channel.

{markdown_table([*dynamodb_headings, *headings], dynamodb_rows)}

{markdown_table(["SQLite", *headings], sqlite_rows)}"""


# Contenders ---------------------------------------------------------------------------------------


@contextmanager
def open_dynamodb_contenders() -> Iterator[tuple[Sequence[Contender], Meter]]:
    """Yield the contenders, each with a table of its own."""
    core = botocore.session.Session()
    core.set_default_client_config(Config(proxies={}))
    session = boto3.Session(KEY, KEY, region_name=REGION, botocore_session=core)
    meter = Meter(session)
    logging.getLogger("langgraph_checkpoint_aws").setLevel(logging.CRITICAL)  # it ends on purpose
    saver_module = import_module("langgraph_checkpoint_aws.checkpoint.dynamodb.saver")
    peer = f"DynamoDBSaver {version('langgraph-checkpoint-aws')}"
    with DynamoDBLocal() as dynamodb:
        client = session.client("dynamodb", endpoint_url=dynamodb.endpoint)

        def ours(name: str, table: str, **options: Any) -> GraphContender:
            create_table(client, table)
            return GraphContender(
                name,
                lambda: ChatledgerSaver(DynamoDBStore(client, table)),
                partial(bytes_in_table, client, table),
                **options,
            )

        def theirs(name: str, **options: Any) -> GraphContender:
            table = new_checkpoint_table(client)
            open_saver = partial(
                saver_module.DynamoDBSaver, table, session=session, endpoint_url=dynamodb.endpoint
            )
            return GraphContender(
                name, open_saver, partial(bytes_in_table, client, table), **options
            )

        create_table(client, "by-hand")
        by_hand = DynamoDBByHand(client, "by-hand")
        yield (
            [
                HandContender(
                    "by hand, without LangGraph",
                    DynamoDBStore(client, "by-hand"),
                    lambda thread_id, text: by_hand.append(
                        thread_id, "user", text, owner=OWNER, reply_follows=True
                    ),
                    lambda thread_id: by_hand.tail(thread_id, READ, owner=OWNER),
                    partial(bytes_in_table, client, "by-hand"),
                ),
                ours("ChatledgerSaver", "list"),
                ours(f"ChatledgerSaver,{DELTA}", "delta", state=DeltaState),
                ours("ChatledgerSaver, new saver", "cold", is_cold=True),
                theirs(peer),
                theirs(f"{peer},{DELTA}", state=DeltaState),
            ],
            meter,
        )


@contextmanager
def open_sqlite_contenders(folder: Path) -> Iterator[Sequence[Contender]]:
    """Yield the contenders, each with a file of its own."""
    saver_class = import_module("langgraph.checkpoint.sqlite").SqliteSaver
    peer = f"SqliteSaver {version('langgraph-checkpoint-sqlite')}"
    with ExitStack() as stack:

        def ours(name: str, file: str, **options: Any) -> GraphContender:
            store = stack.enter_context(SQLiteStore(folder / file))
            open_saver = partial(ChatledgerSaver, store)
            return GraphContender(
                name, open_saver, partial(bytes_in_file, folder / file), **options
            )

        def theirs(name: str, file: str, **options: Any) -> GraphContender:
            saver = stack.enter_context(saver_class.from_conn_string(str(folder / file)))
            return GraphContender(
                name,
                lambda: saver,
                partial(bytes_in_file, folder / file),
                is_seeded=True,
                **options,
            )

        store = stack.enter_context(SQLiteStore(folder / "by-hand.db"))
        by_hand = stack.enter_context(closing(SQLiteByHand(folder / "by-hand.db")))
        in_memory = InMemorySaver()
        yield [
            HandContender(
                "by hand, without LangGraph",
                store,
                lambda thread_id, text: by_hand.append(thread_id, [text]),
                lambda thread_id: by_hand.tail(thread_id, READ),
                partial(bytes_in_file, folder / "by-hand.db"),
            ),
            ours("ChatledgerSaver", "list.db"),
            ours(f"ChatledgerSaver,{DELTA}", "delta.db", state=DeltaState),
            ours("ChatledgerSaver, new saver", "cold.db", is_cold=True),
            theirs(peer, "their-list.db"),
            theirs(f"{peer},{DELTA}", "their-delta.db", state=DeltaState),
            GraphContender(
                "InMemorySaver, which stores nothing", lambda: in_memory, lambda: 0, is_seeded=True
            ),
        ]


def bytes_in_table(client: "DynamoDBClient", table: str) -> int:
    pages = client.get_paginator("scan").paginate(TableName=table)
    items: list[Any] = [item for page in pages for item in page["Items"]]
    return sum(map(size_of, items))


def bytes_in_file(file: Path) -> int:
    with closing(sqlite3.connect(file)) as db:
        pages, size = (
            db.execute(f"PRAGMA page_{name}").fetchone()[0] for name in ("count", "size")
        )
    return int(pages * size)


# Measuring ----------------------------------------------------------------------------------------


def measure(contenders: Sequence[Contender], meter: Meter) -> Results:
    """Have the same threads with all contenders, each until turn 1,000 or until it fails.

    They alternate in every turn, so that other load on the machine affects all of them alike.
    """
    results = Results()
    for n in range(SHORT + 1):
        for contender in in_turn(contenders, n):
            turn = make_turn(contender, f"short {n}", 1, meter)
            results.turns += [turn] if n and turn is not None else []  # the first one warms up
    before = {contender: contender.stored_bytes() for contender in contenders}
    live = list(contenders)
    for number in range(1, max(TURNS[1_000]) + 1):
        for contender in in_turn(live, number):
            thread_id = LONG
            if contender.is_seeded and number > LAST_BEFORE_SEED:
                if number < FIRST_SEEDED:
                    continue
                thread_id = SEEDED
                if number == FIRST_SEEDED and isinstance(contender, GraphContender):
                    contender.seed(thread_id, messages_before(number))
            try:
                turn = make_turn(contender, thread_id, number, meter)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ValidationException":
                    raise
                results.ended_at[contender] = number
                live.remove(contender)
                continue
            if turn is not None and number > 1:
                results.turns.append(turn)
            if number == STORED_AT:
                results.stored_bytes[contender] = contender.stored_bytes() - before[contender]
    expected = [str(message.content) for message in messages_before(number + 1)]
    for contender in live:
        if isinstance(contender, GraphContender):
            thread_id = SEEDED if contender.is_seeded else LONG
            assert contender.texts(thread_id) == expected, f"{contender.name} lost messages"
    return results


def in_turn(contenders: Sequence[Contender], number: int) -> list[Contender]:
    start = number % len(contenders)
    return [*contenders[start:], *contenders[:start]]


def messages_before(turn: int) -> list[BaseMessage]:
    return [make(n) for n in range(1, turn) for make in (question, reply)]


def make_turn(contender: Contender, thread_id: str, number: int, meter: Meter) -> Turn | None:
    """Make a turn, and return it if it is one of those in the results."""
    is_measured = any(number in near for near in TURNS.values())
    make = contender.prepare_turn(
        thread_id, question(number), reply(number), is_measured=is_measured
    )
    meter.reset()
    cpu, wall = process_time(), perf_counter()
    make()
    elapsed = Elapsed(process_time() - cpu, perf_counter() - wall)
    return Turn(contender, number, elapsed, meter.take_cost()) if is_measured else None


# Results ------------------------------------------------------------------------------------------


def dynamodb_row(contender: Contender, results: Results) -> list[str]:
    def mean_of(figure: Callable[[Cost], float]) -> str:
        return at_each_turn(
            contender, results, lambda turns: mean(figure(turn.cost) for turn in turns)
        )

    cells = [
        mean_of(lambda cost: cost.writes),
        mean_of(lambda cost: cost.write_requests),
        mean_of(lambda cost: cost.reads),
        mean_of(lambda cost: cost.requests - cost.write_requests),
    ]
    name, *times = row(contender, results)
    return [name, *cells, *times]


def row(contender: Contender, results: Results) -> list[str]:
    ended = results.ended_at.get(contender)
    stored = results.stored_bytes[contender]
    return [
        f"{contender.name} (ends at turn {ended})" if ended else contender.name,
        at_each_turn(contender, results, milliseconds),
        at_each_turn(
            contender, results, lambda turns: 1000 * median(turn.elapsed.cpu for turn in turns)
        ),
        f"{stored / 1000:,.0f}",
    ]


def milliseconds(turns: Sequence[Turn]) -> float:
    return 1000 * median(turn.elapsed.wall for turn in turns)


def at_each_turn(
    contender: Contender, results: Results, figure: Callable[[Sequence[Turn]], float]
) -> str:
    found = [results.of(contender, near) for near in TURNS.values()]
    return " / ".join(rounded(figure(turns)) if turns else "-" for turns in found)


def rounded(figure: float) -> str:
    return f"{figure:.1f}".removesuffix(".0") if figure < 10 else f"{figure:,.0f}"
