"""LangChain chat message histories on DynamoDB: langchain-community's, the drop-in and the store.

All of them have the same conversations, turn by turn, on one DynamoDB Local.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import TypeAlias

import boto3
import botocore.session
from botocore.config import Config
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from benchmarks.dynamodb import next_text
from benchmarks.markdown import markdown_table
from benchmarks.meter import Cost, Meter
from chatledger.langchain import ChatMessageHistory, DynamoDBChatMessageHistory
from chatledger.stores.dynamodb import DynamoDBStore, create_table
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal

NAME = "LangChain"
COMMUNITY = Path(__file__).parents[1] / ".cache" / "langchain-community"
"""Installed by ``scripts/bench-programs``."""

LENGTHS = {1: range(1, 2), 50: range(43, 58, 2), 150: range(143, 158, 2)}
"""The lengths in the results, and the range that is averaged for each, because costs vary."""
SHORT = 7
"""Conversations of one turn for each long one, so that every length has 8 turns."""
ROUNDS = 3
WRITERS, APPENDS = 8, 20
FIRST_ITEM_BYTES, WINDOW = 8_192, 20

Open: TypeAlias = Callable[[str], BaseChatMessageHistory]
"""Opens the history of a session."""


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    open: Open
    open_full: Open
    """Opens the same history without a window."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation in one contender's history."""

    contender: Contender
    session_id: str
    history: BaseChatMessageHistory | None
    """None if a new history is opened for each turn."""

    def turn(self, messages: Sequence[BaseMessage]) -> None:
        history = self.history or self.contender.open(self.session_id)
        assert history.messages
        history.add_messages(messages)


@dataclass(frozen=True, slots=True)
class Turn:
    conversation: Conversation
    length: int
    """The number of messages in the history before the turn."""
    cost: Cost
    seconds: float


def section() -> str:
    """Measure everything, and return the section of the results."""
    with open_contenders() as (contenders, meter):
        turns = list(measure_turns(contenders, meter))
        rows = [row(contender, turns) for contender in contenders]
    one, some, many = LENGTHS
    headings = ["", "write units", "read units", "requests", "ms", "ms, new history", "survivors"]
    return f"""\
## {NAME}

A turn does what `RunnableWithMessageHistory` does: it reads the messages, then adds the user's
message and the reply in one call. The figures are for {one} / {some} / {many} messages in the
history. Units and requests are means of the turns around that length, because a turn that starts
another item costs more. Milliseconds are medians, with one history for all turns, and with a new
one for each turn, as on LangChain's page. langchain-community's reads are eventually consistent, at
half the price, and it reads twice. Survivors are the messages that remain after {WRITERS} writers
added {APPENDS} each, in the worst of {ROUNDS} trials.

{markdown_table(headings, rows)}"""


@contextmanager
def open_contenders() -> Iterator[tuple[Sequence[Contender], Meter]]:
    """Yield the contenders, each with a table of its own."""
    core = botocore.session.Session()
    core.set_default_client_config(Config(proxies={}))
    session = boto3.Session(KEY, KEY, region_name=REGION, botocore_session=core)
    meter = Meter(session)
    with DynamoDBLocal() as dynamodb:
        client = session.client("dynamodb", endpoint_url=dynamodb.endpoint)

        def contender_with_table(
            history_class: Callable[..., BaseChatMessageHistory],
            name: str,
            table_name: str,
            **options: int,
        ) -> Contender:
            client.create_table(
                TableName=table_name,
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": "SessionId", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "SessionId", "AttributeType": "S"}],
            )
            connection = {"endpoint_url": dynamodb.endpoint, "boto3_session": session}
            open = partial(history_class, table_name, **connection, **options)
            return Contender(name, open, open)

        create_table(client, "log")
        store_history = partial(ChatMessageHistory, DynamoDBStore(client, "log"))
        community, community_version = langchain_community()
        drop_in = DynamoDBChatMessageHistory
        yield (
            [
                contender_with_table(
                    community, f"langchain-community {community_version}", "community"
                ),
                contender_with_table(drop_in, "drop-in", "one-item"),
                contender_with_table(
                    drop_in,
                    f"drop-in, `first_item_bytes={FIRST_ITEM_BYTES:_}`",
                    "segments",
                    first_item_bytes=FIRST_ITEM_BYTES,
                ),
                Contender(
                    f"`ChatMessageHistory`, `window={WINDOW}`",
                    partial(store_history, window=WINDOW),
                    store_history,
                ),
                Contender("`ChatMessageHistory`, no window", store_history, store_history),
            ],
            meter,
        )


def langchain_community() -> tuple[Callable[..., BaseChatMessageHistory], str]:
    """Return the history class and the version of its package."""
    if not COMMUNITY.exists():
        sys.exit(f"{COMMUNITY} is missing; run scripts/bench-programs to install it.")
    sys.path.append(str(COMMUNITY))  # last, so that only the package itself comes from it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = import_module("langchain_community.chat_message_histories.dynamodb")
    return module.DynamoDBChatMessageHistory, version("langchain-community")


def measure_turns(contenders: Sequence[Contender], meter: Meter) -> Iterator[Turn]:
    list(side_by_side(contenders, "warming up", meter, last=max(LENGTHS[50])))
    for number in range(ROUNDS):
        for n, last in enumerate([*[1] * SHORT, max(LENGTHS[150])]):
            yield from side_by_side(contenders, f"{number}.{n}", meter, last=last)


def side_by_side(
    contenders: Sequence[Contender], name: str, meter: Meter, *, last: int
) -> Iterator[Turn]:
    """Have the same conversation with all contenders, until a turn starts with ``last`` messages.

    They alternate in every turn, so that other load on the machine affects all of them alike.
    """
    added: list[BaseMessage] = [AIMessage(next_text())]
    conversations = [
        conversation
        for contender in contenders
        for conversation in start_conversations(contender, name, added)
    ]
    for number, length in enumerate(range(1, last + 1, 2)):
        messages: list[BaseMessage] = [HumanMessage(next_text()), AIMessage(next_text())]
        start = number % len(conversations)
        for conversation in [*conversations[start:], *conversations[:start]]:
            meter.reset()
            start_time = perf_counter()
            conversation.turn(messages)
            seconds = perf_counter() - start_time
            yield Turn(conversation, length, meter.take_cost(), seconds)
        added += messages
    for conversation in conversations:
        contender = conversation.contender
        stored = contender.open_full(conversation.session_id).messages
        assert texts(stored) == texts(added), f"{contender.name} does not have all messages"


def start_conversations(
    contender: Contender, name: str, messages: Sequence[BaseMessage]
) -> Iterator[Conversation]:
    """Yield a conversation with one history for all turns, and one with a new history each turn."""
    for kind in ("one history", "new histories"):
        session_id = f"{name}, {kind}, with {contender.name}"
        history = contender.open(session_id)
        history.add_messages(messages)
        yield Conversation(contender, session_id, history if kind == "one history" else None)


def survivors(contender: Contender, session_id: str) -> int:
    """Return how many messages remain after several writers added theirs at the same time."""
    histories = [contender.open(session_id) for _ in range(WRITERS)]

    def write(writer: int) -> None:
        for n in range(APPENDS):
            histories[writer].add_messages([HumanMessage(f"{writer}.{n} {next_text()}")])

    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(write, range(WRITERS)))
    return len(set(texts(contender.open_full(session_id).messages)))


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [str(message.content) for message in messages]


def row(contender: Contender, turns: Sequence[Turn]) -> list[str]:
    def at_each_length(figure: Callable[[Sequence[Turn]], float]) -> str:
        own_turns = [turn for turn in turns if turn.conversation.contender is contender]
        return " / ".join(
            rounded(figure([turn for turn in own_turns if turn.length in near]))
            for near in LENGTHS.values()
        )

    def milliseconds(turns: Sequence[Turn], *, new_history: bool) -> float:
        return 1000 * median(
            turn.seconds for turn in turns if (turn.conversation.history is None) is new_history
        )

    fewest = min(survivors(contender, f"survivors {n} of {contender.name}") for n in range(ROUNDS))
    return [
        contender.name,
        at_each_length(lambda turns: mean(turn.cost.writes for turn in turns)),
        at_each_length(lambda turns: mean(turn.cost.reads for turn in turns)),
        at_each_length(lambda turns: mean(turn.cost.requests for turn in turns)),
        at_each_length(lambda turns: milliseconds(turns, new_history=False)),
        at_each_length(lambda turns: milliseconds(turns, new_history=True)),
        f"{fewest} of {WRITERS * APPENDS}",
    ]


def rounded(figure: float) -> str:
    return f"{figure:.1f}".removesuffix(".0") if figure < 10 else f"{figure:.0f}"
