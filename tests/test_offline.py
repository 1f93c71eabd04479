"""The offline model: honest, the same each time, and it makes memory visible."""

import asyncio
from contextlib import aclosing, closing
from time import perf_counter, thread_time
from typing import Any

import pytest

from chatledger.errors import ModelRefused
from chatledger.messages import Message
from chatledger.models.offline import HELP, HONEST, OfflineModel, answer
from chatledger.models.protocol import Finished, OpenedModel, Usage

pytestmark = pytest.mark.anyio

HELLO = [Message.user("Hello")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_it_says_in_its_first_reply_that_it_is_no_language_model() -> None:
    reply = answer(["Hello"])
    assert "not a language model" in HONEST
    assert HONEST in reply
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
def test_a_name_is_greeted_and_known_when_asked_for(introduction: str, name: str) -> None:
    assert answer([introduction]).startswith(f"Hello, {name}! ")
    said = [introduction, "I live in Bergen", "What is my name?"]
    assert answer(said) == f"Your name is {name}. You told me so in this conversation."


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
def test_the_name_may_be_asked_for_in_many_ways(question: str) -> None:
    assert answer(["Hi! I'm bob", question]).startswith("Your name is bob.")
    assert answer(["It rains.", question]).startswith("You have not told me your name yet.")
    assert answer([question]).startswith("You have not told me your name yet.")


def test_the_name_told_last_is_the_one() -> None:
    assert "Robert" in answer(["I am Bob", "My name is Robert", "Who am I?"])


@pytest.mark.parametrize("said", ["I am tired", "I'm hungry", "What I am saying is this"])
def test_not_every_i_am_is_a_name(said: str) -> None:
    assert answer([said]).startswith("Hello! ")
    assert answer([said, "What is my name?"]).startswith("You have not told me your name yet.")


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
def test_what_was_said_first_and_last_and_how_often_is_known(question: str, reply: str) -> None:
    assert reply in answer(["My cat is called Minka", "I like rain", question])


def test_the_first_message_of_all_has_nothing_before_it() -> None:
    assert answer(["What did I say first?"]).startswith("This is the first thing you tell me here.")
    assert answer(["What did I say last?"]).startswith("This is the first thing you tell me here.")
    assert "written once" in answer(["How often have I written?"])


def test_what_is_no_question_is_said_back_with_its_number() -> None:
    reply = answer(["Hello", "I live in Bergen"])
    assert "“I live in Bergen”" in reply
    assert "number 2" in reply


@pytest.mark.parametrize(
    "word",
    ["my name ", "what ", "what's ", "first ", "last ", "hi ", " ", "I am ", "call me ", "?"],
)
def test_a_long_message_is_answered_at_once(word: str) -> None:
    text = word * (32_000 // len(word))
    began = thread_time()
    for _ in range(10):
        assert len(answer([text, text])) < 1_000
    # A pattern whose time grows with the square of the length takes 20 seconds of CPU for these.
    assert thread_time() - began < 5


def conversation(*said: str) -> list[Message]:
    messages = [Message.user(text) for text in said]
    replies = [Message.assistant("I am Chatledger. My name is Offline.")] * len(said)
    return [message for pair in zip(messages, replies, strict=True) for message in pair][:-1]


async def streamed(model: OfflineModel, messages: list[Message]) -> list[str | Finished]:
    return [piece async for piece in model.stream(messages, system_prompt="Be brief.")]


async def test_the_reply_comes_in_pieces_and_is_the_same_at_any_pace_and_each_time() -> None:
    messages = conversation("Hi, I am Bob", "What is my name?")
    one = await streamed(OfflineModel(), messages)
    assert one == await streamed(OfflineModel(), messages)
    assert one == await streamed(OfflineModel(pace=0.001), messages)
    *pieces, finished = one
    assert len(pieces) > 1
    assert "".join(map(str, pieces)) == answer(["Hi, I am Bob", "What is my name?"])
    assert isinstance(finished, Finished)
    assert not any(isinstance(piece, Finished) for piece in pieces)


async def test_it_ends_with_what_the_reply_took() -> None:
    *pieces, finished = await streamed(OfflineModel(), conversation("Hi, I am Bob", "Who am I?"))
    assert isinstance(finished, Finished)
    assert finished.stop_reason == "end_turn"
    # The words of all that it was shown: 4 of the user's, 7 of the reply's and 3 again.
    assert finished.usage == Usage(input_tokens=4 + 7 + 3, output_tokens=len(pieces))


async def test_it_listens_to_the_user_alone() -> None:
    # What it said itself introduces nobody, and is no message of the user's.
    pieces = await streamed(OfflineModel(), conversation("It rains.", "What is my name?"))
    assert "You have not told me your name yet." in "".join(map(str, pieces))


async def test_both_forms_say_the_same() -> None:
    model: OpenedModel = OfflineModel()
    messages = conversation("Hi, I am Bob", "What is my name?")
    assert [*model.stream_sync(messages)] == [piece async for piece in model.stream(messages)]
    await model.close()
    await model.close()


async def test_its_pace_is_so_many_seconds_a_piece_in_both_forms() -> None:
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


async def test_others_are_answered_while_it_speaks() -> None:
    replies = [OfflineModel(pace=0.01).stream(HELLO) for _ in range(2)]
    order: list[int] = []

    async def listen(n: int) -> None:
        async for _ in replies[n]:
            order.append(n)  # noqa: PERF401 - in the order that they come

    await asyncio.gather(listen(0), listen(1))
    assert order != sorted(order)


def said_by_it(*messages: Message) -> str:
    *pieces, finished = OfflineModel().stream_sync(messages)
    assert isinstance(finished, Finished)
    return "".join(map(str, pieces))


CALL: dict[str, Any] = {"id": "1", "name": "weather", "args": {}, "type": "tool_call"}


def test_it_answers_what_a_window_gives_a_model() -> None:
    reply = said_by_it(
        Message.system("You are helpful. My name is System."),
        Message.user("Hi, I am Bob\n\nWhat is the weather?"),  # two that were joined
        Message.assistant("", tool_calls=[CALL]),
        Message.tool("My name is Tool.", tool_call_id="1"),
        Message.assistant("It rains."),
        Message.user([{"type": "text", "text": "What is "}, {"type": "image"}, "my name?"]),
    )
    assert reply == "Your name is Bob. You told me so in this conversation."


def test_it_answers_the_user_behind_a_tools_result_too() -> None:
    reply = said_by_it(
        Message.user("What is the weather?"),
        Message.assistant("", tool_calls=[CALL]),
        Message.tool("Rain.", tool_call_id="1"),
    )
    assert HONEST in reply


def test_what_it_was_sent_without_words_is_answered_too() -> None:
    picture = Message.user([{"type": "image", "source": {}}])
    assert HONEST in said_by_it(picture)
    assert "number 2" in said_by_it(picture, Message.assistant("Hello!"), picture)


def test_it_has_nothing_to_answer_where_the_user_said_nothing() -> None:
    for messages in ([], [Message.system("Be brief.")]):
        with pytest.raises(ModelRefused):
            next(OfflineModel().stream_sync(messages))
