"""LangChain's chat message histories on DynamoDB: langchain-community's, the drop-in, and the log.

All have the same conversations, turn by turn, on one DynamoDB Local.
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

from benchmarks.dynamodb import text
from benchmarks.markdown import table
from benchmarks.metering import Cost, Meter
from chatledger.langchain import ChatMessageHistory, DynamoDBChatMessageHistory
from chatledger.stores.dynamodb import DynamoDBStore, create_table
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal

NAME = "LangChain"
COMMUNITY = Path(__file__).parents[1] / ".cache" / "langchain-community"
"""Put there by ``scripts/bench-programs``."""

NEAR = {1: range(1, 2), 50: range(43, 58, 2), 150: range(143, 158, 2)}
"""The lengths, and those around each that are measured for it: not every turn costs the same."""
SHORT = 7
"""How many conversations of one turn come with a long one, so that all lengths have 8 turns."""
ROUNDS = 3
WRITERS, APPENDS = 8, 20
SEGMENT_BYTES, WINDOW = 8_192, 20

Open: TypeAlias = Callable[[str], BaseChatMessageHistory]
"""The history of that session."""


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    open: Open
    whole: Open
    """The same with all messages."""


@dataclass(frozen=True, slots=True)
class Talk:
    """A contender's conversation."""

    contender: Contender
    session_id: str
    at_hand: BaseChatMessageHistory | None
    """None if the history is made anew for each turn."""

    def turn(self, messages: Sequence[BaseMessage]) -> None:
        history = self.at_hand or self.contender.open(self.session_id)
        assert history.messages
        history.add_messages(messages)


@dataclass(frozen=True, slots=True)
class Turn:
    talk: Talk
    length: int
    """How many messages the history had before."""
    cost: Cost
    seconds: float


def section() -> str:
    """Measures, and says it in Markdown."""
    with contenders() as (all_of_them, meter):
        turns = list(measured(all_of_them, meter))
        rows = [row(contender, turns) for contender in all_of_them]
    one, some, many = NEAR
    headings = ["", "write units", "read units", "requests", "ms", "ms, made anew", "survivors"]
    return f"""\
## {NAME}

A turn as `RunnableWithMessageHistory` makes it: read the messages, then add the user's and the
reply in one. Figures are at {one} / {some} / {many} messages in the history. Units and requests are
means of the turns around that length, since one that begins another item takes more; milliseconds
are medians, with a history at hand and with one that is made anew for each turn, as on LangChain's
page. langchain-community reads eventually consistent, at half the price, and twice. Survivors are
the messages that are there after {WRITERS} writers have added {APPENDS} each, at worst of {ROUNDS}
times.

{table(headings, rows)}"""


@contextmanager
def contenders() -> Iterator[tuple[Sequence[Contender], Meter]]:
    """Each with a table of its own."""
    core = botocore.session.Session()
    core.set_default_client_config(Config(proxies={}))
    session = boto3.Session(KEY, KEY, region_name=REGION, botocore_session=core)
    meter = Meter(session)
    with DynamoDBLocal() as dynamodb:
        client = session.client("dynamodb", endpoint_url=dynamodb.endpoint)

        def of(
            make: Callable[..., BaseChatMessageHistory], name: str, table_name: str, **options: int
        ) -> Contender:
            client.create_table(
                TableName=table_name,
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": "SessionId", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "SessionId", "AttributeType": "S"}],
            )
            where = {"endpoint_url": dynamodb.endpoint, "boto3_session": session}
            open = partial(make, table_name, **where, **options)
            return Contender(name, open, open)

        create_table(client, "log")
        log = partial(ChatMessageHistory, DynamoDBStore(client, "log"))
        community, its_version = langchain_community()
        ours = DynamoDBChatMessageHistory
        yield (
            [
                of(community, f"langchain-community {its_version}", "community"),
                of(ours, "drop-in", "one-item"),
                of(
                    ours,
                    f"drop-in, `segment_bytes={SEGMENT_BYTES:_}`",
                    "segments",
                    segment_bytes=SEGMENT_BYTES,
                ),
                Contender(
                    f"`ChatMessageHistory`, `window={WINDOW}`", partial(log, window=WINDOW), log
                ),
                Contender("`ChatMessageHistory`, whole", log, log),
            ],
            meter,
        )


def langchain_community() -> tuple[Callable[..., BaseChatMessageHistory], str]:
    """The class, and which version's it is."""
    if not COMMUNITY.exists():
        sys.exit(f"{COMMUNITY} is missing; scripts/bench-programs makes it.")
    sys.path.append(str(COMMUNITY))  # behind all others: nothing but the package itself is from it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = import_module("langchain_community.chat_message_histories.dynamodb")
    return module.DynamoDBChatMessageHistory, version("langchain-community")


def measured(contenders: Sequence[Contender], meter: Meter) -> Iterator[Turn]:
    list(side_by_side(contenders, "warming up", meter, last=max(NEAR[50])))
    for number in range(ROUNDS):
        for n, last in enumerate([*[1] * SHORT, max(NEAR[150])]):
            yield from side_by_side(contenders, f"{number}.{n}", meter, last=last)


def side_by_side(
    contenders: Sequence[Contender], name: str, meter: Meter, *, last: int
) -> Iterator[Turn]:
    """The same conversation with all of them; its last turn finds ``last`` messages.

    One after the other has each turn, so that whatever else the machine is doing meets them all.
    """
    said: list[BaseMessage] = [AIMessage(text())]
    talks = [talk for contender in contenders for talk in begun(contender, name, said)]
    for number, length in enumerate(range(1, last + 1, 2)):
        messages: list[BaseMessage] = [HumanMessage(text()), AIMessage(text())]
        start = number % len(talks)
        for talk in [*talks[start:], *talks[:start]]:
            meter.forget()
            began = perf_counter()
            talk.turn(messages)
            seconds = perf_counter() - began
            yield Turn(talk, length, meter.taken(), seconds)
        said += messages
    for talk in talks:
        kept = talk.contender.whole(talk.session_id).messages
        assert texts(kept) == texts(said), f"{talk.contender.name} does not keep what was said"


def begun(contender: Contender, name: str, said: Sequence[BaseMessage]) -> Iterator[Talk]:
    """One with a history at hand, one with histories made anew."""
    for kind in ("at hand", "anew"):
        session_id = f"{name}, {kind}, with {contender.name}"
        history = contender.open(session_id)
        history.add_messages(said)
        yield Talk(contender, session_id, history if kind == "at hand" else None)


def survivors(contender: Contender, session_id: str) -> int:
    """How many of the messages are there that several writers added at the same time."""
    histories = [contender.open(session_id) for _ in range(WRITERS)]

    def write(writer: int) -> None:
        for n in range(APPENDS):
            histories[writer].add_messages([HumanMessage(f"{writer}.{n} {text()}")])

    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(write, range(WRITERS)))
    return len(set(texts(contender.whole(session_id).messages)))


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [str(message.content) for message in messages]


def row(contender: Contender, turns: Sequence[Turn]) -> list[str]:
    def at_each_length(figure: Callable[[Sequence[Turn]], float]) -> str:
        theirs = [turn for turn in turns if turn.talk.contender is contender]
        return " / ".join(
            rounded(figure([turn for turn in theirs if turn.length in near]))
            for near in NEAR.values()
        )

    def milliseconds(turns: Sequence[Turn], *, anew: bool) -> float:
        return 1000 * median(turn.seconds for turn in turns if (turn.talk.at_hand is None) is anew)

    least = min(survivors(contender, f"survivors {n} of {contender.name}") for n in range(ROUNDS))
    return [
        contender.name,
        at_each_length(lambda turns: mean(turn.cost.writes for turn in turns)),
        at_each_length(lambda turns: mean(turn.cost.reads for turn in turns)),
        at_each_length(lambda turns: mean(turn.cost.requests for turn in turns)),
        at_each_length(lambda turns: milliseconds(turns, anew=False)),
        at_each_length(lambda turns: milliseconds(turns, anew=True)),
        f"{least} of {WRITERS * APPENDS}",
    ]


def rounded(figure: float) -> str:
    return f"{figure:.1f}".removesuffix(".0") if figure < 10 else f"{figure:.0f}"
