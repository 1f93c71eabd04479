"""The script that made ``langgraph-threads.json`` with the first version that stored LangGraph's
checkpoints: ``python -m tests.data.make_langgraph_threads FILE``.

Do not run it again: the file is what a user of that version may have, and every later version must
read it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import MessagesState

from chatledger import Store, open_store
from chatledger.langgraph import ChatledgerSaver, records
from tests.langgraph.cipher import XorCipher
from tests.langgraph.graphs import DeltaState, chat_graph, config_of, fan_out_graph, question, reply

OPTIONS: dict[str, dict[str, Any]] = {
    "encrypted": {"serde": EncryptedSerializer(XorCipher())},
    "shown": {"messages": "conversation"},
}
"""The options of the saver of each thread that has any."""


def plain(value: Any) -> Any:
    """Return a value of a channel as JSON can hold it."""
    if isinstance(value, BaseMessage):
        return [value.type, value.content, value.id]
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def checkpoints(saver: ChatledgerSaver, thread_id: str) -> list[Any]:
    """Return all that a thread has."""
    found = []
    for each in saver.list(config_of(thread_id)):
        metadata: Any = dict(each.metadata)
        parent: Any = each.parent_config
        found.append(
            {
                "namespace": each.config["configurable"]["checkpoint_ns"],
                "id": each.checkpoint["id"],
                "parent": parent and parent["configurable"]["checkpoint_id"],
                "step": metadata["step"],
                "versions": plain(each.checkpoint["channel_versions"]),
                "messages": plain(each.checkpoint["channel_values"].get("messages")),
                "done": plain(each.checkpoint["channel_values"].get("done")),
                "writes": [channel for _, channel, _ in each.pending_writes or ()],
            }
        )
    return found


def state_of(saver: ChatledgerSaver, thread_id: str) -> Any:
    """Return the values of the newest checkpoint, for which LangGraph applies the deltas."""
    graph = chat_graph(saver, DeltaState if thread_id in ("delta", "pruned") else MessagesState)
    return plain(graph.get_state(config_of(thread_id)).values)


def write(store: Store) -> None:
    def talk(thread_id: str, state: type = MessagesState, turns: int = 3) -> ChatledgerSaver:
        saver = ChatledgerSaver(store, **OPTIONS.get(thread_id, {}))
        graph = chat_graph(saver, state, answer=lambda seen: reply(len(seen) // 2, 60))
        for turn in range(turns):
            graph.invoke({"messages": [question(turn, 60)]}, config_of(thread_id))
        return saver

    edited = talk("list")
    chat_graph(edited).update_state(
        config_of("list"), {"messages": [question(0, 40)]}, as_node="model"
    )
    talk("delta", DeltaState)
    talk("pruned", DeltaState).prune(["pruned"])
    talk("encrypted")
    talk("shown")
    fan_out_graph(ChatledgerSaver(store), 3).invoke({"done": []}, config_of("subgraphs"))
    whole, records.PIECE_CHARACTERS = records.PIECE_CHARACTERS, 100  # type: ignore[misc]
    talk("pieces")
    records.PIECE_CHARACTERS = whole  # type: ignore[misc]


def main(path: Path) -> None:
    made = {}
    with open_store("sqlite:///:memory:") as store:
        write(store)
        for name in ("list", "delta", "pruned", "encrypted", "shown", "subgraphs", "pieces"):
            saver = ChatledgerSaver(store, **OPTIONS.get(name, {}))
            messages = store.iter_messages(f"chatledger:langgraph:{name}")
            made[name] = {
                "messages": [[message.role, message.content] for message in messages],
                "checkpoints": checkpoints(saver, name),
                "state": state_of(saver, name),
            }
        made["shown"]["shown_since"] = store.get("shown").created_at.isoformat()
    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
