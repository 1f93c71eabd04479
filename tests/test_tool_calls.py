"""Tool calls are read in one form, whichever framework stored them."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatledger import Message
from chatledger.testing.store_contract.roundtrip import objects, values
from chatledger.testing.store_contract.settings import examples_of
from chatledger.tool_calls import (
    ParsedCall,
    ParsedResult,
    is_call,
    is_result,
    normalize_call,
    parse_call,
    parse_result,
)
from chatledger.values import Json

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
def test_a_call_in_any_known_form_is_normalized(form: str) -> None:
    before = deepcopy(FORMS[form])
    assert normalize_call(FORMS[form]) == CALL
    assert FORMS[form] == before


def test_a_normalized_call_stays_unchanged() -> None:
    assert normalize_call({**CALL, "index": 3}) == CALL
    assert normalize_call(dict(CALL)) == CALL


def openai(arguments: str) -> dict[str, Json]:
    return {"id": "call_1", "function": {"name": "clock", "arguments": arguments}}


def test_an_empty_text_of_arguments_means_no_arguments() -> None:
    assert normalize_call(openai("")) == {
        "id": "call_1",
        "name": "clock",
        "args": {},
        "type": "tool_call",
    }


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
def test_a_call_without_id_name_or_an_object_of_arguments_is_not_normalized(call: Any) -> None:
    assert normalize_call(call) is None


def test_a_malformed_call_is_parsed_as_far_as_possible() -> None:
    assert parse_call({"name": "clock", "args": "{", "id": "call_1"}) == ParsedCall(
        "call_1", "clock", None
    )
    assert parse_call({"name": "clock", "args": {}}) == ParsedCall(None, "clock", {})
    assert parse_call("clock()") == ParsedCall(None, None, None)


@given(
    values
    | st.sampled_from(list(FORMS.values())).flatmap(
        lambda form: st.builds(lambda more: form | more, objects)
    )
)
@examples_of(200)
def test_any_stored_value_is_normalized_or_is_not_a_call(call: Json) -> None:
    read = normalize_call(call)
    if read is not None:
        assert normalize_call(read) == read
        assert Message.assistant(tool_calls=[read]).tool_calls == [read]


@pytest.mark.parametrize(
    ("block", "read"),
    [
        (
            {"type": "tool_result", "tool_use_id": "call_1", "content": "12:00"},
            ParsedResult("call_1", "12:00", is_error=False),
        ),
        (
            {"type": "tool_result", "tool_use_id": "call_1", "is_error": True},
            ParsedResult("call_1", "", is_error=True),
        ),
        (
            {"toolResult": {"toolUseId": "call_1", "content": [{"text": "12:00"}, 7, {"json": 1}]}},
            ParsedResult("call_1", [{"text": "12:00"}, {"json": 1}], is_error=False),
        ),
        (
            {"toolResult": {"toolUseId": "call_1", "content": [], "status": "error"}},
            ParsedResult("call_1", [], is_error=True),
        ),
        ({"type": "tool_result", "content": "12:00"}, None),
        ({"type": "tool_result", "tool_use_id": ""}, None),
        ({"toolResult": None}, None),
        ({"toolResult": {"toolUseId": 7}}, None),
    ],
)
def test_a_result_block_is_parsed_with_the_id_of_its_call(
    block: dict[str, Json], read: ParsedResult | None
) -> None:
    assert is_result(block)
    assert not is_call(block)
    assert parse_result(block) == read


@pytest.mark.parametrize(
    "block", ["tool_use", {}, {"type": "text", "text": "toolUse"}, {"type": ["tool_use"]}]
)
def test_other_blocks_are_neither_calls_nor_results(block: Any) -> None:
    assert not is_call(block)
    assert not is_result(block)
    assert parse_result(block) is None


@pytest.mark.parametrize(
    "block", [FORMS["Anthropic"], FORMS["Bedrock"], CALL, {"type": "tool_use"}, {"toolUse": None}]
)
def test_a_call_block_is_recognized_even_if_malformed(block: Any) -> None:
    assert is_call(block)
    assert not is_result(block)
