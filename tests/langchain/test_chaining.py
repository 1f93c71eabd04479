"""Chains as in LangChain's documentation, on every store."""

import logging
from collections.abc import Iterable
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import (
    FakeListChatModel,
    FakeMessagesListChatModel,
)
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from chatledger import AsyncStore, InvalidArgument, NotFound, Store, open_async_store, open_store
from chatledger.langchain import (
    OWNED_SESSION,
    ChatMessageHistory,
    OfflineChatModel,
    owned_session_factory,
    session_factory,
)
from chatledger.values import new_id

pytestmark = [
    pytest.mark.anyio,
    # Deprecated in favour of LangGraph, but it works until LangChain 2.
    pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated"),
]

PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "You are a helpful assistant."),
        MessagesPlaceholder(variable_name="history"),
        ("human", "{question}"),
    ]
)
HI = {"question": "Hi! I'm bob"}
NAME = {"question": "Whats my name"}
NAME_REPLY = "Your name is bob. You told me so in this conversation."


def chain_on(store: Store | AsyncStore, model: BaseChatModel | None = None) -> Any:
    return RunnableWithMessageHistory(
        PROMPT | (model or OfflineChatModel()),
        session_factory(store),
        input_messages_key="question",
        history_messages_key="history",
    )


def in_session(session_id: str) -> RunnableConfig:
    return {"configurable": {"session_id": session_id}}


def texts(messages: Iterable[BaseMessage]) -> list[Any]:
    return [message.content for message in messages]


# One session --------------------------------------------------------------------------------------


def test_invoke_passes_the_earlier_messages_to_the_model(store: Store) -> None:
    chain, config = chain_on(store), in_session(new_id())
    hello = chain.invoke(HI, config=config)
    reply = chain.invoke(NAME, config=config)
    assert reply.content == NAME_REPLY
    history = session_factory(store)(config["configurable"]["session_id"])
    assert history.messages == [
        HumanMessage("Hi! I'm bob"),
        hello,
        HumanMessage("Whats my name"),
        reply,
    ]


def test_a_stream_is_stored_as_one_message_when_it_ends(store: Store) -> None:
    chain, config = chain_on(store), in_session(new_id())
    history = session_factory(store)(config["configurable"]["session_id"])
    for _ in chain.stream(HI, config=config):
        assert history.messages == []
    chunks = [*chain.stream(NAME, config=config)]
    assert len(chunks) > 10
    reply = history.messages[-1]
    assert type(reply) is AIMessage
    assert reply.content == "".join(texts(chunks)) == NAME_REPLY
    assert reply.usage_metadata is not None


def test_a_batch_keeps_its_sessions_apart(store: Store) -> None:
    chain, configs = chain_on(store), [in_session(new_id()) for _ in range(4)]
    chain.batch([HI] * 2 + [{"question": "Hi! I'm eve"}] * 2, config=configs)
    replies = chain.batch([NAME] * 4, config=configs)
    assert texts(replies) == [NAME_REPLY] * 2 + [NAME_REPLY.replace("bob", "eve")] * 2
    for config in configs:
        history = session_factory(store)(config["configurable"]["session_id"])
        assert len(history.messages) == 4


def test_concurrent_turns_of_one_session_are_all_stored(store: Store) -> None:
    chain, config = chain_on(store), in_session(new_id())
    chain.batch([{"question": f"Question {n}"} for n in range(8)], config=[config] * 8)
    stored = session_factory(store)(config["configurable"]["session_id"]).messages
    questions = [message.content for message in stored if isinstance(message, HumanMessage)]
    assert sorted(map(str, questions)) == [f"Question {n}" for n in range(8)]
    # Each question is followed by its reply, because a turn is one append.
    assert [message.type for message in stored] == ["human", "ai"] * 8


async def check_async(chain: Any, history: ChatMessageHistory) -> None:
    config = in_session(history.session_id)
    await chain.ainvoke(HI, config=config)
    assert (await chain.ainvoke(NAME, config=config)).content == NAME_REPLY
    chunks = [chunk async for chunk in chain.astream(NAME, config=config)]
    assert "".join(texts(chunks)) == NAME_REPLY
    configs = [in_session(new_id()) for _ in range(2)]
    await chain.abatch([HI] * 2, config=configs)
    assert texts(await chain.abatch([NAME] * 2, config=configs)) == [NAME_REPLY] * 2
    stored = await history.aget_messages()
    assert [message.type for message in stored] == ["human", "ai"] * 3
    assert [type(message) for message in stored] == [HumanMessage, AIMessage] * 3


async def test_async_chains_work_on_an_async_store(async_store: AsyncStore) -> None:
    async with async_store:
        chain = chain_on(async_store)
        await check_async(chain, session_factory(async_store)(new_id()))


async def test_async_chains_work_on_a_sync_store(store: Store) -> None:
    await check_async(chain_on(store), session_factory(store)(new_id()))


# Other models and chains --------------------------------------------------------------------------


async def test_langchains_fake_models_work_in_a_chain(store: Store) -> None:
    call: dict[str, Any] = {"name": "clock", "args": {"zone": 1}, "id": "call_1"}
    replies: list[BaseMessage] = [AIMessage("Hello", id="a-1"), AIMessage("", tool_calls=[call])]
    chain, config = (
        chain_on(store, FakeMessagesListChatModel(responses=replies)),
        in_session(new_id()),
    )
    written = [chain.invoke(HI, config=config), await chain.ainvoke(NAME, config=config)]
    history = session_factory(store)(config["configurable"]["session_id"])
    assert history.messages[1::2] == written
    chain = chain_on(store, FakeListChatModel(responses=["Hello", "Bye"]))
    assert "".join(texts(chain.stream(HI, config=config))) == "Hello"
    assert "".join([chunk.content async for chunk in chain.astream(HI, config=config)]) == "Bye"
    assert texts(history.messages)[5::2] == ["Hello", "Bye"]


def test_a_model_alone_takes_a_list_of_messages(store: Store) -> None:
    chain: Any = RunnableWithMessageHistory(OfflineChatModel(), session_factory(store))
    config = in_session(new_id())
    chain.invoke([HumanMessage("Hi! I'm bob")], config=config)
    assert chain.invoke([HumanMessage("Whats my name")], config=config).content == NAME_REPLY
    stored = session_factory(store)(config["configurable"]["session_id"]).messages
    assert texts(stored)[::2] == ["Hi! I'm bob", "Whats my name"]


def test_the_model_sees_only_the_window(store: Store) -> None:
    chain: Any = RunnableWithMessageHistory(
        PROMPT | OfflineChatModel(),
        session_factory(store, window=2),
        input_messages_key="question",
        history_messages_key="history",
    )
    config = in_session(new_id())
    chain.invoke(HI, config=config)
    assert chain.invoke(NAME, config=config).content == NAME_REPLY
    assert chain.invoke(NAME, config=config).content.startswith("You have not told me your name")
    stored = session_factory(store)(config["configurable"]["session_id"]).messages
    assert len(stored) == 6


# Owners -------------------------------------------------------------------------------------------


def owned_chain_on(store: Store | AsyncStore) -> Any:
    return RunnableWithMessageHistory(
        PROMPT | OfflineChatModel(),
        owned_session_factory(store),
        input_messages_key="question",
        history_messages_key="history",
        history_factory_config=OWNED_SESSION,
    )


def of_owner(owner: str, conversation_id: str) -> RunnableConfig:
    return {"configurable": {"user_id": owner, "conversation_id": conversation_id}}


async def test_the_owner_comes_from_the_config_of_the_call(store: Store) -> None:
    chain, talk = owned_chain_on(store), new_id()
    chain.invoke(HI, config=of_owner("bob", talk))
    assert (await chain.ainvoke(NAME, config=of_owner("bob", talk))).content == NAME_REPLY
    assert store.get(talk).owner == "bob"


async def test_a_turn_of_another_owner_fails_before_the_model_is_called(store: Store) -> None:
    chain, talk = owned_chain_on(store), new_id()
    chain.invoke(HI, config=of_owner("bob", talk))
    with pytest.raises(NotFound):
        chain.invoke(NAME, config=of_owner("eve", talk))
    with pytest.raises(NotFound):
        await chain.ainvoke(NAME, config=of_owner("eve", talk))
    with pytest.raises(NotFound):
        for _ in chain.stream(NAME, config=of_owner("eve", talk)):
            pass
    assert store.get(talk).message_count == 2


@pytest.mark.parametrize(
    ("configurable", "why"),
    [
        ({"user_id": "", "conversation_id": "talk"}, "owner is empty"),
        ({"user_id": "bob", "conversation_id": ""}, "session_id is empty"),
        ({"user_id": "bob", "conversation_id": 7}, "session_id is of type int"),
    ],
)
def test_an_invalid_owner_or_session_id_is_rejected(configurable: dict[str, Any], why: str) -> None:
    with open_store("sqlite:///:memory:") as store, pytest.raises(InvalidArgument, match=why):
        owned_chain_on(store).invoke(HI, config={"configurable": configurable})


async def test_a_sync_chain_on_an_async_store_says_what_to_do() -> None:
    async with open_async_store("sqlite:///:memory:") as store:
        with pytest.raises(InvalidArgument, match="ainvoke, astream or abatch"):
            chain_on(store).invoke(HI, config=in_session("talk"))


# What LangChain does with errors ------------------------------------------------------------------


def test_langchain_only_logs_when_a_turn_cannot_be_stored(caplog: pytest.LogCaptureFixture) -> None:
    """The docs warn about this: the caller never sees an error that a history raises then."""
    unstorable = AIMessage("Hello", response_metadata={"logprob": float("-inf")})
    with open_store("sqlite:///:memory:") as store, caplog.at_level(logging.WARNING):
        chain = chain_on(store, FakeMessagesListChatModel(responses=[unstorable]))
        assert chain.invoke(HI, config=in_session("talk")).content == "Hello"
        assert session_factory(store)("talk").messages == []
    [record] = [each for each in caplog.records if each.name == "langchain_core.callbacks.manager"]
    assert "AIMessage.response_metadata.logprob is -inf" in record.getMessage()


def test_an_unfinished_stream_stores_nothing() -> None:
    """The docs warn about this."""
    with open_store("sqlite:///:memory:") as store:
        for _ in chain_on(store).stream(HI, config=in_session("talk")):
            break
        assert session_factory(store)("talk").messages == []


def test_without_history_messages_key_a_concurrent_turn_makes_langchain_lose_a_question() -> None:
    """The docs warn about this: LangChain stores only the messages after as many as it counts."""
    with open_store("sqlite:///:memory:") as store:
        history = session_factory(store)("talk")

        def model(messages: list[BaseMessage]) -> AIMessage:
            history.add_messages([HumanMessage("rival"), AIMessage("Hello, rival")])
            return AIMessage("Hello")

        chain: Any = RunnableWithMessageHistory(RunnableLambda(model), session_factory(store))
        chain.invoke([HumanMessage("Hi! I'm bob")], config=in_session("talk"))
        assert texts(history.messages) == ["rival", "Hello, rival", "Hello"]
