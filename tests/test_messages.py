"""Messages: the values they accept and reject, and that stored ones come back equal."""

import json
import math
from collections import OrderedDict
from contextlib import suppress
from dataclasses import FrozenInstanceError, dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatledger.errors import InvalidMessage, MessageTooLarge
from chatledger.messages import (
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_METADATA_BYTES,
    Message,
    decode,
    encode,
)
from chatledger.values import checked_json, new_id, now

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def nested(levels: int) -> list[Any]:
    """Return ``levels`` lists, each within the next."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)

BASE64 = "encode it as text, for example with base64."
SURROGATE = "which UTF-8 cannot encode; decode the text correctly where it comes from."
NOT_JSON = "only None, bool, int, float, str, list and dict can be stored and come back equal."
TOO_DEEP = "is nested more than 100 levels deep; flatten it or store it as text."
NEEDS_TIME_ZONE = (
    "created_at must be an aware datetime, such as datetime.now(UTC); "
    "without a time zone it means a different moment on each machine."
)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"role": "robot"}, "role is 'robot'; it must be one of assistant, system, tool, user."),
        ({"role": "User"}, "role is 'User'; it must be one of assistant, system, tool, user."),
        ({"role": None}, "role is None; it must be one of assistant, system, tool, user."),
        ({"role": ["user"]}, "role is ['user']; it must be one of assistant, system, tool, user."),
        (
            {"content": b"hi"},
            "content is of type bytes; it must be text or a list of content blocks.",
        ),
        (
            {"content": None},
            "content is of type NoneType; it must be text or a list of content blocks.",
        ),
        (
            {"content": {"text": "hi"}},
            "content is of type dict; it must be text or a list of content blocks.",
        ),
        (
            {"content": ("hi",)},
            "content is of type tuple; it must be text or a list of content blocks.",
        ),
        ({"content": ["hi", 7]}, "content[1] is of type int; a content block is a str or a dict."),
        (
            {"content": [None]},
            "content[0] is of type NoneType; a content block is a str or a dict.",
        ),
        (
            {"content": "hi \ud83d"},
            f"content contains a lone surrogate at character 3, {SURROGATE}",
        ),
        (
            {"content": ["hi", "\udc80"]},
            f"content[1] contains a lone surrogate at character 0, {SURROGATE}",
        ),
        (
            {"content": [{"type": "image", "data": b"..."}]},
            f"content[0].data is of type bytes; {BASE64}",
        ),
        ({"content": [{"a": RECURSIVE}]}, f"content[0].a{'[0]' * 98} {TOO_DEEP}"),
        ({"id": ""}, "id must have 1 to 1,000 bytes in UTF-8."),
        ({"id": "é" * 501}, "id must have 1 to 1,000 bytes in UTF-8."),
        ({"id": "\ud800"}, f"id contains a lone surrogate at character 0, {SURROGATE}"),
        ({"id": 7}, "id is of type int; it must be a str."),
        ({"id": None}, "id is None; it must be a str."),
        ({"created_at": datetime(2026, 5, 1)}, NEEDS_TIME_ZONE),
        ({"created_at": "2026-05-01T12:00:00Z"}, NEEDS_TIME_ZONE),
        ({"metadata": None}, "metadata is None; it must be a dict."),
        ({"metadata": [("a", 1)]}, "metadata is of type list; it must be a dict."),
        ({"metadata": {"photo": b"..."}}, f"metadata.photo is of type bytes; {BASE64}"),
        ({"metadata": {"a": bytearray(b"...")}}, f"metadata.a is of type bytearray; {BASE64}"),
        ({"metadata": {"a": memoryview(b"...")}}, f"metadata.a is of type memoryview; {BASE64}"),
        (
            {"metadata": {"score": math.nan}},
            "metadata.score is nan, which JSON cannot hold; use None or text.",
        ),
        (
            {"metadata": {"scores": [1.0, -math.inf]}},
            "metadata.scores[1] is -inf, which JSON cannot hold; use None or text.",
        ),
        (
            {"metadata": {"a": {"b": "\udfff"}}},
            f"metadata.a.b contains a lone surrogate at character 0, {SURROGATE}",
        ),
        (
            {"metadata": {"a": {"b\ud800": 1}}},
            f"a key of metadata.a contains a lone surrogate at character 1, {SURROGATE}",
        ),
        ({"metadata": {"a": {1: "one"}}}, "metadata.a has the key 1; keys must be str."),
        ({"metadata": {None: "none"}}, "metadata has the key None; keys must be str."),
        (
            {"metadata": {"pair": (1, 2)}},
            "metadata.pair is a tuple, which would come back as a list; pass a list.",
        ),
        ({"metadata": {"a": {1, 2}}}, f"metadata.a is of type set; {NOT_JSON}"),
        ({"metadata": {"a": [object()]}}, f"metadata.a[0] is of type object; {NOT_JSON}"),
        ({"metadata": {"at": NOON}}, f"metadata.at is of type datetime; {NOT_JSON}"),
        (
            {"metadata": {"n": 2**2000}},
            "metadata.n is an integer of more than 600 digits; store it as text.",
        ),
        (
            {"metadata": {"n": -(10**5000)}},
            "metadata.n is an integer of more than 600 digits; store it as text.",
        ),
        ({"metadata": {"a": nested(100)}}, f"metadata.a{'[0]' * 99} {TOO_DEEP}"),
        ({"extra": {"usage": {"cost": math.inf}}}, "extra.usage.cost is inf, "),
        (
            {"extra": {"tool_calls": [{"args": b""}]}},
            f"extra.tool_calls[0].args is of type bytes; {BASE64}",
        ),
    ],
)
def test_a_field_that_cannot_come_back_equal_is_rejected_by_an_error_that_names_it(
    fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidMessage) as raised:
        Message(**({"role": "user", "content": "hello"} | fields))
    assert str(raised.value).startswith(sentence)


def test_an_error_quotes_the_beginning_of_a_long_key() -> None:
    with pytest.raises(InvalidMessage) as raised:
        Message.user("hello", metadata={"a": {"k" * 1_000: [math.inf]}})
    assert str(raised.value).startswith(f"metadata.a.{'k' * 50}…[0] is inf, ")


def test_the_name_of_a_value_is_written_out_only_for_an_error() -> None:
    # Otherwise a million values below a key of a megabyte would take minutes.
    class Name(str):
        def __format__(self, spec: str) -> str:
            raise AssertionError("it was written out")

    value = {"a": ["b", {"c": 1}]}
    assert checked_json(value, Name("value"), error=InvalidMessage) == value


def test_an_invalid_message_is_also_a_value_error() -> None:
    with pytest.raises(ValueError, match="role is 'robot'"):
        Message(role="robot")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"content": ""},
        {"content": []},
        {"content": ["", {}]},
        {"content": "\0 and \U0001f600"},
        {"id": "é" * 500},
        {"metadata": {"": None}},
        {"metadata": {"n": 2**2000 - 1, "m": -(2**2000) + 1}},
        {"metadata": {"a": nested(99)}},
        {"content": [{"a": nested(98)}]},
    ],
    ids=lambda fields: f"{fields}"[:30],
)
def test_values_just_within_the_limits_come_back(fields: dict[str, Any]) -> None:
    message = Message(**({"role": "user", "content": "hello"} | fields))
    assert decode(encode(message), seq=1) == message


def test_metadata_may_be_as_large_as_the_limit_and_not_a_byte_larger() -> None:
    # The text is within {"a":"..."}, eight bytes; é takes two bytes in UTF-8.
    fits = "é" * ((MAX_MESSAGE_METADATA_BYTES - 8) // 2)
    assert Message.user("hello", metadata={"a": fits}).metadata == {"a": fits}
    with pytest.raises(
        InvalidMessage, match=r"^metadata is 16,385 bytes as JSON, over the limit of 16,384\.$"
    ):
        Message.user("hello", metadata={"a": fits + "x"})


def test_extra_may_be_larger_than_metadata() -> None:
    large: dict[str, Any] = {"thinking": "x" * MAX_MESSAGE_METADATA_BYTES}
    assert Message.assistant(extra=large).extra == large


def test_a_message_may_be_as_large_as_the_limit_and_not_a_byte_larger() -> None:
    empty = Message.user("", id="large", created_at=NOON)
    room = MAX_MESSAGE_BYTES - len(encode(empty).encode())
    fits = replace(empty, content="é" * (room // 2) + "x" * (room % 2))
    assert len(encode(fits).encode()) == MAX_MESSAGE_BYTES
    with pytest.raises(MessageTooLarge) as raised:
        encode(replace(fits, content=f"{fits.content}x"))
    assert (raised.value.size, raised.value.limit) == (MAX_MESSAGE_BYTES + 1, MAX_MESSAGE_BYTES)
    assert str(raised.value) == (
        "Message 'large' is 16,777,217 bytes as JSON, over the limit of 16,777,216; "
        "keep large content elsewhere and store a link to it."
    )


def test_changing_the_values_passed_in_does_not_change_the_message() -> None:
    block: dict[str, Any] = {"type": "text", "parts": ["one"]}
    content: Any = [block]
    metadata: dict[str, Any] = {"tags": ["a"]}
    call: dict[str, Any] = {"id": "call_1", "args": {"n": 1}}
    extra: dict[str, Any] = {"usage": {"tokens": 1}}
    message = Message.assistant(content, metadata=metadata, tool_calls=[call], extra=extra)
    before = encode(message)

    block["parts"].append("two")
    content.append("three")
    metadata["tags"].clear()
    call["args"]["n"] = 2
    extra["usage"]["tokens"] = 2
    assert encode(message) == before


@pytest.mark.parametrize("name", ["role", "content", "id", "created_at", "metadata", "seq", "new"])
def test_a_message_cannot_be_changed(name: str) -> None:
    message = Message.user("hello")
    with pytest.raises((FrozenInstanceError, TypeError)):
        setattr(message, name, "other")
    assert message.text == "hello"


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Fraction(float):
    pass


class Rows(list[Any]):
    pass


class Role(StrEnum):
    USER = "user"


def test_values_of_subclasses_become_plain_and_equal() -> None:
    message = Message(
        role=Role.USER,  # type: ignore[arg-type]
        content=Text("hello"),
        id=Text("id"),
        metadata=OrderedDict(
            {Colour.RED: Colour.RED, "i": Level.HIGH, "f": Fraction(0.5), "l": Rows([Text("t")])}
        ),
    )
    assert (type(message.role), message.role) == (str, "user")
    assert (type(message.content), message.content) == (str, "hello")
    assert (type(message.id), message.id) == (str, "id")
    # repr shows the types too: a plain 3 is not <Level.HIGH: 3>.
    assert repr(message.metadata) == "{'red': 'red', 'i': 3, 'f': 0.5, 'l': ['t']}"
    assert {type(key) for key in message.metadata} == {str}
    assert [type(value) for value in message.metadata.values()] == [str, int, float, list]
    assert decode(encode(message), seq=1) == message


def test_times_are_stored_in_utc_to_the_millisecond() -> None:
    zone = timezone(timedelta(hours=-5, minutes=-30))
    made = Message.user("hello", created_at=datetime(2026, 5, 1, 20, 0, 0, 123_999, zone))
    assert made.created_at == datetime(2026, 5, 2, 1, 30, 0, 123_000, UTC)
    assert made.created_at.tzinfo is UTC
    assert decode(encode(made), seq=1).created_at == made.created_at


def test_a_message_is_created_now_by_default() -> None:
    before = now()
    made = Message.user("hello").created_at
    assert before <= made <= now()
    assert made.tzinfo is UTC
    assert made.microsecond % 1000 == 0


def test_ids_are_uuids_of_version_7_unique_and_in_the_order_they_were_made() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert ids == sorted(set(ids))
    assert {UUID(id).version for id in ids} == {7}
    assert Message.user("hello").id > ids[-1]


def test_the_seq_is_not_part_of_equality() -> None:
    message = Message.user("hello")
    assert message.seq is None
    assert message.with_seq(7) == message == message.with_seq(8)
    assert message.with_seq(7).seq == 7
    assert message.seq is None
    assert message != replace(message, id=new_id())


def test_there_is_a_constructor_for_each_role() -> None:
    assert Message.user("hi").role == "user"
    assert Message.system("Be kind.").role == "system"
    assert Message.assistant("Hello!").role == "assistant"
    assert Message.tool("12:00", tool_call_id="call_1").role == "tool"


def test_a_reply_may_consist_of_tool_calls_only() -> None:
    call: dict[str, Any] = {"id": "call_1", "name": "clock", "args": {"zone": None}}
    reply = Message.assistant(tool_calls=[call], extra={"model": "offline"})
    assert reply.content == ""
    assert reply.tool_calls == [call]
    assert reply.extra == {"model": "offline", "tool_calls": [call]}
    assert reply.tool_call_id is None
    assert decode(encode(reply), seq=1).tool_calls == [call]


def test_a_tool_result_names_the_call_it_answers() -> None:
    result = Message.tool("12:00", tool_call_id="call_1", extra={"status": "success"})
    assert result.tool_call_id == "call_1"
    assert result.extra == {"status": "success", "tool_call_id": "call_1"}
    assert result.tool_calls == []
    assert decode(encode(result), seq=1).tool_call_id == "call_1"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hello", "hello"),
        ("", ""),
        ([], ""),
        (["a", {"type": "text", "text": "b"}, {"type": "image", "url": "c"}, "d"], "abd"),
        ([{"type": "text", "text": None}, {"text": ["e"]}], ""),
    ],
)
def test_the_text_of_a_message_is_its_text_blocks_joined(content: Any, text: str) -> None:
    assert Message.user(content).text == text


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**2000) + 1, 2**2000 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=15,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.text() | st.lists(st.text() | OBJECTS, max_size=4),
    id=st.text(min_size=1, max_size=250),
    created_at=st.datetimes(
        min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.timezones()
    ),
    metadata=st.dictionaries(st.text(max_size=20), st.text(max_size=50) | st.integers(-9, 9)),
    extra=OBJECTS,
)


@given(MESSAGES)
@settings(max_examples=200)
def test_a_stored_message_comes_back_equal_and_of_the_same_types(message: Message) -> None:
    back = decode(encode(message), seq=5)
    assert back == message
    # repr distinguishes 1 from 1.0 and True, and -0.0 from 0.0; it also includes the seq.
    assert repr(back) == repr(message.with_seq(5))


ANYTHING = st.recursive(
    JSON
    | st.floats()
    | st.binary()
    | st.text(st.characters())  # lone surrogates too
    | st.tuples(st.integers())
    | st.sets(st.integers())
    | st.datetimes()
    | st.complex_numbers(),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.text() | st.integers() | st.none(), values, max_size=3)
    ),
    max_leaves=10,
)


@given(ANYTHING)
@settings(max_examples=300)
def test_every_value_that_is_accepted_comes_back(value: Any) -> None:
    fields = {"value": value}
    with suppress(InvalidMessage):
        message = Message.user([fields], metadata=fields, extra=fields)
        back = decode(encode(message).encode().decode(), seq=1)
        assert repr([back.content, back.metadata, back.extra]) == repr([[fields], fields, fields])


def test_messages_written_under_other_rules_can_still_be_read() -> None:
    body = {
        "role": "developer",  # unknown today
        "content": "hello",
        "id": "",
        "created_at": "2026-05-01T12:00:00Z",
        "metadata": {"large": "x" * (MAX_MESSAGE_METADATA_BYTES + 1), "deep": nested(150)},
        "reactions": ["a key that is unknown today"],
    }
    message = decode(json.dumps(body), seq=3)
    assert (message.role, message.content, message.id, message.seq) == ("developer", "hello", "", 3)
    assert message.created_at == NOON
    assert message.metadata == body["metadata"]
    assert message.extra == {}
    # It can also be copied to another conversation unchanged.
    assert decode(encode(message), seq=3) == message


def test_extra_must_be_a_dict_even_with_tool_calls() -> None:
    with pytest.raises(InvalidMessage, match="extra is of type list"):
        Message.assistant(extra=[1], tool_calls=[{"id": "call_1"}])  # type: ignore[arg-type]


def test_null_tool_calls_count_as_none() -> None:
    assert Message.assistant("Hi", extra={"tool_calls": None}).tool_calls == []


@pytest.mark.parametrize("year", [1, 9999])
def test_a_time_outside_the_years_of_utc_is_rejected(year: int) -> None:
    zone = timezone(timedelta(hours=1 if year == 1 else -1))
    edge = (
        datetime(year, 1, 1, tzinfo=zone)
        if year == 1
        else datetime(year, 12, 31, 23, 59, tzinfo=zone)
    )
    with pytest.raises(InvalidMessage, match="created_at"):
        Message.user("Hi", created_at=edge)


@dataclass(frozen=True, kw_only=True)
class Note(Message):
    colour: str = "yellow"


def test_the_seq_takes_no_part_in_comparisons_of_subclasses_either() -> None:
    note = Note(role="user", content="Milk")
    assert note == replace(note, seq=7)
    assert note != replace(note, colour="green")
