"""Histories that the version before archives continued in segments; see ``tests/data``."""

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from chatledger import copy, open_store
from chatledger.langchain import LangChainTable
from tests.langchain.histories import Histories, Item, lose_responses

DATA = Path(__file__).parents[1] / "data" / "langchain-segments.json"
ITEMS: dict[str, list[Item]] = json.loads(DATA.read_text("utf-8"))
NINE = [f"{n}" for n in range(9)]
MESSAGES = {
    "one": ["0", "1"],
    "long": NINE,
    "forever": NINE,  # for 30 years
    "expired": [],
    "both": ["1", "2", "3", "0", "4", "5", "6", "7", "8"],  # the old class added 0
    "cleared": [],
    "begun": ["new"],
    "closed": NINE,
}


@pytest.fixture
def written(histories: Histories) -> Histories:
    """A table with the items that the earlier version wrote."""
    for item in ITEMS[" ".join(histories.key_names)]:
        histories.client.put_item(TableName=histories.table, Item=item)
    return histories


def ids(histories: Histories, session_id: str, **options: Any) -> list[str | None]:
    return [message.id for message in histories.open(session_id, **options).messages]


def items_of(histories: Histories, session_id: str) -> list[Item]:
    """Return the first item of the history, its archives, and its segments."""
    first = histories.key(session_id)
    key = {name: {"S": value} for name, value in first.items()}
    return [
        item
        for item in histories.items()
        if item.get("chatledger_of", {}).get("M") == key or key.items() <= item.items()
    ]


@pytest.mark.parametrize("session_id", MESSAGES)
def test_a_segmented_history_is_read(written: Histories, session_id: str) -> None:
    before = written.items()
    assert ids(written, session_id) == MESSAGES[session_id]
    if session_id not in ("cleared", "begun"):  # an interrupted clearing is finished
        assert written.items() == before
    assert ids(written, session_id, consistent=False) == MESSAGES[session_id]


@pytest.mark.parametrize("options", [{}, {"first_item_bytes": 1_024}, {"ttl": 10**9}], ids=str)
@pytest.mark.parametrize("session_id", MESSAGES)
def test_a_segmented_history_is_continued(
    written: Histories, session_id: str, options: dict[str, Any], requests: list[str]
) -> None:
    expected: list[str | None] = [*MESSAGES[session_id]]
    for n in range(6):
        message = HumanMessage("x" * 300, id=f"more {n}")
        with lose_responses(written, "TransactWriteItems"):
            written.open(session_id, **options).add_messages([message])
        expected.append(message.id)
        assert ids(written, session_id) == expected
    requests.clear()
    written.open(session_id).add_messages([HumanMessage("x", id="last")])
    assert requests == ["UpdateItem"]
    seen = [message.id for message in written.open_old(session_id).messages]
    assert [*expected, "last"][-len(seen) :] == seen
    written.open(session_id).clear()
    assert items_of(written, session_id) == []


@pytest.mark.parametrize("session_id", MESSAGES)
def test_a_segmented_history_is_cleared(written: Histories, session_id: str) -> None:
    others = len(written.items()) - len(items_of(written, session_id))
    written.open(session_id).clear()
    assert items_of(written, session_id) == []
    assert len(written.items()) == others


def test_a_segmented_history_keeps_its_expiry(written: Histories) -> None:
    segments = [item for item in items_of(written, "forever") if "chatledger_of" in item]
    before = [segment["chatledger_expires"]["N"] for segment in segments]
    written.open("forever").add_messages([HumanMessage("without a TTL")])
    item = written.item("forever")
    assert item is not None
    assert item["expireAt"]["N"] in before
    assert all(
        int(each["expireAt"]["N"]) >= int(item["expireAt"]["N"])
        for each in items_of(written, "forever")
    )


def test_segmented_histories_are_copied_to_a_store(written: Histories, tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/target.db") as store:
        table = LangChainTable(
            written.table,
            client=written.client,
            conversation_id=lambda key: str([*key.values()][-1]).removeprefix("session#"),
        )
        copied = copy(table, store)
        assert (copied.conversations, table.expired, copied.problems) == (6, 1, [])
        for session_id, expected in MESSAGES.items():
            if expected:
                found = store.page(session_id).messages
                assert [message.id for message in found] == expected
