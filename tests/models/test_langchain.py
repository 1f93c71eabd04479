"""LangChain's chat models as ours: the same reply in both forms, and how it ended."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import (
    FakeListChatModel,
    FakeMessagesListChatModel,
    GenericFakeChatModel,
)
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda

from chatledger.errors import ModelError, ModelRefused, ModelTimeout, ModelUnavailable
from chatledger.langchain import from_chatledger, to_chatledger
from chatledger.messages import Message
from chatledger.models.langchain import LangChainModel
from chatledger.models.protocol import Finished, OpenedModel, Usage

pytestmark = pytest.mark.anyio

HI = [Message.user("Hi")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Scripted(BaseChatModel):
    """Streams ``script``; an exception in it is raised there."""

    script: list[Any]
    model_name: str = "scripted-1"
    seen: list[list[BaseMessage]] = []  # noqa: RUF012 - pydantic copies it
    options: list[dict[str, Any]] = []  # noqa: RUF012
    ended: list[str] = []  # noqa: RUF012

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.script[0])])

    def _stream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        self.seen.append(messages)
        self.options.append(kwargs)
        try:
            for item in self.script:
                if isinstance(item, BaseException):
                    raise item
                yield ChatGenerationChunk(message=item.model_copy(deep=True))
        finally:
            self.ended.append("sync")

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        try:
            for chunk in self._stream(messages, *args, **kwargs):
                await asyncio.sleep(0)
                yield chunk
        finally:
            self.ended.append("async")


def chunk(content: Any = "", **fields: Any) -> AIMessageChunk:
    return AIMessageChunk(content=content, **fields)


def call_chunk(args: str | None, index: int | None = 0, **fields: Any) -> AIMessageChunk:
    part = {"name": None, "args": args, "id": None, "index": index} | fields
    return chunk(tool_call_chunks=[part])


def scripted(*script: Any) -> LangChainModel:
    return LangChainModel(Scripted(script=list(script)))


class Chunks(Runnable[Any, Any]):
    """Streams what it is given, without LangChain's adding it up on the way."""

    def __init__(self, chunks: Sequence[AIMessageChunk]) -> None:
        self._chunks = chunks

    def invoke(self, input: Any, config: Any = None, **options: Any) -> Any:
        raise NotImplementedError

    def stream(self, input: Any, config: Any = None, **options: Any) -> Iterator[Any]:
        yield from self._chunks

    async def astream(self, input: Any, config: Any = None, **options: Any) -> AsyncIterator[Any]:
        for each in self._chunks:
            yield each


def as_they_are(*chunks: AIMessageChunk) -> LangChainModel:
    return LangChainModel(Chunks(chunks))


async def replied(
    model: LangChainModel, messages: Sequence[Message] = HI, *, system_prompt: str | None = None
) -> tuple[list[str], Finished]:
    """The pieces and the end, which both forms agree on."""
    all = [each async for each in model.stream(messages, system_prompt=system_prompt)]
    assert all == [*model.stream_sync(messages, system_prompt=system_prompt)]
    *pieces, finished = all
    assert isinstance(finished, Finished)
    assert all.index(finished) == len(all) - 1
    assert all[:-1] == [piece for piece in pieces if isinstance(piece, str) and piece]
    return [str(piece) for piece in pieces], finished


async def fails(model: LangChainModel, with_: type[ModelError]) -> tuple[list[str], ModelError]:
    """What was said before it failed, and the error, which both forms agree on."""
    said: list[Any] = []
    again: list[Any] = []

    async def listen() -> None:
        async for piece in model.stream(HI):
            said.append(piece)  # noqa: PERF401 - each as it comes, as the next one may fail

    with pytest.raises(with_) as failed:
        await listen()
    with pytest.raises(with_) as failed_too:
        again.extend(model.stream_sync(HI))
    assert type(failed.value) is type(failed_too.value) is with_
    assert str(failed.value) == str(failed_too.value)
    assert said == again
    return said, failed.value


async def sent(
    messages: Sequence[Message], *, system_prompt: str | None = None
) -> list[BaseMessage]:
    """What the LangChain model is given."""
    inner = Scripted(script=[chunk("Yes.")])
    await replied(LangChainModel(inner), messages, system_prompt=system_prompt)
    one, other = inner.seen
    assert one == other
    return one


def said_by(message: BaseMessage) -> tuple[type[BaseMessage], Any]:
    return type(message), message.content


async def test_it_is_a_model_in_both_forms() -> None:
    model: OpenedModel = scripted(chunk("Hello"))
    assert model.id == "scripted-1"
    await model.close()
    await model.close()


async def test_the_reply_comes_as_it_is_streamed_and_nothing_empty_is_a_piece() -> None:
    pieces, finished = await replied(scripted(chunk(), chunk("Hel"), chunk(), chunk("lo"), chunk()))
    assert pieces == ["Hel", "lo"]
    assert finished == Finished("end_turn")


async def test_langchains_own_fake_models_work() -> None:
    assert (await replied(LangChainModel(FakeListChatModel(responses=["abc"]))))[0] == [*"abc"]
    fake = GenericFakeChatModel(messages=iter([AIMessage("Hello there")] * 2))
    assert (await replied(LangChainModel(fake)))[0] == ["Hello", " ", "there"]


async def test_a_model_that_does_not_stream_replies_in_one_piece() -> None:
    reply = AIMessage(
        "Looking",
        tool_calls=[{"name": "look", "args": {"at": "it"}, "id": "1"}],
        usage_metadata={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
        response_metadata={"finish_reason": "tool_calls"},
    )
    pieces, finished = await replied(LangChainModel(FakeMessagesListChatModel(responses=[reply])))
    assert pieces == ["Looking"]
    call: dict[str, Any] = {"id": "1", "name": "look", "args": {"at": "it"}, "type": "tool_call"}
    assert finished == Finished("tool_use", Usage(3, 2), (call,))


async def test_of_content_blocks_the_text_alone_is_said() -> None:
    pieces, _ = await replied(
        as_they_are(
            chunk([{"type": "thinking", "thinking": "Hm.", "index": 0}]),
            chunk([{"type": "reasoning", "text": "So.", "index": 0}]),
            chunk([{"type": "text", "text": "Good ", "index": 1}, "morn"]),
            chunk([{"type": "text", "text": "", "index": 1}]),
            chunk([{"text": "ing"}, {"type": "input_json_delta", "partial_json": "{"}]),
        )
    )
    assert pieces == ["Good morn", "ing"]


@pytest.mark.parametrize(
    ("metadata", "stop_reason"),
    [
        ({"finish_reason": "stop"}, "end_turn"),
        ({"finish_reason": "STOP"}, "end_turn"),
        ({"stop_reason": "end_turn"}, "end_turn"),
        ({"finish_reason": "length"}, "max_tokens"),
        ({"finish_reason": "MAX_TOKENS"}, "max_tokens"),
        ({"stop_reason": "max_tokens"}, "max_tokens"),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, "max_tokens"),
        ({"finish_reason": "tool_calls"}, "tool_use"),
        ({"stopReason": "tool_use"}, "tool_use"),
        ({"finish_reason": "content_filter"}, "content_filtered"),
        ({"finish_reason": "SAFETY"}, "content_filtered"),
        ({"stopReason": "guardrail_intervened"}, "guardrail_intervened"),
        ({"done_reason": "length"}, "max_tokens"),
        ({"stop_reason": "stop_sequence"}, "stop_sequence"),
        ({"finish_reason": "OTHER"}, "OTHER"),
        ({"finish_reason": None, "stop_reason": ""}, "end_turn"),
        ({"finish_reason": 1}, "end_turn"),
        ({}, "end_turn"),
    ],
)
async def test_why_it_stopped_is_told_in_our_words(
    metadata: dict[str, Any], stop_reason: str
) -> None:
    model = scripted(chunk("Yes."), chunk(response_metadata=metadata), chunk())
    assert (await replied(model))[1].stop_reason == stop_reason


async def test_the_usage_of_all_chunks_is_added() -> None:
    # As Anthropic's come: what was read with the first chunk, what was written with the last.
    first: Any = {
        "input_tokens": 100,
        "output_tokens": 1,
        "total_tokens": 101,
        "input_token_details": {"cache_read": 80, "cache_creation": 15},
    }
    last: Any = {"input_tokens": 0, "output_tokens": 7, "total_tokens": 7}
    model = scripted(chunk("", usage_metadata=first), chunk("Yes."), chunk(usage_metadata=last))
    assert (await replied(model))[1].usage == Usage(100, 8, cached_tokens=80, cache_write_tokens=15)


async def test_what_is_written_to_a_cache_counts_also_where_it_is_told_by_its_life() -> None:
    usage: Any = {
        "input_tokens": 200,
        "output_tokens": 3,
        "total_tokens": 203,
        "input_token_details": {
            "cache_read": None,
            "cache_creation": 0,
            "ephemeral_5m_input_tokens": 80,
            "ephemeral_1h_input_tokens": 70,
        },
    }
    # LangChain's own types have no None there, and its providers give it.
    message = AIMessageChunk.model_construct(
        content="Yes.", usage_metadata=usage, response_metadata={}, tool_call_chunks=[]
    )
    model = LangChainModel(RunnableLambda(lambda _: message))
    assert (await replied(model))[1].usage == Usage(200, 3, cache_write_tokens=150)


async def test_usage_that_is_not_told_is_none() -> None:
    assert (await replied(scripted(chunk("Yes."))))[1].usage is None


async def test_tool_calls_are_put_together_from_their_chunks() -> None:
    model = scripted(
        chunk("I look."),
        call_chunk("", id="a", name="weather"),
        call_chunk('{"city": "Ber'),
        call_chunk('gen", "days": 2}'),
        call_chunk(None, 1, id="b", name="time"),
        chunk(response_metadata={"finish_reason": "tool_calls"}),
    )
    pieces, finished = await replied(model)
    assert pieces == ["I look."]
    assert finished.stop_reason == "tool_use"
    assert list(finished.tool_calls) == [
        {"id": "a", "name": "weather", "args": {"city": "Bergen", "days": 2}, "type": "tool_call"},
        {"id": "b", "name": "time", "args": {}, "type": "tool_call"},
    ]


async def test_whole_tool_calls_in_a_chunk_are_taken_and_are_why_it_stopped() -> None:
    # Google's: whole, with the word for an ordinary end behind them.
    calls = [{"name": "look", "args": {"at": n}, "id": str(n)} for n in range(2)]
    model = scripted(chunk(tool_calls=calls), chunk(response_metadata={"finish_reason": "STOP"}))
    finished = (await replied(model))[1]
    assert finished.stop_reason == "tool_use"
    assert [call["args"] for call in finished.tool_calls] == [{"at": 0}, {"at": 1}]


def test_a_tool_call_without_an_id_gets_one_to_answer_by() -> None:
    *_, finished = scripted(call_chunk("{}", name="look", id=None)).stream_sync(HI)
    assert isinstance(finished, Finished)
    (call,) = finished.tool_calls
    assert isinstance(call["id"], str)
    assert call["id"]


@pytest.mark.parametrize(
    "calls",
    [
        [call_chunk('{"city": "Ber', id="a", name="weather")],
        [call_chunk("[1]", id="a", name="weather")],
        [call_chunk('{"city": NaN}', id="a", name="weather")],
        [call_chunk("Bergen!", id="a", name="weather")],
        [call_chunk("{}", id="a", name="")],
        [
            chunk(
                invalid_tool_calls=[
                    {"name": "weather", "args": "Bergen!", "id": "a", "error": "Bergen!"}
                ]
            )
        ],
    ],
    ids=["cut off", "a list", "no JSON number", "no JSON", "no name", "known to be invalid"],
)
async def test_a_malformed_tool_call_is_no_reply(calls: list[AIMessageChunk]) -> None:
    said, failed = await fails(scripted(chunk("I look."), *calls), ModelUnavailable)
    assert said == ["I look."]
    assert str(failed) == "scripted-1 sent a malformed tool call; try again."


async def test_a_tool_call_cut_off_by_the_limit_of_tokens_says_so() -> None:
    length = chunk(response_metadata={"finish_reason": "length"})
    model = scripted(call_chunk('{"path": "/et', name="remove"), length)
    assert "cut off" in str((await fails(model, ModelUnavailable))[1])


async def test_a_whole_reply_with_an_invalid_tool_call_is_no_reply() -> None:
    reply = AIMessage(
        "", invalid_tool_calls=[{"name": "look", "args": "{", "id": "1", "error": None}]
    )
    fake = FakeMessagesListChatModel(responses=[reply])
    await fails(LangChainModel(fake), ModelUnavailable)


async def test_metadata_that_langchain_cannot_add_is_no_trouble() -> None:
    model = as_they_are(
        chunk("Yes.", response_metadata={"x": 0.5}),
        chunk(response_metadata={"x": "a", "finish_reason": "stop"}),
        chunk(response_metadata={"x": [1], "finish_reason": "stop"}),
    )
    assert await replied(model) == (["Yes."], Finished("end_turn"))


async def test_a_model_with_tools_bound_to_it_is_one() -> None:
    inner = Scripted(script=[chunk("Yes.")])
    model = LangChainModel(inner.bind(tools=[{"name": "look"}], stop=["."]))
    assert model.id == "scripted-1"
    assert (await replied(model))[0] == ["Yes."]
    assert [options["tools"] for options in inner.options] == [[{"name": "look"}]] * 2


async def test_a_model_with_others_to_fall_back_on_is_one() -> None:
    failing = Scripted(script=[ValueError("no")])
    model = LangChainModel(failing.with_fallbacks([Scripted(script=[chunk("Yes.")])]), id="either")
    assert model.id == "either"
    assert (await replied(model))[0] == ["Yes."]


async def test_a_chain_that_ends_in_text_is_one() -> None:
    chain = Scripted(script=[chunk("Y"), chunk("es.")]) | StrOutputParser()
    assert (await replied(LangChainModel(chain)))[0] == ["Y", "es."]


async def test_a_chain_that_ends_in_something_else_is_refused() -> None:
    model: Any = RunnableLambda(lambda _: {"answer": 42})
    _, failed = await fails(LangChainModel(model, id="mine"), ModelRefused)
    assert "mine replies with a dict" in str(failed)


def test_a_model_without_a_name_is_called_by_its_class() -> None:
    assert LangChainModel(FakeListChatModel(responses=[])).id == "FakeListChatModel"


async def test_a_model_that_says_nothing_at_all_gave_no_reply() -> None:
    await fails(scripted(), ModelUnavailable)


async def test_what_was_said_before_it_broke_off_was_said() -> None:
    model = scripted(chunk("One, "), chunk("two"), TimeoutError("key sk-1 of Bob's"))
    said, failed = await fails(model, ModelTimeout)
    assert said == ["One, ", "two"]
    assert "sk-1" not in str(failed)
    assert isinstance(failed.__cause__, TimeoutError)


async def test_closing_the_reply_ends_the_call() -> None:
    for bound in (False, True):
        inner = Scripted(script=[chunk(each) for each in "abc"])
        model = LangChainModel(inner.bind(stop=["."]) if bound else inner)
        async with aclosing(model.stream(HI)) as reply:
            assert await anext(reply) == "a"
        for _ in range(5):
            await asyncio.sleep(0)
        assert "async" in inner.ended
        inner.ended.clear()
        with closing(model.stream_sync(HI)) as streaming:
            assert next(streaming) == "a"
        assert inner.ended == ["sync"]


async def test_being_cancelled_is_no_failure_of_the_model() -> None:
    class Hanging(Scripted):
        async def _astream(
            self, messages: list[BaseMessage], *args: Any, **kwargs: Any
        ) -> AsyncIterator[ChatGenerationChunk]:
            yield ChatGenerationChunk(message=chunk("a"))
            await asyncio.sleep(60)

    async def ask() -> None:
        async for _ in LangChainModel(Hanging(script=[])).stream(HI):
            started.set()

    started = asyncio.Event()
    asking = asyncio.create_task(ask())
    await started.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_what_the_caller_raises_at_a_piece_is_not_the_models() -> None:
    reply = scripted(chunk("a"), chunk("b")).stream(HI)
    await anext(reply)
    with pytest.raises(KeyError):
        await reply.athrow(KeyError("the caller's"))


async def test_a_conversation_is_sent_in_langchains_messages() -> None:
    call: dict[str, Any] = {"id": "1", "name": "look", "args": {"n": 1}, "type": "tool_call"}
    given = await sent(
        [
            Message.user([{"type": "text", "text": "Look."}, "There."]),
            Message.assistant("", tool_calls=[call]),
            Message.tool("A cat.", tool_call_id="1"),
            Message.assistant("A cat."),
            Message.user("Thanks"),
        ]
    )
    assert [said_by(message) for message in given] == [
        (HumanMessage, [{"type": "text", "text": "Look."}, "There."]),
        (AIMessage, ""),
        (ToolMessage, "A cat."),
        (AIMessage, "A cat."),
        (HumanMessage, "Thanks"),
    ]
    _, calling, result, *_ = given
    assert isinstance(calling, AIMessage)
    assert calling.tool_calls == [call]
    assert isinstance(result, ToolMessage)
    assert result.tool_call_id == "1"


async def test_a_tools_failure_is_told() -> None:
    # As a window leaves Anthropic's and Bedrock's results.
    failed = Message.tool("No.", tool_call_id="1", extra={"status": "error"})
    call: dict[str, Any] = {"id": "1", "name": "look", "args": {}, "type": "tool_call"}
    *_, result = await sent([*HI, Message.assistant(tool_calls=[call]), failed])
    assert isinstance(result, ToolMessage)
    assert result.status == "error"


@pytest.mark.parametrize(
    ("prompt", "first", "told"),
    [
        (None, [], []),
        ("", [], []),
        ("Be brief.", [], ["Be brief."]),
        (None, [Message.system("Be kind.")], ["Be kind."]),
        ("Be brief.", [Message.system("Be kind.")], ["Be brief.\n\nBe kind."]),
        ("Be brief.", [Message.system("")], ["Be brief."]),
        (None, [Message.system("A"), Message.system("B")], ["A\n\nB"]),
        (
            "Be brief.",
            [Message.system([{"type": "text", "text": "Be kind.", "cache_control": {}}])],
            [
                [
                    {"type": "text", "text": "Be brief."},
                    {"type": "text", "text": "Be kind.", "cache_control": {}},
                ]
            ],
        ),
    ],
)
async def test_the_prompt_and_a_leading_system_message_are_one(
    prompt: str | None, first: list[Message], told: list[Any]
) -> None:
    given = await sent([*first, *HI], system_prompt=prompt)
    assert [said_by(message) for message in given] == [
        *[(SystemMessage, each) for each in told],
        (HumanMessage, "Hi"),
    ]


async def test_what_langchain_stored_is_sent_as_it_was() -> None:
    said: list[BaseMessage] = [
        HumanMessage("Look", name="bob"),
        AIMessage(
            [{"type": "thinking", "thinking": "Hm.", "signature": "s"}],
            tool_calls=[{"name": "look", "args": {}, "id": "1"}],
            additional_kwargs={"signature": "s"},
        ),
        ToolMessage("No.", tool_call_id="1", status="error"),
    ]
    assert await sent([to_chatledger(message) for message in said]) == said


async def test_tool_calls_that_no_result_may_answer_are_not_sent() -> None:
    # OpenAI's package sends those of both, and OpenAI refuses a call without its result.
    raw: Any = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{"}}
    reply = AIMessage(
        "I look.",
        invalid_tool_calls=[{"name": "look", "args": "{", "id": "1", "error": None}],
        additional_kwargs={"tool_calls": [raw], "function_call": {}, "refusal": None},
    )
    kept = to_chatledger(reply)
    _, given, _ = await sent([Message.user("Look"), kept, Message.user("Well?")])
    assert isinstance(given, AIMessage)
    assert given.content == "I look."
    assert given.invalid_tool_calls == []
    assert given.additional_kwargs == {"refusal": None}
    assert from_chatledger(kept) == reply
