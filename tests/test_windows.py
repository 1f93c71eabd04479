"""Windows: a model sees an ending of the conversation, and always a valid one."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatledger import InvalidArgument, Message
from chatledger.messages import decode_body
from chatledger.testing.store_contract.roundtrip import objects, values
from chatledger.testing.store_contract.settings import examples_of
from chatledger.values import Json
from chatledger.windows import Window, approximate_tokens, last, valid_for_models, within_tokens

user, assistant, system, tool = Message.user, Message.assistant, Message.system, Message.tool


def call(id: str = "a", **args: Json) -> dict[str, Json]:
    """A tool call in the normal form."""
    return {"id": id, "name": "clock", "args": args, "type": "tool_call"}


def roles_and_contents(messages: Sequence[Message]) -> list[Any]:
    """Return role, content and any tool call ids of each message once it is valid."""
    found: list[Any] = []
    for message in valid_for_models(messages):
        tools = [call["id"] for call in message.tool_calls] or message.tool_call_id
        found.append((message.role, message.content, *([tools] if tools else [])))
    return found


# Conversations of a chat.


def test_two_questions_in_a_row_are_joined() -> None:
    talk = [user("Hi"), assistant("Hello"), user("Are you there?"), user("Anybody?")]
    assert roles_and_contents(talk) == [
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Are you there?\n\nAnybody?"),
    ]


def test_a_reply_that_was_stopped_before_its_first_word_is_dropped() -> None:
    talk = [user("Hi"), assistant("", extra={"stop_reason": "stopped"}), user("Hi again")]
    assert roles_and_contents(talk) == [("user", "Hi\n\nHi again")]


def test_a_window_that_would_start_with_a_reply_starts_with_the_next_question() -> None:
    talk = [user("1"), assistant("2"), user("3"), assistant("4"), user("5")]
    assert last(4)(talk) == talk[2:]
    assert last(2)(talk) == talk[4:]


def test_a_cut_between_a_tool_call_and_its_result_drops_both() -> None:
    talk = [
        user("The time?"),
        assistant(tool_calls=[call()]),
        tool("12:00", tool_call_id="a"),
        assistant("Noon."),
        user("Thanks"),
    ]
    assert valid_for_models(talk) == talk
    for n in (1, 2, 3, 4):
        assert last(n)(talk) == talk[-1:]
    assert last(5)(talk) == talk


def test_a_question_asked_before_a_tools_result_is_moved_after_it() -> None:
    talk = [
        user("The time?"),
        assistant("I look.", tool_calls=[call()]),
        user("Quick!"),
        tool("12:00", tool_call_id="a"),
    ]
    assert roles_and_contents(talk) == [
        ("user", "The time?"),
        ("assistant", "I look.", ["a"]),
        ("tool", "12:00", "a"),
        ("user", "Quick!"),
    ]


# System messages.


def test_system_messages_are_joined_at_the_front() -> None:
    talk = [assistant("Hello"), system("Be brief."), user("Hi"), system(" "), system("Be kind.")]
    assert roles_and_contents(talk) == [("system", "Be brief.\n\nBe kind."), ("user", "Hi")]


def test_a_system_message_between_two_of_one_role_does_not_separate_them() -> None:
    assert roles_and_contents([user("1"), system("Be brief."), user("2")]) == [
        ("system", "Be brief."),
        ("user", "1\n\n2"),
    ]


def test_the_blocks_of_a_system_message_are_kept_if_one_of_them_is_text() -> None:
    cache: dict[str, Json] = {"cachePoint": {"type": "default"}}
    assert roles_and_contents([system([cache]), user("Hi")]) == [("user", "Hi")]
    assert roles_and_contents([system(["Be brief.", cache]), system("Be kind."), user("Hi")])[
        0
    ] == ("system", ["Be brief.", cache, {"type": "text", "text": "Be kind."}])


# Starting with the user.


def test_everything_before_the_users_first_message_is_dropped() -> None:
    talk = [
        assistant("Welcome!", tool_calls=[call()]),
        tool("12:00", tool_call_id="a"),
        user(" \n"),
        assistant("Well?"),
        user("Hi"),
    ]
    assert valid_for_models(talk) == talk[-1:]


@pytest.mark.parametrize(
    "talk",
    [
        [],
        [system("Be brief.")],
        [system("Be brief."), assistant("Hello")],
        [assistant(tool_calls=[call()]), tool("12:00", tool_call_id="a")],
        [user(""), user([]), user([" ", {"type": "text", "text": "\n"}, {}]), assistant("Hello")],
        [user([{"type": "tool_result", "tool_use_id": "a", "content": "12:00"}])],
    ],
)
def test_a_conversation_without_text_of_the_user_becomes_empty(talk: list[Message]) -> None:
    assert valid_for_models(talk) == []
    assert last(10)(talk) == []
    assert within_tokens(10)(talk) == []


# Joining.


def test_text_and_blocks_are_joined_as_blocks() -> None:
    image: dict[str, Json] = {"type": "image", "url": "https://example.org/cat.png"}
    assert roles_and_contents([user("Look:"), user([image, "My cat."]), user("Nice?")]) == [
        (
            "user",
            [
                {"type": "text", "text": "Look:"},
                image,
                "My cat.",
                {"type": "text", "text": "Nice?"},
            ],
        )
    ]


def test_a_joined_message_has_the_id_time_and_metadata_of_the_last() -> None:
    first = user("1", metadata={"n": 1}).with_seq(7)
    second = user("2", metadata={"n": 2}, extra={"langchain": {"type": "human"}}).with_seq(8)
    [joined] = valid_for_models([first, second])
    assert (joined.id, joined.created_at, joined.metadata, joined.seq) == (
        second.id,
        second.created_at,
        {"n": 2},
        8,
    )
    # Otherwise a framework would restore the second message's content from its own data.
    assert joined.extra == {}


def test_a_joined_reply_has_the_tool_calls_of_all() -> None:
    talk = [
        user("Hi"),
        assistant("One", tool_calls=[call("a")], extra={"model": "offline"}),
        assistant("", tool_calls=[call("b"), call("a")]),
        tool("2", tool_call_id="b"),
        tool("1", tool_call_id="a"),
    ]
    assert roles_and_contents(talk) == [
        ("user", "Hi"),
        ("assistant", "One", ["a", "b"]),
        ("tool", "1", "a"),
        ("tool", "2", "b"),
    ]


def test_a_message_that_needs_no_change_is_the_same_object() -> None:
    talk = [
        system("Be brief."),
        user("The time?", extra={"name": "bob"}),
        assistant(
            ["I look.", {"type": "thinking", "thinking": "..."}],
            tool_calls=[call("a"), call("b")],
            extra={"usage": None},
        ),
        tool("", tool_call_id="a"),
        tool([], tool_call_id="b"),
        assistant("Noon."),
    ]
    for valid, original in zip(valid_for_models(talk), talk, strict=True):
        assert valid is original


# Blank text.


def test_blank_blocks_are_dropped_and_the_others_kept() -> None:
    blocks: Any = ["", {"type": "text", "text": " "}, {"text": "\n"}, {"type": "text"}, {}, "Hi"]
    image: dict[str, Json] = {"image": {"format": "png"}}
    assert roles_and_contents([user([*blocks, image])]) == [("user", ["Hi", image])]


def test_a_blank_text_next_to_a_tool_call_is_dropped() -> None:
    talk = [user("Hi"), assistant(" \n", tool_calls=[call()]), tool("1", tool_call_id="a")]
    assert roles_and_contents(talk)[1:] == [("assistant", "", ["a"]), ("tool", "1", "a")]


def test_a_result_may_be_blank() -> None:
    talk = [user("Hi"), assistant(tool_calls=[call()]), tool(" ", tool_call_id="a")]
    assert valid_for_models(talk) == talk


# Tool calls and their results.


def test_a_call_without_a_result_is_dropped_and_the_text_kept() -> None:
    talk = [user("Hi"), assistant("I look.", tool_calls=[call()]), user("Well?")]
    assert roles_and_contents(talk) == [("user", "Hi"), ("assistant", "I look."), ("user", "Well?")]


def test_a_call_whose_result_comes_after_the_next_reply_is_dropped_with_its_result() -> None:
    talk = [
        user("Hi"),
        assistant("I look.", tool_calls=[call()]),
        user("Well?"),
        assistant("Wait."),
        tool("12:00", tool_call_id="a"),
        user("So?"),
    ]
    assert roles_and_contents(talk) == [
        ("user", "Hi"),
        ("assistant", "I look."),
        ("user", "Well?"),
        ("assistant", "Wait."),
        ("user", "So?"),
    ]


def test_messages_that_become_neighbours_when_calls_or_results_are_dropped_are_joined() -> None:
    talk = [
        user("1"),
        assistant(tool_calls=[call()]),
        user("2"),
        assistant("3"),
        tool("no such call", tool_call_id="b"),
        assistant("4"),
    ]
    assert roles_and_contents(talk) == [("user", "1\n\n2"), ("assistant", "3\n\n4")]


def test_of_two_calls_or_two_results_with_one_id_the_first_counts() -> None:
    talk = [
        user("Hi"),
        assistant(tool_calls=[call(zone=1), call(zone=2)]),
        tool("first", tool_call_id="a"),
        tool("second", tool_call_id="a"),
    ]
    _, calling, result = valid_for_models(talk)
    assert calling.tool_calls == [call(zone=1)]
    assert result is talk[2]


def test_an_id_may_be_used_again_in_a_later_exchange() -> None:
    first = [user("Hi"), assistant(tool_calls=[call()]), tool("1", tool_call_id="a")]
    talk = [*first, assistant(tool_calls=[call()]), tool("2", tool_call_id="a")]
    assert valid_for_models(talk) == talk


def test_stored_calls_of_every_form_become_normal() -> None:
    stored: list[Any] = [
        {"id": "a", "function": {"name": "clock", "arguments": "{}"}},
        "clock()",
        {"toolUse": {"toolUseId": "b", "name": "clock", "input": {}}},
        {"name": "clock", "args": {}},
    ]
    results = [tool("1", tool_call_id="a"), tool("2", tool_call_id="b")]
    _, calling, *answering = valid_for_models([user("Hi"), assistant(tool_calls=stored), *results])
    assert calling.extra == {"tool_calls": [call("a"), call("b")]}
    assert answering == results


def test_calls_among_the_blocks_are_moved_out_and_not_duplicated() -> None:
    blocks: Any = [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "a", "name": "clock", "input": {"zone": 2}},
        {"toolUse": {"toolUseId": "b", "name": "clock", "input": {}}},
        {"type": "tool_use", "id": "c", "name": "clock"},
    ]
    results = [tool(id, tool_call_id=id) for id in "abc"]
    talk = [user("Hi"), assistant(blocks, tool_calls=[call("a", zone=1)]), *results]
    _, calling, *answering = valid_for_models(talk)
    assert calling.content == blocks[:1]
    assert calling.tool_calls == [call("a", zone=1), call("b")]
    assert answering == results[:2]


def test_results_among_a_users_blocks_become_tool_messages() -> None:
    blocks: Any = [
        {"type": "tool_result", "tool_use_id": "a", "content": "12:00"},
        {"toolResult": {"toolUseId": "b", "content": [{"text": "?"}], "status": "error"}},
        {"type": "tool_result", "tool_use_id": "no such call", "content": "!"},
        {"type": "tool_result"},
        "Well?",
    ]
    answer = user(blocks, id="answer")
    valid = valid_for_models([user("Hi"), assistant(tool_calls=[call("b"), call("a")]), answer])
    _, _, second, first, question = valid
    assert (second.role, second.id, second.content) == ("tool", "answer/b", [{"text": "?"}])
    assert second.extra == {"tool_call_id": "b", "status": "error"}
    assert (first.role, first.id, first.content) == ("tool", "answer/a", "12:00")
    assert first.extra == {"tool_call_id": "a"}
    assert (question.role, question.id, question.content) == ("user", "answer", ["Well?"])


def test_a_result_block_within_a_tool_message_is_unwrapped() -> None:
    block: dict[str, Json] = {"type": "tool_result", "tool_use_id": "a", "content": "12:00"}
    calling = [user("Hi"), assistant(tool_calls=[call()])]
    for wrapped in (tool([block], tool_call_id="a"), Message(role="tool", content=[block])):
        assert roles_and_contents([*calling, wrapped])[2:] == [("tool", "12:00", "a")]


def test_calls_and_results_within_a_result_are_dropped() -> None:
    nested: Any = [{"type": "tool_use", "id": "b"}, {"toolResult": {}}, {"text": "12:00"}]
    calling = [user("Hi"), assistant(tool_calls=[call()])]
    block: dict[str, Json] = {"type": "tool_result", "tool_use_id": "a", "content": nested}
    for answer in (user([block]), tool(nested, tool_call_id="a", extra={"usage": 1})):
        [*_, result] = valid_for_models([*calling, answer])
        assert (result.role, result.content) == ("tool", nested[2:])
        assert result.extra == {"tool_call_id": "a"}


def test_a_message_of_an_unknown_role_is_dropped() -> None:
    body: dict[str, Any] = {"role": "developer", "content": "Be brief.", "id": "d-1"}
    unknown = decode_body(body | {"created_at": "2026-05-01T12:00:00Z"}, seq=1)
    assert roles_and_contents([user("1"), unknown, user("2")]) == [("user", "1\n\n2")]


# The end of the conversation.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Well \n", "Well"),
        (["So ", "Well \n"], ["So ", "Well"]),
        ([{"type": "text", "text": "Well "}], [{"type": "text", "text": "Well"}]),
        (["Well ", {"cachePoint": {}}], ["Well", {"cachePoint": {}}]),
        ([{"image": {}}], [{"image": {}}]),
    ],
)
def test_a_reply_at_the_end_does_not_end_in_white_space(content: Any, expected: Any) -> None:
    assert roles_and_contents([user("Hi "), assistant(content)]) == [
        ("user", "Hi "),
        ("assistant", expected),
    ]
    assert roles_and_contents([user("Hi "), assistant(content), user("?")])[1] == (
        "assistant",
        content,
    )


# Properties of any conversation.

texts = st.sampled_from(["", " ", "\n\t", "Hi", "Well \n", " Noon.", "你好", "x" * 99]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=5
)
ids = st.sampled_from(["a", "b", "c"])
args = st.sampled_from(['{"zone": 1}', "{}", "[]", "{"])
objects_of_args = st.sampled_from([{}, {"zone": 1}, None, "{}", 7])
call_blocks = st.one_of(
    st.builds(
        lambda call_id, args: {"type": "tool_use", "id": call_id, "name": "clock", "input": args},
        ids,
        objects_of_args,
    ),
    st.builds(
        lambda call_id, args: {"toolUse": {"toolUseId": call_id, "name": "clock", "input": args}},
        ids,
        objects_of_args,
    ),
    st.sampled_from([{"type": "tool_use"}, {"toolUse": 7}]),
)
calls = st.one_of(
    st.builds(call, ids, zone=st.integers(0, 1)),
    call_blocks,
    st.builds(
        lambda call_id, args: {"id": call_id, "function": {"name": "clock", "arguments": args}},
        ids,
        args,
    ),
    values,
)
text_blocks = texts | st.builds(lambda text: {"type": "text", "text": text}, texts)
blocks = st.one_of(
    text_blocks,
    st.builds(lambda text: {"text": text}, texts),
    call_blocks,
    st.builds(
        lambda call_id, content: {
            "type": "tool_result",
            "tool_use_id": call_id,
            "content": content,
        },
        ids,
        texts | st.lists(text_blocks | call_blocks, max_size=2) | values,
    ),
    st.builds(
        lambda call_id: {"toolResult": {"toolUseId": call_id, "content": [{"text": "1"}]}}, ids
    ),
    st.sampled_from([
        {"type": "image", "url": "https://example.org/cat.png"},
        {"cachePoint": {"type": "default"}},
        {"type": "text"},
        {"type": "text", "text": 7},
        {"type": "tool_result"},
    ]),
    objects,
)  # fmt: skip
contents = texts | st.lists(blocks, max_size=4)
messages = st.one_of(
    st.builds(user, contents),
    st.builds(user, texts),
    st.builds(assistant, contents, tool_calls=st.lists(calls, max_size=3)),
    st.builds(assistant, texts),
    st.builds(tool, contents, tool_call_id=ids),
    st.builds(system, contents),
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        content=contents,
        extra=st.dictionaries(st.sampled_from(["tool_calls", "tool_call_id", "usage"]), values),
    ),
)
exchanges = st.builds(
    lambda content, call_ids, result_ids: [
        assistant(content, tool_calls=[call(id) for id in call_ids]),
        *(tool("1", tool_call_id=id) for id in result_ids),
    ],
    contents,
    st.lists(ids, max_size=3),
    st.permutations("abc"),
)
conversations = st.lists(messages.map(lambda message: [message]) | exchanges, max_size=12).map(
    lambda groups: [message for group in groups for message in group]
)
conversations_to_reply_to = st.builds(lambda before: [*before, user("Well?")], conversations)
"""Conversations that end with the user's question, as in a chat."""
counts: st.SearchStrategy[Callable[[Message], int]] = st.sampled_from([
    approximate_tokens,
    lambda message: 1,
    lambda message: len(message.text),
    lambda message: 10 * len(message.tool_calls),
])  # fmt: skip


TOOLS = frozenset(["tool_use", "tool_call", "tool_result", "toolUse", "toolResult"])


def is_text(block: Any) -> bool:
    return isinstance(block, str) or ("text" in block and block.get("type", "text") == "text")


def text_of(block: Any) -> Any:
    return block if isinstance(block, str) else block["text"]


def blocks_of(message: Message) -> list[Any]:
    if isinstance(message.content, str):
        return [message.content] if message.content else []
    return list(message.content)


def assert_valid(messages: Sequence[Message]) -> None:
    """Assert everything that the strictest model requires of messages."""
    after_system = [*messages]
    if after_system and after_system[0].role == "system":
        assert any(is_text(block) for block in blocks_of(after_system[0]))
        [_, *after_system] = after_system
        assert after_system, "a system message and nothing else"
    before: Message | None = None
    open_calls: list[Json] = []
    for message in after_system:
        match message.role:
            case "user":
                assert before is None or before.role in ("assistant", "tool")
                assert not open_calls
                assert message.content
            case "assistant":
                assert before is not None
                assert before.role in ("user", "tool")
                assert not open_calls
                assert message.content or message.tool_calls
                for each in message.tool_calls:
                    assert each.keys() == {"id", "name", "args", "type"}
                    assert each["id"]
                    assert each["name"]
                    assert isinstance(each["args"], dict)
                    assert each["type"] == "tool_call"
                open_calls = [each["id"] for each in message.tool_calls]
                assert len({str(id) for id in open_calls}) == len(open_calls)
            case "tool":
                assert open_calls, "a result that no call is open for"
                assert message.tool_call_id == open_calls.pop(0)
            case other:
                raise AssertionError(f"a message of role {other} after the first")
        before = message
    assert not open_calls
    for message in messages:
        for block in blocks_of(message):
            if isinstance(block, dict):
                assert not TOOLS & block.keys()
                assert block.get("type") not in [*TOOLS]
            if message.role != "tool":
                assert block
                assert not is_text(block) or text_of(block).strip()
    if before is not None and before.role == "assistant":
        last_texts = [text_of(block) for block in blocks_of(before) if is_text(block)][-1:]
        assert all(text == text.rstrip() for text in last_texts)


@given(conversations)
@examples_of(500)
def test_any_conversation_becomes_valid(talk: list[Message]) -> None:
    before = deepcopy(talk)
    valid = valid_for_models(talk)
    assert_valid(valid)
    assert talk == before
    # Valid messages stay the same objects.
    again = valid_for_models(valid)
    assert len(again) == len(valid)
    assert all(one is other for one, other in zip(again, valid, strict=True))
    assert valid_for_models(tuple(talk)) == valid


@given(conversations_to_reply_to)
@examples_of(200)
def test_a_question_at_the_end_is_the_end_of_every_window(talk: list[Message]) -> None:
    for window in (last(1), last(3), last(1_000), within_tokens(1), within_tokens(100)):
        seen = window(talk)
        assert_valid(seen)
        assert seen[-1].role == "user"
        assert seen[-1].text.endswith("Well?")


def content_of_role(talk: Sequence[Message], role: str) -> list[Any]:
    """Return all content of a role except tool calls and results: merged texts, and blocks."""
    parts: list[Any] = [""]
    for message in talk:
        for block in blocks_of(message) if message.role == role else []:
            if is_text(block):
                text = text_of(block)
                parts[-1] += "".join(text.split()) if isinstance(text, str) else ""
            elif block and not TOOLS & block.keys() and block.get("type") not in ["text", *TOOLS]:
                parts += [block, ""]
    return parts


@given(conversations)
@examples_of(300)
def test_no_content_after_the_users_first_message_is_lost(talk: list[Message]) -> None:
    valid = valid_for_models(talk)
    with_content = [
        n for n, message in enumerate(talk) if content_of_role([message], "user") != [""]
    ]
    if not with_content:
        assert valid == []
        return
    for role in ("user", "assistant"):
        assert content_of_role(valid, role) == content_of_role(talk[with_content[0] :], role)


@given(conversations, st.data())
@examples_of(200)
def test_blank_messages_make_no_difference(talk: list[Message], data: st.DataObject) -> None:
    blank = st.builds(
        Message,
        role=st.sampled_from(["user", "assistant", "system"]),
        content=st.sampled_from([" ", "", [], [""]]),
    )
    with_blanks = [*talk]
    for message in data.draw(st.lists(blank, max_size=4)):
        with_blanks.insert(data.draw(st.integers(0, len(with_blanks))), message)
    assert valid_for_models(with_blanks) == valid_for_models(talk)


@given(conversations_to_reply_to, st.integers(1, 1_000) | st.integers(1, 12))
@examples_of(200)
def test_last_n_is_the_valid_form_of_the_last_n_messages(talk: list[Message], n: int) -> None:
    assert last(n)(talk) == valid_for_models(talk[-n:])
    assert last(n).reads == n


@given(conversations, st.integers(1, 200), counts, st.integers(1, 30))
@examples_of(500)
def test_within_tokens_is_the_longest_ending_that_fits_or_else_the_shortest(
    talk: list[Message], budget: int, count: Callable[[Message], int], reads: int
) -> None:
    before = deepcopy(talk)
    window = within_tokens(budget, count=count, reads=reads)
    seen = window(talk)
    assert talk == before
    assert window.reads == reads
    assert window(talk[-reads:]) == seen

    endings = [valid_for_models(talk[-n:]) for n in range(min(reads, len(talk)), 0, -1)]
    endings = [ending for ending in endings if ending]
    fits = [ending for ending in endings if sum(map(count, ending)) <= budget]
    assert seen == [*fits, *endings[-1:], []][0]


@given(conversations, st.integers(1, 200))
@examples_of(200)
def test_with_any_count_the_window_fits_or_is_the_shortest(
    talk: list[Message], budget: int
) -> None:
    def count(message: Message) -> int:
        return 7919 * len(message.text) % 50  # often less for a longer message

    seen = within_tokens(budget, count=count)(talk)
    endings = [valid_for_models(talk[n:]) for n in range(len(talk))]
    endings = [ending for ending in endings if ending]
    assert seen in endings or not endings
    assert sum(map(count, seen)) <= budget or seen == endings[-1]


def test_each_message_is_counted_at_most_once() -> None:
    counted = 0

    def count(message: Message) -> int:
        nonlocal counted
        counted += 1
        return 1

    talk = [user("Hi") if n % 2 == 0 else assistant("Hello") for n in range(200)]
    assert within_tokens(1_000_000, count=count)(talk) == talk
    assert counted == 200
    # Messages far before the window are not counted.
    counted = 0
    assert within_tokens(4, count=count)(talk) == talk[-4:]
    assert counted < 10


def test_a_question_over_the_budget_is_kept_with_everything_after_it() -> None:
    talk = [
        user("Hi"),
        assistant("Hello"),
        user("x" * 9_000),
        assistant(tool_calls=[call()]),
        tool("12:00", tool_call_id="a"),
    ]
    assert within_tokens(10)(talk) == talk[2:]


def test_a_system_message_that_does_not_fit_is_dropped_before_the_question() -> None:
    talk = [user("1"), assistant("2"), system("x" * 400), user("3")]
    assert within_tokens(99)(talk) == talk[3:]
    assert within_tokens(110)(talk) == talk[2:]
    assert within_tokens(130)(talk) == [talk[2], *talk[:2], talk[3]]


def test_a_custom_window_gets_the_last_messages_and_its_result_is_made_valid() -> None:
    given: list[list[Message]] = []

    def every_second(messages: Sequence[Message]) -> list[Message]:
        given.append([*messages])
        return [*messages[::2]]

    talk = [user(f"{n}") for n in range(9)]
    seen = Window(every_second, 4)(talk)
    assert given == [talk[5:]]
    assert seen == valid_for_models([talk[5], talk[7]])
    assert [message.text for message in seen] == ["5\n\n7"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: last(0), "n must be 1 to 1,000."),
        (lambda: last(1_001), "n must be 1 to 1,000."),
        (lambda: last(True), "n is of type bool; it must be an int."),
        (lambda: last("9"), "n is of type str; it must be an int."),  # type: ignore[arg-type]
        (lambda: within_tokens(0), "budget must be 1 to 9,007,199,254,740,991."),
        (lambda: within_tokens(1.5), "budget is of type float; it must be an int."),  # type: ignore[arg-type]
        (lambda: within_tokens(9, reads=0), "reads must be 1 to 1,000."),
        (lambda: within_tokens(9, reads=1_001), "reads must be 1 to 1,000."),
        (
            lambda: within_tokens(9, count=7),  # type: ignore[arg-type]
            "count is of type int; it must be a function from a message to its number of tokens.",
        ),
        (lambda: Window(valid_for_models, 0), "reads must be 1 to 1,000."),
        (
            lambda: Window([], 9),  # type: ignore[arg-type]
            "choose is of type list; it must be a function from messages to those in the window.",
        ),
    ],
)
def test_invalid_arguments_are_refused_with_what_to_do(
    make: Callable[[], Window], sentence: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        make()
    assert str(raised.value) == sentence


# Counting tokens.


@given(messages)
@examples_of(200)
def test_every_message_has_tokens(message: Message) -> None:
    assert approximate_tokens(message) >= 4


def test_four_ascii_characters_are_a_token_and_so_is_one_chinese_character() -> None:
    assert approximate_tokens(user("abcd" * 100)) == 104
    assert approximate_tokens(user("你好" * 50)) == 104
    assert approximate_tokens(user("abcd你好" * 10)) == 34
    assert 40 <= approximate_tokens(user("привет" * 10)) <= 50
    assert approximate_tokens(user(["abcd", {"type": "text", "text": "你好"}, {"text": "a"}])) == 8


def test_tool_calls_and_results_are_counted() -> None:
    assert approximate_tokens(assistant(tool_calls=[call(text="x" * 400)])) > 100
    assert approximate_tokens(tool("", tool_call_id="x" * 400)) > 100
    assert approximate_tokens(tool([{"json": {"rows": ["x" * 400]}}], tool_call_id="a")) > 100


def test_an_image_counts_the_same_for_any_size() -> None:
    small: Any = {"type": "image", "source": {"data": "x"}}
    large: Any = {"image": {"source": {"bytes": "x" * 1_000_000}}}
    assert approximate_tokens(user([small])) == approximate_tokens(user([large])) == 1_604
