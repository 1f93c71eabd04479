"""Chains as LangChain's page makes them: over every store the model knows what was said before."""

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
from chatledger.messages import new_id

pytestmark = [
    pytest.mark.anyio,
    # It is, in favour of LangGraph, and works until LangChain 2.
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
TOLD = "Your name is bob. You told me so in this conversation."


def chained(store: Store | AsyncStore, model: BaseChatModel | None = None) -> Any:
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


def test_invoke_is_told_what_was_said_before(store: Store) -> None:
    chain, config = chained(store), in_session(new_id())
    hello = chain.invoke(HI, config=config)
    told = chain.invoke(NAME, config=config)
    assert told.content == TOLD
    history = session_factory(store)(config["configurable"]["session_id"])
    assert history.messages == [
        HumanMessage("Hi! I'm bob"),
        hello,
        HumanMessage("Whats my name"),
        told,
    ]


def test_a_stream_is_stored_as_one_message_once_it_is_over(store: Store) -> None:
    chain, config = chained(store), in_session(new_id())
    history = session_factory(store)(config["configurable"]["session_id"])
    for _ in chain.stream(HI, config=config):
        assert history.messages == []
    chunks = [*chain.stream(NAME, config=config)]
    assert len(chunks) > 10
    told = history.messages[-1]
    assert type(told) is AIMessage
    assert told.content == "".join(texts(chunks)) == TOLD
    assert told.usage_metadata is not None


def test_a_batch_keeps_its_sessions_apart(store: Store) -> None:
    chain, configs = chained(store), [in_session(new_id()) for _ in range(4)]
    chain.batch([HI] * 2 + [{"question": "Hi! I'm eve"}] * 2, config=configs)
    replies = chain.batch([NAME] * 4, config=configs)
    assert texts(replies) == [TOLD] * 2 + [TOLD.replace("bob", "eve")] * 2
    for config in configs:
        history = session_factory(store)(config["configurable"]["session_id"])
        assert len(history.messages) == 4


def test_turns_of_one_session_at_once_are_all_kept(store: Store) -> None:
    chain, config = chained(store), in_session(new_id())
    chain.batch([{"question": f"Question {n}"} for n in range(8)], config=[config] * 8)
    kept = session_factory(store)(config["configurable"]["session_id"]).messages
    questions = [message.content for message in kept if isinstance(message, HumanMessage)]
    assert sorted(map(str, questions)) == [f"Question {n}" for n in range(8)]
    # Each question with its reply behind it: a turn is one append.
    assert [message.type for message in kept] == ["human", "ai"] * 8


async def check_async(chain: Any, history: ChatMessageHistory) -> None:
    config = in_session(history.session_id)
    await chain.ainvoke(HI, config=config)
    assert (await chain.ainvoke(NAME, config=config)).content == TOLD
    chunks = [chunk async for chunk in chain.astream(NAME, config=config)]
    assert "".join(texts(chunks)) == TOLD
    configs = [in_session(new_id()) for _ in range(2)]
    await chain.abatch([HI] * 2, config=configs)
    assert texts(await chain.abatch([NAME] * 2, config=configs)) == [TOLD] * 2
    kept = await history.aget_messages()
    assert [message.type for message in kept] == ["human", "ai"] * 3
    assert [type(message) for message in kept] == [HumanMessage, AIMessage] * 3


async def test_async_chains_over_an_async_store(async_store: AsyncStore) -> None:
    async with async_store:
        chain = chained(async_store)
        await check_async(chain, session_factory(async_store)(new_id()))


async def test_async_chains_over_a_sync_store(store: Store) -> None:
    await check_async(chained(store), session_factory(store)(new_id()))


# Other models, other chains -----------------------------------------------------------------------


async def test_langchains_own_fake_models_do(store: Store) -> None:
    call: dict[str, Any] = {"name": "clock", "args": {"zone": 1}, "id": "call_1"}
    replies: list[BaseMessage] = [AIMessage("Hello", id="a-1"), AIMessage("", tool_calls=[call])]
    chain, config = (
        chained(store, FakeMessagesListChatModel(responses=replies)),
        in_session(new_id()),
    )
    written = [chain.invoke(HI, config=config), await chain.ainvoke(NAME, config=config)]
    history = session_factory(store)(config["configurable"]["session_id"])
    assert history.messages[1::2] == written
    chain = chained(store, FakeListChatModel(responses=["Hello", "Bye"]))
    assert "".join(texts(chain.stream(HI, config=config))) == "Hello"
    assert "".join([chunk.content async for chunk in chain.astream(HI, config=config)]) == "Bye"
    assert texts(history.messages)[5::2] == ["Hello", "Bye"]


def test_a_model_alone_takes_a_list_of_messages(store: Store) -> None:
    chain: Any = RunnableWithMessageHistory(OfflineChatModel(), session_factory(store))
    config = in_session(new_id())
    chain.invoke([HumanMessage("Hi! I'm bob")], config=config)
    assert chain.invoke([HumanMessage("Whats my name")], config=config).content == TOLD
    kept = session_factory(store)(config["configurable"]["session_id"]).messages
    assert texts(kept)[::2] == ["Hi! I'm bob", "Whats my name"]


def test_a_window_is_all_the_model_is_told(store: Store) -> None:
    chain: Any = RunnableWithMessageHistory(
        PROMPT | OfflineChatModel(),
        session_factory(store, window=2),
        input_messages_key="question",
        history_messages_key="history",
    )
    config = in_session(new_id())
    chain.invoke(HI, config=config)
    assert chain.invoke(NAME, config=config).content == TOLD
    assert chain.invoke(NAME, config=config).content.startswith("You have not told me your name")
    kept = session_factory(store)(config["configurable"]["session_id"]).messages
    assert len(kept) == 6


# Owners -------------------------------------------------------------------------------------------


def owned(store: Store | AsyncStore) -> Any:
    return RunnableWithMessageHistory(
        PROMPT | OfflineChatModel(),
        owned_session_factory(store),
        input_messages_key="question",
        history_messages_key="history",
        history_factory_config=OWNED_SESSION,
    )


def of_owner(owner: str, conversation_id: str) -> RunnableConfig:
    return {"configurable": {"user_id": owner, "conversation_id": conversation_id}}


async def test_the_owner_is_taken_from_the_call(store: Store) -> None:
    chain, talk = owned(store), new_id()
    chain.invoke(HI, config=of_owner("bob", talk))
    assert (await chain.ainvoke(NAME, config=of_owner("bob", talk))).content == TOLD
    assert store.get(talk).owner == "bob"


async def test_a_strangers_turn_fails_before_the_model_is_asked(store: Store) -> None:
    chain, talk = owned(store), new_id()
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
def test_a_call_that_names_nobody_or_nothing_is_refused(
    configurable: dict[str, Any], why: str
) -> None:
    with open_store("sqlite:///:memory:") as store, pytest.raises(InvalidArgument, match=why):
        owned(store).invoke(HI, config={"configurable": configurable})


async def test_a_sync_chain_over_an_async_store_says_what_to_do() -> None:
    async with open_async_store("sqlite:///:memory:") as store:
        with pytest.raises(InvalidArgument, match="ainvoke, astream or abatch"):
            chained(store).invoke(HI, config=in_session("talk"))


# What LangChain does with errors ------------------------------------------------------------------


def test_langchain_only_logs_that_a_turn_could_not_be_stored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Which the docs warn of: nothing that a history raises then reaches the caller."""
    unkept = AIMessage("Hello", response_metadata={"logprob": float("-inf")})
    with open_store("sqlite:///:memory:") as store, caplog.at_level(logging.WARNING):
        chain = chained(store, FakeMessagesListChatModel(responses=[unkept]))
        assert chain.invoke(HI, config=in_session("talk")).content == "Hello"
        assert session_factory(store)("talk").messages == []
    [record] = [one for one in caplog.records if one.name == "langchain_core.callbacks.manager"]
    assert "AIMessage.response_metadata.logprob is -inf" in record.getMessage()


def test_a_stream_that_is_broken_off_stores_nothing() -> None:
    """Which the docs warn of."""
    with open_store("sqlite:///:memory:") as store:
        for _ in chained(store).stream(HI, config=in_session("talk")):
            break
        assert session_factory(store)("talk").messages == []


def test_without_a_name_for_the_history_langchain_loses_a_question_to_a_rival() -> None:
    """Which the docs warn of: it takes for new what lies behind as many messages as there are."""
    with open_store("sqlite:///:memory:") as store:
        history = session_factory(store)("talk")

        def model(messages: list[BaseMessage]) -> AIMessage:
            history.add_messages([HumanMessage("rival"), AIMessage("Hello, rival")])
            return AIMessage("Hello")

        chain: Any = RunnableWithMessageHistory(RunnableLambda(model), session_factory(store))
        chain.invoke([HumanMessage("Hi! I'm bob")], config=in_session("talk"))
        assert texts(history.messages) == ["rival", "Hello, rival", "Hello"]
