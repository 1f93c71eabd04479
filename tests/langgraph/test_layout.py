"""Threads that an earlier version has stored can be read and continued."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from chatledger import Conversation, Message, Store, open_store
from chatledger.errors import StoreMismatch
from chatledger.langgraph import ChatledgerSaver
from chatledger.langgraph.records import encode_record, leaf_serde
from tests.data.make_langgraph_threads import OPTIONS, checkpoints, state_of
from tests.langgraph.graphs import DeltaState, chat_graph, config_of, question

FILE = Path(__file__).parents[1] / "data" / "langgraph-threads.json"
THREADS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/chatledger.db") as store:
        yield store


def restore_conversation(store: Store, id: str, expected: Any) -> None:
    """Restore the conversation that shows a thread's messages."""
    began = datetime.fromisoformat(expected["shown_since"])
    messages = [
        Message(role="user" if type == "human" else "assistant", content=content, id=id, seq=seq)
        for seq, (type, content, id) in enumerate(expected["state"]["messages"], start=1)
    ]
    conversation = Conversation(
        id=id,
        owner=None,
        created_at=began,
        updated_at=began,
        message_count=len(messages),
        revision=len(messages),
        expires_at=None,
    )
    store.restore(conversation, messages, revision=0)


@pytest.mark.parametrize("name", THREADS)
def test_threads_of_the_first_version_are_read_and_continued(store: Store, name: str) -> None:
    expected = THREADS[name]
    records = [Message(role=role, content=content) for role, content in expected["messages"]]
    store.append(f"chatledger:langgraph:{name}", records)
    if "shown_since" in expected:
        restore_conversation(store, name, expected)
    saver = ChatledgerSaver(store, **OPTIONS.get(name, {}))
    assert checkpoints(saver, name) == expected["checkpoints"]
    assert state_of(saver, name) == expected["state"]
    if expected["state"].get("messages"):
        graph = chat_graph(saver, *([DeltaState] if name in ("delta", "pruned") else []))
        graph.invoke({"messages": [question(9)]}, config_of(name))
        again = state_of(ChatledgerSaver(store, **OPTIONS.get(name, {})), name)
        assert again["messages"][:-2] == expected["state"]["messages"]
        if "shown_since" in expected:
            assert store.get(name).message_count == len(again["messages"])


def test_a_record_of_a_later_version_is_not_passed_over(store: Store) -> None:
    saver = ChatledgerSaver(store)
    store.append("chatledger:langgraph:new", encode_record([3, "new"], leaf_serde(saver.serde)))
    with pytest.raises(StoreMismatch, match="upgrade"):
        saver.get_tuple(config_of("new"))
