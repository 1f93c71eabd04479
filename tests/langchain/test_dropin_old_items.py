"""Items of the old class, and both classes on one table as during a rollout."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage

from tests.langchain.histories import Histories
from tests.langchain.test_dropin import HELLO, HI, REPLY

SAMPLE = Path(__file__).parents[1] / "data" / "langchain_items.json"
ITEMS: list[dict[str, Any]] = json.loads(SAMPLE.read_text("utf-8"))


def put(histories: Histories, sample: dict[str, Any]) -> str:
    session_id: str = sample["item"]["SessionId"]["S"]
    item = {name: value for name, value in sample["item"].items() if name != "SessionId"}
    histories.put(item, session_id)
    return session_id


def plain(messages: list[BaseMessage]) -> list[dict[str, Any]]:
    """Return the fields of the messages, with Decimals as ints and floats."""

    def number(value: Any) -> Any:
        match value:
            case dict():
                return {name: number(each) for name, each in value.items()}
            case list():
                return [number(each) for each in value]
            case Decimal():
                return int(value) if value == int(value) else float(value)
        return value

    return [number(message.model_dump()) for message in messages]


def decimals(value: Any) -> bool:
    match value:
        case dict():
            return any(map(decimals, value.values()))
        case list() | tuple():
            return any(map(decimals, value))
    return isinstance(value, Decimal)


@pytest.mark.parametrize("sample", ITEMS, ids=lambda sample: str(sample["about"]))
def test_items_of_the_old_class_are_read_and_appended_to(
    histories: Histories, sample: dict[str, Any]
) -> None:
    session_id = put(histories, sample)
    history = histories.open(session_id)
    found = history.messages
    assert [message.type for message in found] == sample["types"]
    assert [message.content for message in found] == sample["contents"]
    assert plain(found) == plain(histories.open_old(session_id).messages)
    assert not decimals([message.model_dump() for message in found])
    history.add_messages([HI, HELLO])
    assert history.messages == [*found, HI, HELLO]
    assert plain(histories.open_old(session_id).messages) == plain([*found, HI, HELLO])


def test_numbers_written_by_the_old_class_are_read_as_ints_and_floats(histories: Histories) -> None:
    _, called, result, _ = histories.open(put(histories, ITEMS[1])).messages
    assert isinstance(called, AIMessage)
    assert repr(called.tool_calls[0]["args"]["a"]) == "1.5"
    assert repr(called.tool_calls[0]["args"]["b"]) == "2"
    assert repr(called.response_metadata["temperature"]) == "0.7"
    assert repr(called.response_metadata["logprob"]) == "-2.5e-06"
    assert called.usage_metadata is not None
    assert repr(called.usage_metadata["total_tokens"]) == "105"
    assert repr(result.artifact) == "{'exact': 3.25}"  # type: ignore[attr-defined]


def test_chunks_written_by_the_old_class_are_read_as_chunks(histories: Histories) -> None:
    assert type(histories.open(put(histories, ITEMS[2])).messages[2]) is AIMessageChunk


def test_both_classes_can_use_a_history_alternately(histories: Histories) -> None:
    old, new = histories.open_old(ttl=600), histories.open(ttl=600)
    new.add_messages([HI, REPLY])
    old.add_messages([HELLO])
    new.add_messages([HI])
    old.add_messages([HumanMessage("Bye")])
    messages = [HI, REPLY, HELLO, HI, HumanMessage("Bye")]
    assert new.messages == messages
    assert plain(old.messages) == plain(list(messages))
    old.clear()
    assert new.messages == []
    new.add_messages([HELLO])
    assert old.messages == [HELLO]
    new.clear()
    assert old.messages == []


def test_the_old_class_reads_all_messages_while_they_fit_one_item(hash_only: Histories) -> None:
    messages = [HumanMessage(f"{n}".ljust(10_000)) for n in range(39)]  # 392 of 400 KB
    for message in messages:
        hash_only.open().add_messages([message])
    assert len(hash_only.items()) == 1
    assert hash_only.open_old().messages == messages
