"""LangChain chat models as models of a turn: async and sync callers get the same reply and end."""

import asyncio
import logging
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

from chatledger.errors import (
    InvalidArgument,
    ModelError,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
)
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
    """Streams ``script``, and raises an exception that it comes to."""

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
    """Streams its chunks as they are; LangChain does not add them up on the way."""

    def __init__(self, chunks: Sequence[AIMessageChunk]) -> None:
        self._chunks = chunks

    def invoke(self, input: Any, config: Any = None, **options: Any) -> Any:
        raise NotImplementedError

    def stream(self, input: Any, config: Any = None, **options: Any) -> Iterator[Any]:
        yield from self._chunks

    async def astream(self, input: Any, config: Any = None, **options: Any) -> AsyncIterator[Any]:
        for each in self._chunks:
            yield each


def unmerged(*chunks: AIMessageChunk) -> LangChainModel:
    return LangChainModel(Chunks(chunks))


async def read_reply(
    model: LangChainModel, messages: Sequence[Message] = HI, *, system_prompt: str | None = None
) -> tuple[list[str], Finished]:
    """Return the pieces and the end, which must be the same for async and sync callers."""
    all = [each async for each in model.stream(messages, system_prompt=system_prompt)]
    assert all == [*model.stream_sync(messages, system_prompt=system_prompt)]
    *pieces, finished = all
    assert isinstance(finished, Finished)
    assert all.index(finished) == len(all) - 1
    assert all[:-1] == [piece for piece in pieces if isinstance(piece, str) and piece]
    return [str(piece) for piece in pieces], finished


async def read_failure(
    model: LangChainModel, kind: type[ModelError]
) -> tuple[list[str], ModelError]:
    """Return the pieces before the error, and the error; async and sync callers must agree."""
    pieces: list[Any] = []
    sync_pieces: list[Any] = []

    async def listen() -> None:
        async for piece in model.stream(HI):
            pieces.append(piece)  # noqa: PERF401 - one by one, as the next one may fail

    with pytest.raises(kind) as raised:
        await listen()
    with pytest.raises(kind) as raised_sync:
        sync_pieces.extend(model.stream_sync(HI))
    assert type(raised.value) is type(raised_sync.value) is kind
    assert str(raised.value) == str(raised_sync.value)
    assert pieces == sync_pieces
    return pieces, raised.value


async def sent_messages(
    messages: Sequence[Message], *, system_prompt: str | None = None
) -> list[BaseMessage]:
    """Return what the LangChain model is sent."""
    inner = Scripted(script=[chunk("Yes.")])
    await read_reply(LangChainModel(inner), messages, system_prompt=system_prompt)
    sent_async, sent_sync = inner.seen
    assert sent_async == sent_sync
    return sent_async


def type_and_content(message: BaseMessage) -> tuple[type[BaseMessage], Any]:
    return type(message), message.content


async def test_it_is_a_model_for_async_and_sync_callers() -> None:
    model: OpenedModel = scripted(chunk("Hello"))
    assert model.id == "scripted-1"
    await model.close()
    await model.close()


async def test_the_reply_is_streamed_without_empty_pieces() -> None:
    pieces, finished = await read_reply(
        scripted(chunk(), chunk("Hel"), chunk(), chunk("lo"), chunk())
    )
    assert pieces == ["Hel", "lo"]
    assert finished == Finished("end_turn")


async def test_langchains_own_fake_models_work() -> None:
    assert (await read_reply(LangChainModel(FakeListChatModel(responses=["abc"]))))[0] == [*"abc"]
    fake = GenericFakeChatModel(messages=iter([AIMessage("Hello there")] * 2))
    assert (await read_reply(LangChainModel(fake)))[0] == ["Hello", " ", "there"]


async def test_a_model_that_does_not_stream_replies_in_one_piece() -> None:
    reply = AIMessage(
        "Looking",
        tool_calls=[{"name": "look", "args": {"at": "it"}, "id": "1"}],
        usage_metadata={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
        response_metadata={"finish_reason": "tool_calls"},
    )
    pieces, finished = await read_reply(
        LangChainModel(FakeMessagesListChatModel(responses=[reply]))
    )
    assert pieces == ["Looking"]
    call: dict[str, Any] = {"id": "1", "name": "look", "args": {"at": "it"}, "type": "tool_call"}
    assert finished == Finished("tool_use", Usage(3, 2), (call,))


async def test_only_the_text_of_content_blocks_is_part_of_the_reply() -> None:
    pieces, _ = await read_reply(
        unmerged(
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
async def test_stop_reasons_are_translated(metadata: dict[str, Any], stop_reason: str) -> None:
    model = scripted(chunk("Yes."), chunk(response_metadata=metadata), chunk())
    assert (await read_reply(model))[1].stop_reason == stop_reason


async def test_the_usage_of_all_chunks_is_added() -> None:
    # Anthropic reports the input with the first chunk and the output with the last.
    first: Any = {
        "input_tokens": 100,
        "output_tokens": 1,
        "total_tokens": 101,
        "input_token_details": {"cache_read": 80, "cache_creation": 15},
    }
    last: Any = {"input_tokens": 0, "output_tokens": 7, "total_tokens": 7}
    model = scripted(chunk("", usage_metadata=first), chunk("Yes."), chunk(usage_metadata=last))
    assert (await read_reply(model))[1].usage == Usage(
        100, 8, cached_tokens=80, cache_write_tokens=15
    )


async def test_cache_writes_reported_by_how_long_they_last_are_counted() -> None:
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
    # LangChain's types do not allow None here, but its providers send it.
    message = AIMessageChunk.model_construct(
        content="Yes.", usage_metadata=usage, response_metadata={}, tool_call_chunks=[]
    )
    model = LangChainModel(RunnableLambda(lambda _: message))
    assert (await read_reply(model))[1].usage == Usage(200, 3, cache_write_tokens=150)


async def test_usage_that_is_not_reported_is_none() -> None:
    assert (await read_reply(scripted(chunk("Yes."))))[1].usage is None


async def test_tool_calls_are_put_together_from_their_chunks() -> None:
    model = scripted(
        chunk("I look."),
        call_chunk("", id="a", name="weather"),
        call_chunk('{"city": "Ber'),
        call_chunk('gen", "days": 2}'),
        call_chunk(None, 1, id="b", name="time"),
        chunk(response_metadata={"finish_reason": "tool_calls"}),
    )
    pieces, finished = await read_reply(model)
    assert pieces == ["I look."]
    assert finished.stop_reason == "tool_use"
    assert list(finished.tool_calls) == [
        {"id": "a", "name": "weather", "args": {"city": "Bergen", "days": 2}, "type": "tool_call"},
        {"id": "b", "name": "time", "args": {}, "type": "tool_call"},
    ]


async def test_complete_tool_calls_in_one_chunk_are_read_and_are_the_stop_reason() -> None:
    # Google sends complete calls, followed by its stop reason for an ordinary end.
    calls = [{"name": "look", "args": {"at": n}, "id": str(n)} for n in range(2)]
    model = scripted(chunk(tool_calls=calls), chunk(response_metadata={"finish_reason": "STOP"}))
    finished = (await read_reply(model))[1]
    assert finished.stop_reason == "tool_use"
    assert [call["args"] for call in finished.tool_calls] == [{"at": 0}, {"at": 1}]


def test_a_tool_call_without_an_id_gets_one() -> None:
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
    ids=["cut off", "a list", "NaN", "not JSON", "no name", "marked invalid"],
)
async def test_a_malformed_tool_call_is_an_error(calls: list[AIMessageChunk]) -> None:
    pieces, error = await read_failure(scripted(chunk("I look."), *calls), ModelUnavailable)
    assert pieces == ["I look."]
    assert str(error) == "scripted-1 sent a malformed tool call; try again."


async def test_the_error_for_a_tool_call_cut_off_at_the_token_limit_says_so() -> None:
    length = chunk(response_metadata={"finish_reason": "length"})
    model = scripted(call_chunk('{"path": "/et', name="remove"), length)
    assert "cut off" in str((await read_failure(model, ModelUnavailable))[1])


async def test_an_invalid_tool_call_in_an_unstreamed_reply_is_an_error() -> None:
    reply = AIMessage(
        "", invalid_tool_calls=[{"name": "look", "args": "{", "id": "1", "error": None}]
    )
    fake = FakeMessagesListChatModel(responses=[reply])
    await read_failure(LangChainModel(fake), ModelUnavailable)


async def test_metadata_that_langchain_cannot_add_up_does_no_harm() -> None:
    model = unmerged(
        chunk("Yes.", response_metadata={"x": 0.5}),
        chunk(response_metadata={"x": "a", "finish_reason": "stop"}),
        chunk(response_metadata={"x": [1], "finish_reason": "stop"}),
    )
    assert await read_reply(model) == (["Yes."], Finished("end_turn"))


async def test_a_model_with_bound_tools_can_be_used() -> None:
    inner = Scripted(script=[chunk("Yes.")])
    model = LangChainModel(inner.bind(tools=[{"name": "look"}], stop=["."]))
    assert model.id == "scripted-1"
    assert (await read_reply(model))[0] == ["Yes."]
    assert [options["tools"] for options in inner.options] == [[{"name": "look"}]] * 2


async def test_a_model_with_fallbacks_can_be_used() -> None:
    failing = Scripted(script=[ValueError("no")])
    model = LangChainModel(failing.with_fallbacks([Scripted(script=[chunk("Yes.")])]), id="either")
    assert model.id == "either"
    assert (await read_reply(model))[0] == ["Yes."]


async def test_a_chain_that_ends_in_text_can_be_used() -> None:
    chain = Scripted(script=[chunk("Y"), chunk("es.")]) | StrOutputParser()
    assert (await read_reply(LangChainModel(chain)))[0] == ["Y", "es."]


async def test_a_chain_that_ends_in_something_else_is_refused() -> None:
    model: Any = RunnableLambda(lambda _: {"answer": 42})
    _, error = await read_failure(LangChainModel(model, id="mine"), ModelRefused)
    assert "mine returned a dict" in str(error)


def test_a_model_without_a_name_is_named_after_its_class() -> None:
    assert LangChainModel(FakeListChatModel(responses=[])).id == "FakeListChatModel"


async def test_a_stream_without_any_chunk_is_an_error() -> None:
    await read_failure(scripted(), ModelUnavailable)


async def test_the_pieces_before_an_error_are_delivered() -> None:
    model = scripted(chunk("One, "), chunk("two"), TimeoutError("key sk-1 of Bob's"))
    pieces, error = await read_failure(model, ModelTimeout)
    assert pieces == ["One, ", "two"]
    assert "sk-1" not in str(error)
    assert isinstance(error.__cause__, TimeoutError)


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
        with closing(model.stream_sync(HI)) as sync_reply:
            assert next(sync_reply) == "a"
        assert inner.ended == ["sync"]


async def test_cancelling_is_not_reported_as_an_error_of_the_model() -> None:
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


async def test_an_error_that_the_caller_raises_at_a_piece_is_not_translated() -> None:
    reply = scripted(chunk("a"), chunk("b")).stream(HI)
    await anext(reply)
    with pytest.raises(KeyError):
        await reply.athrow(KeyError("the caller's"))


async def test_a_conversation_is_sent_as_langchain_messages() -> None:
    call: dict[str, Any] = {"id": "1", "name": "look", "args": {"n": 1}, "type": "tool_call"}
    sent = await sent_messages(
        [
            Message.user([{"type": "text", "text": "Look."}, "There."]),
            Message.assistant("", tool_calls=[call]),
            Message.tool("A cat.", tool_call_id="1"),
            Message.assistant("A cat."),
            Message.user("Thanks"),
        ]
    )
    assert [type_and_content(message) for message in sent] == [
        (HumanMessage, [{"type": "text", "text": "Look."}, "There."]),
        (AIMessage, ""),
        (ToolMessage, "A cat."),
        (AIMessage, "A cat."),
        (HumanMessage, "Thanks"),
    ]
    _, calling, result, *_ = sent
    assert isinstance(calling, AIMessage)
    assert calling.tool_calls == [call]
    assert isinstance(result, ToolMessage)
    assert result.tool_call_id == "1"


async def test_a_failed_tool_result_is_marked_as_one() -> None:
    # The form that a window gives to the results of Anthropic and Bedrock.
    failed = Message.tool("No.", tool_call_id="1", extra={"status": "error"})
    call: dict[str, Any] = {"id": "1", "name": "look", "args": {}, "type": "tool_call"}
    *_, result = await sent_messages([*HI, Message.assistant(tool_calls=[call]), failed])
    assert isinstance(result, ToolMessage)
    assert result.status == "error"


@pytest.mark.parametrize(
    ("prompt", "first", "expected"),
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
async def test_the_system_prompt_and_leading_system_messages_are_joined(
    prompt: str | None, first: list[Message], expected: list[Any]
) -> None:
    sent = await sent_messages([*first, *HI], system_prompt=prompt)
    assert [type_and_content(message) for message in sent] == [
        *[(SystemMessage, each) for each in expected],
        (HumanMessage, "Hi"),
    ]


async def test_messages_that_langchain_stored_are_sent_unchanged() -> None:
    stored: list[BaseMessage] = [
        HumanMessage("Look", name="bob"),
        AIMessage(
            [{"type": "thinking", "thinking": "Hm.", "signature": "s"}],
            tool_calls=[{"name": "look", "args": {}, "id": "1"}],
            additional_kwargs={"signature": "s"},
        ),
        ToolMessage("No.", tool_call_id="1", status="error"),
    ]
    assert await sent_messages([to_chatledger(message) for message in stored]) == stored


async def test_tool_calls_that_cannot_have_a_result_are_not_sent() -> None:
    # OpenAI's package would send both, and OpenAI refuses a call without a result.
    raw: Any = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{"}}
    reply = AIMessage(
        "I look.",
        invalid_tool_calls=[{"name": "look", "args": "{", "id": "1", "error": None}],
        additional_kwargs={"tool_calls": [raw], "function_call": {}, "refusal": None},
    )
    message = to_chatledger(reply)
    _, sent, _ = await sent_messages([Message.user("Look"), message, Message.user("Well?")])
    assert isinstance(sent, AIMessage)
    assert sent.content == "I look."
    assert sent.invalid_tool_calls == []
    assert sent.additional_kwargs == {"refusal": None}
    assert from_chatledger(message) == reply


@pytest.mark.parametrize("wrong", ["openai:gpt-5", None, 3])
def test_what_is_not_a_langchain_model_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        LangChainModel(wrong)
    assert str(refused.value) == (
        f"LangChainModel needs a LangChain chat model, not {type(wrong).__name__}; "
        "open_model opens models by name."
    )


@pytest.mark.parametrize("package", ["openai", "anthropic", "httpcore", "langchain_core"])
def test_a_program_that_logs_everything_logs_no_requests_of_the_models_packages(
    package: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    LangChainModel(GenericFakeChatModel(messages=iter([])))
    logger = logging.getLogger(f"{package}.client")
    logger.debug("Request options: a secret of mine")
    logger.warning("Retrying")
    assert "a secret of mine" not in caplog.text
    assert "Retrying" in caplog.text
