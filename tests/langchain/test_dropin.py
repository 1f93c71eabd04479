"""The drop-in class on histories of one item."""

import asyncio
import inspect
import subprocess
import sys
import time
from typing import Any

import pytest
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from chatledger.errors import InvalidMessage
from chatledger.langchain import DynamoDBChatMessageHistory
from tests.langchain.histories import Histories

HI, HELLO = HumanMessage("Hi! I'm bob"), AIMessage("Hello Bob!")
REPLY = AIMessage(
    "It is 21.5 degrees",
    id="run-1",
    name="weather",
    tool_calls=[{"name": "weather", "args": {"at": [52.0, 13.4], "days": 1}, "id": "call-1"}],
    usage_metadata={"input_tokens": 10, "output_tokens": 4, "total_tokens": 14},
    response_metadata={"logprob": -0.25, "temperature": 1.0, "stop": None},
    additional_kwargs={"nested": {"list": [1, 2.0, None, True, {"empty": {}}]}},
)


def typed_values(messages: list[BaseMessage]) -> list[tuple[Any, ...]]:
    """Return the values of the messages with their types; maps are sorted."""

    def typed(value: Any) -> Any:
        if isinstance(value, dict):
            return sorted((name, typed(each)) for name, each in value.items())
        if isinstance(value, list | tuple):
            return type(value).__name__, [typed(each) for each in value]
        return type(value).__name__, repr(value)

    return [(type(message), typed(message.model_dump())) for message in messages]


def test_parameters_are_the_same_and_in_the_same_order_as_in_the_old_class() -> None:
    parameters = list(inspect.signature(DynamoDBChatMessageHistory).parameters.values())
    assert [(each.name, each.default) for each in parameters[:11]] == [
        ("table_name", inspect.Parameter.empty),
        ("session_id", inspect.Parameter.empty),
        ("endpoint_url", None),
        ("primary_key_name", "SessionId"),
        ("key", None),
        ("boto3_session", None),
        ("kms_key_id", None),
        ("ttl", None),
        ("ttl_key_name", "expireAt"),
        ("history_size", None),
        ("history_messages_key", "History"),
    ]
    assert {each.kind for each in parameters[11:]} == {inspect.Parameter.KEYWORD_ONLY}
    assert parameters[11].name == "coerce_float_to_decimal"


def test_attributes_are_the_same_as_in_the_old_class(hash_only: Histories) -> None:
    history = hash_only.open("a", ttl=60, history_size=3)
    assert isinstance(history, BaseChatMessageHistory)
    assert history.table.name == hash_only.table
    assert history.table is history.table
    assert history.session_id == "a"
    assert history.key == {"SessionId": "a"}
    assert (history.ttl, history.ttl_key_name) == (60, "expireAt")
    assert (history.history_size, history.history_messages_key) == (3, "History")
    assert history.coerce_float_to_decimal is False


def test_importing_the_class_prints_no_warning() -> None:
    code = "from chatledger.langchain import DynamoDBChatMessageHistory"
    done = subprocess.run(
        [sys.executable, "-W", "always::UserWarning:chatledger", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_messages_are_read_back_equal_and_of_the_same_types(histories: Histories) -> None:
    messages = [
        SystemMessage("Be brief", id="s"),
        HI,
        REPLY,
        ToolMessage("21.5", tool_call_id="call-1", artifact={"exact": 21.0}),
        HumanMessage([{"type": "text", "text": "And?"}, {"type": "image_url", "image_url": "x"}]),
    ]
    histories.open().add_messages(messages)
    found = histories.open().messages
    assert found == messages
    assert typed_values(found) == typed_values(messages)


def test_an_append_is_one_request_and_a_read_is_one(
    histories: Histories, requests: list[str]
) -> None:
    history = histories.open()
    history.add_user_message("Hi! I'm bob")
    history.add_ai_message("Hello Bob!")
    history.add_messages([HI, HELLO])
    histories.open("2", ttl=60).add_message(HI)
    assert requests == ["UpdateItem"] * 4
    requests.clear()
    assert history.messages == [HI, HELLO, HI, HELLO]
    assert requests == ["GetItem"]


def test_adding_no_messages_makes_no_request(hash_only: Histories, requests: list[str]) -> None:
    hash_only.open().add_messages([])
    assert requests == []


def test_the_constructor_makes_no_request_and_takes_microseconds(
    hash_only: Histories, requests: list[str]
) -> None:
    hash_only.open()
    times = []
    for _ in range(500):
        start = time.perf_counter()
        hash_only.open()
        times.append(time.perf_counter() - start)
    assert requests == []
    assert sorted(times)[250] < 100e-6


@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")
def test_a_chain_reads_and_writes_the_history(histories: Histories, requests: list[str]) -> None:
    seen: list[list[BaseMessage]] = []

    def model(messages: list[BaseMessage]) -> AIMessage:
        seen.append(list(messages))
        return AIMessage(f"reply {len(seen)}")

    chain = RunnableWithMessageHistory(RunnableLambda(model), histories.open)
    config: RunnableConfig = {"configurable": {"session_id": "bob"}}
    chain.invoke([HumanMessage("Hi! I'm bob")], config)
    chain.invoke([HumanMessage("Whats my name")], config)
    asyncio.run(chain.ainvoke([HumanMessage("And again?")], config))
    expected = ["Hi! I'm bob", "reply 1", "Whats my name", "reply 2", "And again?"]
    assert [message.content for message in seen[-1]] == expected
    assert [message.content for message in histories.open("bob").messages] == [*expected, "reply 3"]
    assert set(requests) == {"GetItem", "UpdateItem"}  # LangChain decides how often it reads
    assert requests.count("UpdateItem") == 3


def test_messages_cannot_be_assigned(hash_only: Histories) -> None:
    with pytest.raises(NotImplementedError, match="Use the 'add_messages' instead"):
        hash_only.open().messages = [HI]


def test_async_methods_do_the_same_as_sync_ones(hash_only: Histories) -> None:
    history = hash_only.open()

    async def use() -> None:
        await history.aadd_messages([HI, HELLO])
        assert await history.aget_messages() == [HI, HELLO]
        await history.aclear()
        assert await history.aget_messages() == []

    asyncio.run(use())


def test_chunks_are_stored_as_whole_messages(hash_only: Histories) -> None:
    whole = AIMessageChunk(content="Hel", id="1") + AIMessageChunk(content="lo", id="1")
    hash_only.open().add_messages([HumanMessageChunk(content="Hi"), whole])
    assert hash_only.open().messages == [HumanMessage("Hi"), AIMessage("Hello", id="1")]
    assert [type(each) for each in hash_only.open().messages] == [HumanMessage, AIMessage]


def test_attribute_names_may_be_reserved_words_of_dynamodb(histories: Histories) -> None:
    history = histories.open(ttl=60, ttl_key_name="ttl", history_messages_key="data")
    history.add_messages([HI])
    history.add_messages([HELLO])
    assert history.messages == [HI, HELLO]
    item = histories.item()
    assert item is not None
    assert {"ttl", "data"} < item.keys()


def test_an_expired_history_reads_as_empty_and_starts_anew(histories: Histories) -> None:
    histories.open(ttl=60).add_messages([HI, REPLY])
    item = histories.item()
    assert item is not None
    histories.put(item | {"expireAt": {"N": str(int(time.time()) - 1)}})  # not yet deleted
    assert histories.open().messages == []
    histories.open(ttl=60).add_messages([HELLO])
    assert histories.open().messages == [HELLO]


def test_an_append_with_a_ttl_extends_it_and_one_without_leaves_it(histories: Histories) -> None:
    histories.open(ttl=1_000).add_messages([HI])
    histories.open().add_messages([HELLO])
    item = histories.item()
    assert item is not None
    assert abs(int(item["expireAt"]["N"]) - time.time() - 1_000) < 30
    histories.open(ttl=5_000).add_messages([HELLO])
    item = histories.item()
    assert item is not None
    assert abs(int(item["expireAt"]["N"]) - time.time() - 5_000) < 30


def test_history_size_limits_what_is_read_but_not_what_is_stored(histories: Histories) -> None:
    messages = [HumanMessage(str(n)) for n in range(10)]
    history = histories.open(history_size=3)
    history.add_messages(messages)
    assert history.messages == messages[-3:]
    assert histories.open().messages == messages


def test_trim_storage_deletes_messages_beyond_history_size(histories: Histories) -> None:
    history = histories.open(history_size=3, trim_storage=True)
    for n in range(10):
        history.add_messages([HumanMessage(str(n)), AIMessage(str(n))])
    stored = histories.open().messages
    assert [message.content for message in stored] == ["8", "9", "9"]


def test_a_thousand_messages_are_trimmed(hash_only: Histories) -> None:
    hash_only.open().add_messages([HumanMessage(str(n)) for n in range(1_000)])
    hash_only.open(history_size=2, trim_storage=True).add_messages([HI])
    assert [message.content for message in hash_only.open().messages] == ["999", HI.content]


def test_reads_are_consistent_unless_disabled(hash_only: Histories) -> None:
    calls: list[bool] = []
    history = hash_only.open()
    events: Any = history._client().meta.events

    def record(params: dict[str, Any], **_: object) -> None:
        calls.append(params["ConsistentRead"])

    events.register("provide-client-params.dynamodb.GetItem", record)
    try:
        assert history.messages == []
        assert hash_only.open(consistent=False).messages == []
    finally:
        events.unregister("provide-client-params.dynamodb.GetItem", record)
    assert calls == [True, False]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (RemoveMessage(id="1"), "'remove'"),
        ("hello", "of type str"),
        (HumanMessage("x", additional_kwargs={"f": {1: 2}}), "additional_kwargs.f has the key 1"),
        (HumanMessage("\ud800"), "content contains a lone surrogate"),
        (HumanMessage("x", additional_kwargs={"at": object()}), "at is of type object"),
    ],
    ids=["removal", "text", "key", "surrogate", "object"],
)
def test_a_message_that_cannot_be_stored_is_named_and_nothing_is_written(
    hash_only: Histories, requests: list[str], message: Any, why: str
) -> None:
    with pytest.raises(InvalidMessage, match=rf"messages\[1\].*{why}"):
        hash_only.open().add_messages([HI, message])
    assert requests == []
