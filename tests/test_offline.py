"""The offline model is honest and deterministic, and shows what a conversation remembers."""

import asyncio
from contextlib import aclosing, closing
from time import perf_counter, thread_time
from typing import Any

import pytest

from chatledger.errors import ModelRefused
from chatledger.messages import Message
from chatledger.models.offline import DISCLAIMER, HELP, OfflineModel, reply_text
from chatledger.models.protocol import Finished, OpenedModel, Usage

pytestmark = pytest.mark.anyio

HELLO = [Message.user("Hello")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_first_reply_says_that_it_is_not_a_language_model() -> None:
    reply = reply_text(["Hello"])
    assert "not a language model" in DISCLAIMER
    assert DISCLAIMER in reply
    assert HELP in reply


@pytest.mark.parametrize(
    ("introduction", "name"),
    [
        ("Hi, I am Bob", "Bob"),
        ("Hi! I'm bob", "bob"),
        ("hello im bob", "bob"),
        ("Hey — I’m Zoë!", "Zoë"),
        ("My name is Bob.", "Bob"),
        ("my name's bob", "bob"),
        ("Please call me Mary-Jane, thanks", "Mary-Jane"),
        ("Good morning. I'm Bob and I like rain.", "Bob"),
        ("Hi, my name is Bob, can you help me?", "Bob"),
        ("Я? My name is Юрий", "Юрий"),
    ],
)
def test_a_name_is_greeted_and_remembered(introduction: str, name: str) -> None:
    assert reply_text([introduction]).startswith(f"Hello, {name}! ")
    said = [introduction, "I live in Bergen", "What is my name?"]
    assert reply_text(said) == f"Your name is {name}. You told me so in this conversation."


@pytest.mark.parametrize(
    "question",
    [
        "What is my name?",
        "what's my name",
        "What’s my name?",
        "Whats my name",
        "Do you remember my name?",
        "Do you still know what my name is after all that?",
        "Who am I",
    ],
)
def test_the_question_for_the_name_may_be_phrased_in_many_ways(question: str) -> None:
    assert reply_text(["Hi! I'm bob", question]).startswith("Your name is bob.")
    assert reply_text(["It rains.", question]).startswith("You have not told me your name yet.")
    assert reply_text([question]).startswith("You have not told me your name yet.")


def test_the_last_name_given_counts() -> None:
    assert "Robert" in reply_text(["I am Bob", "My name is Robert", "Who am I?"])


@pytest.mark.parametrize("said", ["I am tired", "I'm hungry", "What I am saying is this"])
def test_not_everything_after_i_am_is_a_name(said: str) -> None:
    assert reply_text([said]).startswith("Hello! ")
    assert reply_text([said, "What is my name?"]).startswith("You have not told me your name yet.")


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("What did I tell you first?", "“My cat is called Minka”"),
        ("what was the first thing I said", "“My cat is called Minka”"),
        ("And the first?", "“My cat is called Minka”"),
        ("What did I say last?", "“I like rain”"),
        ("what was my last message", "“I like rain”"),
        ("How often have I written?", "3 times"),
        ("how many messages are there", "3 times"),
    ],
)
def test_the_first_and_last_message_and_their_number_are_remembered(
    question: str, reply: str
) -> None:
    assert reply in reply_text(["My cat is called Minka", "I like rain", question])


def test_the_first_message_has_nothing_before_it() -> None:
    assert reply_text(["What did I say first?"]).startswith(
        "This is the first thing you have told me here."
    )
    assert reply_text(["What did I say last?"]).startswith(
        "This is the first thing you have told me here."
    )
    assert "written once" in reply_text(["How often have I written?"])


def test_a_statement_is_repeated_with_its_number() -> None:
    reply = reply_text(["Hello", "I live in Bergen"])
    assert "“I live in Bergen”" in reply
    assert "number 2" in reply


@pytest.mark.parametrize(
    "word",
    ["my name ", "what ", "what's ", "first ", "last ", "hi ", " ", "I am ", "call me ", "?"],
)
def test_a_long_message_is_answered_quickly(word: str) -> None:
    text = word * (32_000 // len(word))
    began = thread_time()
    for _ in range(10):
        assert len(reply_text([text, text])) < 1_000
    # A pattern with quadratic run time would take 20 seconds of CPU for these.
    assert thread_time() - began < 5


def conversation(*said: str) -> list[Message]:
    messages = [Message.user(text) for text in said]
    replies = [Message.assistant("I am Chatledger. My name is Offline.")] * len(said)
    return [message for pair in zip(messages, replies, strict=True) for message in pair][:-1]


async def streamed(model: OfflineModel, messages: list[Message]) -> list[str | Finished]:
    return [piece async for piece in model.stream(messages, system_prompt="Be brief.")]


async def test_the_reply_comes_in_pieces_and_is_always_the_same() -> None:
    messages = conversation("Hi, I am Bob", "What is my name?")
    one = await streamed(OfflineModel(), messages)
    assert one == await streamed(OfflineModel(), messages)
    assert one == await streamed(OfflineModel(pace=0.001), messages)
    *pieces, finished = one
    assert len(pieces) > 1
    assert "".join(map(str, pieces)) == reply_text(["Hi, I am Bob", "What is my name?"])
    assert isinstance(finished, Finished)
    assert not any(isinstance(piece, Finished) for piece in pieces)


async def test_the_reply_ends_with_its_token_usage() -> None:
    *pieces, finished = await streamed(OfflineModel(), conversation("Hi, I am Bob", "Who am I?"))
    assert isinstance(finished, Finished)
    assert finished.stop_reason == "end_turn"
    # The words of the window: 4 of the user, 7 of the reply and 3 of the user.
    assert finished.usage == Usage(input_tokens=4 + 7 + 3, output_tokens=len(pieces))


async def test_only_the_users_messages_count() -> None:
    # Its own replies name nobody and are not messages of the user.
    pieces = await streamed(OfflineModel(), conversation("It rains.", "What is my name?"))
    assert "You have not told me your name yet." in "".join(map(str, pieces))


async def test_the_sync_and_async_replies_are_the_same() -> None:
    model: OpenedModel = OfflineModel()
    messages = conversation("Hi, I am Bob", "What is my name?")
    assert [*model.stream_sync(messages)] == [piece async for piece in model.stream(messages)]
    await model.close()
    await model.close()


async def test_the_pace_is_the_seconds_per_piece_sync_and_async() -> None:
    model = OfflineModel(pace=0.02)
    pieces = len([*OfflineModel().stream_sync(HELLO)]) - 1
    began = perf_counter()
    for _ in model.stream_sync(HELLO):
        pass
    between = perf_counter()
    async for _ in model.stream(HELLO):
        pass
    assert between - began >= pieces * 0.02
    assert perf_counter() - between >= pieces * 0.02 * 0.9  # an event loop's clock is coarser


async def test_closing_the_reply_ends_it() -> None:
    model = OfflineModel()
    async with aclosing(model.stream(HELLO)) as reply:
        assert await anext(reply) == "Hello!"
    with pytest.raises(StopAsyncIteration):
        await anext(reply)
    with closing(model.stream_sync(HELLO)) as streaming:
        assert next(streaming) == "Hello!"
    assert [*streaming] == []


async def test_several_replies_run_concurrently() -> None:
    replies = [OfflineModel(pace=0.01).stream(HELLO) for _ in range(2)]
    order: list[int] = []

    async def collect(n: int) -> None:
        async for _ in replies[n]:
            order.append(n)  # noqa: PERF401 - in the order of arrival

    await asyncio.gather(collect(0), collect(1))
    assert order != sorted(order)


def generated_text(*messages: Message) -> str:
    *pieces, finished = OfflineModel().stream_sync(messages)
    assert isinstance(finished, Finished)
    return "".join(map(str, pieces))


CALL: dict[str, Any] = {"id": "1", "name": "weather", "args": {}, "type": "tool_call"}


def test_a_window_with_tools_and_blocks_is_answered() -> None:
    reply = generated_text(
        Message.system("You are helpful. My name is System."),
        Message.user("Hi, I am Bob\n\nWhat is the weather?"),  # two joined messages
        Message.assistant("", tool_calls=[CALL]),
        Message.tool("My name is Tool.", tool_call_id="1"),
        Message.assistant("It rains."),
        Message.user([{"type": "text", "text": "What is "}, {"type": "image"}, "my name?"]),
    )
    assert reply == "Your name is Bob. You told me so in this conversation."


def test_a_window_that_ends_with_a_tool_result_is_answered() -> None:
    reply = generated_text(
        Message.user("What is the weather?"),
        Message.assistant("", tool_calls=[CALL]),
        Message.tool("Rain.", tool_call_id="1"),
    )
    assert DISCLAIMER in reply


def test_a_message_without_text_is_answered() -> None:
    picture = Message.user([{"type": "image", "source": {}}])
    assert DISCLAIMER in generated_text(picture)
    assert "number 2" in generated_text(picture, Message.assistant("Hello!"), picture)


def test_a_window_without_a_user_message_is_refused() -> None:
    for messages in ([], [Message.system("Be brief.")]):
        with pytest.raises(ModelRefused):
            next(OfflineModel().stream_sync(messages))
