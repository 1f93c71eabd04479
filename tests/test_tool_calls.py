"""Tool calls: whichever framework stored them, they are read in one form."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatledger import Message
from chatledger.json_values import Json
from chatledger.testing.store_contract.roundtrip import objects, values
from chatledger.testing.store_contract.settings import examples_of
from chatledger.tool_calls import Call, Result, is_call, is_result, normal, parts, result

CALL: dict[str, Json] = {"id": "call_1", "name": "clock", "args": {"zone": 1}, "type": "tool_call"}

FORMS: dict[str, dict[str, Json]] = {
    "LangChain": {"name": "clock", "args": {"zone": 1}, "id": "call_1"},
    "Anthropic": {"type": "tool_use", "id": "call_1", "name": "clock", "input": {"zone": 1}},
    "Bedrock": {"toolUse": {"toolUseId": "call_1", "name": "clock", "input": {"zone": 1}}},
    "OpenAI": {
        "id": "call_1",
        "type": "function",
        "function": {"name": "clock", "arguments": ' {"zone": 1}\n'},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_a_call_in_any_of_the_known_forms_is_read_in_one(form: str) -> None:
    before = deepcopy(FORMS[form])
    assert normal(FORMS[form]) == CALL
    assert FORMS[form] == before


def test_a_call_in_the_one_form_stays_as_it_is() -> None:
    assert normal({**CALL, "index": 3}) == CALL
    assert normal(dict(CALL)) == CALL


def openai(arguments: str) -> dict[str, Json]:
    return {"id": "call_1", "function": {"name": "clock", "arguments": arguments}}


def test_no_text_of_arguments_calls_with_none() -> None:
    assert normal(openai("")) == {"id": "call_1", "name": "clock", "args": {}, "type": "tool_call"}


@pytest.mark.parametrize(
    "call",
    [
        None,
        7,
        "clock()",
        [],
        [CALL],
        {},
        {"name": "clock", "args": {}},
        {"name": "clock", "args": {}, "id": ""},
        {"name": "clock", "args": {}, "id": 1},
        {"name": "", "args": {}, "id": "call_1"},
        {"name": None, "args": {}, "id": "call_1"},
        {"args": {}, "id": "call_1"},
        {"name": "clock", "id": "call_1"},
        {"name": "clock", "args": None, "id": "call_1"},
        {"name": "clock", "args": [], "id": "call_1"},
        {"toolUse": None},
        {"toolUse": {"toolUseId": "call_1", "input": {}}},
        {"function": "clock", "id": "call_1"},
        {"function": {"name": "clock", "arguments": "{}"}},
        openai("[]"),
        openai("{"),
        openai('{"a": NaN}'),
        openai('{"a": 1e999}'),
        openai('{"a": "\\ud800"}'),
        openai('{"a": ' + "9" * 5_000 + "}"),
        openai('{"a":' * 101 + "1" + "}" * 101),
        openai("[" * 100_000),
    ],
    ids=lambda call: repr(call)[:60],
)
def test_what_lacks_id_name_or_an_object_of_arguments_is_no_call(call: Any) -> None:
    assert normal(call) is None


def test_a_call_that_lacks_something_says_what_it_has() -> None:
    assert parts({"name": "clock", "args": "{", "id": "call_1"}) == Call("call_1", "clock", None)
    assert parts({"name": "clock", "args": {}}) == Call(None, "clock", {})
    assert parts("clock()") == Call(None, None, None)


@given(
    values
    | st.sampled_from(list(FORMS.values())).flatmap(
        lambda form: st.builds(lambda more: form | more, objects)
    )
)
@examples_of(200)
def test_whatever_was_stored_is_read_or_is_no_call(call: Json) -> None:
    read = normal(call)
    if read is not None:
        assert normal(read) == read
        assert Message.assistant(tool_calls=[read]).tool_calls == [read]


@pytest.mark.parametrize(
    ("block", "read"),
    [
        (
            {"type": "tool_result", "tool_use_id": "call_1", "content": "12:00"},
            Result("call_1", "12:00", failed=False),
        ),
        (
            {"type": "tool_result", "tool_use_id": "call_1", "is_error": True},
            Result("call_1", "", failed=True),
        ),
        (
            {"toolResult": {"toolUseId": "call_1", "content": [{"text": "12:00"}, 7, {"json": 1}]}},
            Result("call_1", [{"text": "12:00"}, {"json": 1}], failed=False),
        ),
        (
            {"toolResult": {"toolUseId": "call_1", "content": [], "status": "error"}},
            Result("call_1", [], failed=True),
        ),
        ({"type": "tool_result", "content": "12:00"}, None),
        ({"type": "tool_result", "tool_use_id": ""}, None),
        ({"toolResult": None}, None),
        ({"toolResult": {"toolUseId": 7}}, None),
    ],
)
def test_a_block_with_a_result_says_of_which_call_it_is(
    block: dict[str, Json], read: Result | None
) -> None:
    assert is_result(block)
    assert not is_call(block)
    assert result(block) == read


@pytest.mark.parametrize(
    "block", ["tool_use", {}, {"type": "text", "text": "toolUse"}, {"type": ["tool_use"]}]
)
def test_other_blocks_are_neither_call_nor_result(block: Any) -> None:
    assert not is_call(block)
    assert not is_result(block)
    assert result(block) is None


@pytest.mark.parametrize(
    "block", [FORMS["Anthropic"], FORMS["Bedrock"], CALL, {"type": "tool_use"}, {"toolUse": None}]
)
def test_a_block_with_a_call_is_told_well_formed_or_not(block: Any) -> None:
    assert is_call(block)
    assert not is_result(block)
