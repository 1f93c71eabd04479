"""Tests of ``copy_threads``, with threads that ``DynamoDBSaver`` has written on DynamoDB Local."""

import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, cast

import boto3
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

from chatledger import Copied, Message, Problem, Progress, Store, open_async_store, open_store
from chatledger.errors import InvalidArgument, NotFound, TableMissing
from chatledger.langgraph import ChatledgerSaver, DynamoDBSaverTable, copy_threads
from chatledger.testing.dynamodb_local import REGION, DynamoDBLocal
from tests.langgraph.graphs import DeltaState, Graph, chat_graph, config_of, question
from tests.langgraph.peers import dynamodb_saver, new_checkpoint_table
from tests.serverless.moto_server import simulated_aws
from tests.stores.dynamodb.tables import items_of as chatledger_items
from tests.stores.dynamodb.tables import new_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Saver = BaseCheckpointSaver[Any]


class Peer:
    """A table of ``DynamoDBSaver``, and savers of it."""

    def __init__(self, client: "DynamoDBClient", endpoint: str) -> None:
        self.client = client
        self.table = new_checkpoint_table(client)
        self._endpoint = endpoint

    def saver(self, **options: Any) -> Saver:
        return dynamodb_saver(
            self.table, region_name=REGION, endpoint_url=self._endpoint, **options
        )

    def source(self, **options: Any) -> DynamoDBSaverTable:
        return DynamoDBSaverTable(self.table, client=self.client, **options)

    def items(self) -> list[Any]:
        return sorted(self.client.scan(TableName=self.table)["Items"], key=repr)


@pytest.fixture
def peer(dynamodb_local: DynamoDBLocal, client: "DynamoDBClient", aws_environment: None) -> Any:
    peer = Peer(client, dynamodb_local.endpoint)
    yield peer
    client.delete_table(TableName=peer.table)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/target.db") as store:
        yield store


def run_turns(graph: Graph, thread_id: str, turns: range) -> None:
    for turn in turns:
        graph.invoke({"messages": [question(turn)]}, config_of(thread_id))


def contents(saver: Saver, thread_id: str) -> list[Any]:
    """Return every checkpoint of a thread, as both ``list`` and ``get_tuple`` return it."""
    found = sorted(saver.list(config_of(thread_id)), key=lambda each: each.checkpoint["id"])
    assert [content(saver.get_tuple(each.config)) for each in found] == [*map(content, found)]
    return [content(each) for each in found]


def content(found: CheckpointTuple | None) -> Any:
    assert found is not None
    # DynamoDBSaver returns the writes in the order of their keys, as text.
    writes = sorted(found.pending_writes or (), key=repr)
    return found.config, found.checkpoint, found.metadata, found.parent_config, writes


def messages_of(graph: Graph, thread_id: str) -> list[Any]:
    state = graph.get_state(config_of(thread_id))
    return [message.text for message in state.values["messages"]]


@pytest.mark.parametrize("state", [MessagesState, DeltaState], ids=["list", "delta"])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_a_thread_is_copied_with_every_checkpoint_and_goes_on_here(
    peer: Peer, store: Store, state: type, compressed: bool
) -> None:
    old = peer.saver(enable_checkpoint_compression=compressed)
    thread_id = f"trip-{peer.table}"
    run_turns(chat_graph(old, state), thread_id, range(3))
    before = peer.items()
    saver = ChatledgerSaver(store)
    copied = copy_threads(peer.source(), saver)
    checkpoints = contents(old, thread_id)
    assert copied == Copied(conversations=1, messages=len(checkpoints))
    assert contents(saver, thread_id) == checkpoints
    assert contents(ChatledgerSaver(store), thread_id) == checkpoints
    assert peer.items() == before
    for each in (old, ChatledgerSaver(store)):
        run_turns(chat_graph(each, state), thread_id, range(3, 5))
    here, there = chat_graph(ChatledgerSaver(store), state), chat_graph(old, state)
    assert messages_of(here, thread_id) == messages_of(there, thread_id)
    assert len(messages_of(here, thread_id)) == 10


def asking_graph(saver: Saver | None, namespaced: bool = False) -> Graph:
    """Return a graph that asks for approval, within a subgraph or not."""

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [HumanMessage(f"approved: {interrupt('Approve?')}", id="approval")]}

    def other(state: MessagesState) -> dict[str, Any]:
        return {"messages": [HumanMessage("other", id="other")]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_node("other", other)
    builder.add_edge(START, "ask")
    builder.add_edge(START, "other")
    if not namespaced:
        return builder.compile(checkpointer=saver)
    outer = StateGraph(MessagesState)
    outer.add_node("inner", builder.compile())
    outer.add_edge(START, "inner")
    return outer.compile(checkpointer=saver)


@pytest.mark.parametrize("namespaced", [False, True], ids=["graph", "subgraph"])
def test_an_interrupted_thread_resumes_here(peer: Peer, target: Store, namespaced: bool) -> None:
    old, saver = peer.saver(), ChatledgerSaver(target)
    asked = asking_graph(old, namespaced).invoke({"messages": [question(0)]}, config_of("1"))
    assert [each.value for each in asked["__interrupt__"]] == ["Approve?"]
    assert copy_threads(peer.source(), saver).problems == []
    assert contents(saver, "1") == contents(old, "1")
    results = [
        asking_graph(each, namespaced).invoke(Command(resume="yes"), config_of("1"))
        for each in (old, ChatledgerSaver(target))
    ]
    assert results[0] == results[1]
    assert [message.text for message in results[1]["messages"]][1:] == ["approved: yes", "other"]


def test_branches_and_sends_are_copied(peer: Peer, target: Store) -> None:
    class State(TypedDict):
        found: Annotated[list[str], lambda one, other: [*one, *other]]

    def fan_out(state: State) -> list[Send]:
        return [Send("work", {"found": [f"{n}"]}) for n in range(12)]

    def work(state: State) -> State:
        return {"found": [f"{state['found'][0]} done"]}

    def graph(saver: Saver) -> Graph:
        builder = StateGraph(State)
        builder.add_node("work", work)
        builder.add_conditional_edges(START, fan_out, ["work"])
        builder.add_edge("work", END)
        return builder.compile(checkpointer=saver)

    old = peer.saver()
    graph(old).invoke({"found": ["a"]}, config_of("1"))
    first = list(graph(old).get_state_history(config_of("1")))[-1]
    graph(old).invoke(None, first.config)
    graph(old).update_state(first.config, {"found": ["b"]}, as_node="work")
    assert copy_threads(peer.source(), ChatledgerSaver(target, rivals="refuse")).problems == []
    assert contents(ChatledgerSaver(target), "1") == contents(old, "1")


def test_a_second_copy_adds_only_what_is_new(peer: Peer, target: Store) -> None:
    old, saver = peer.saver(), ChatledgerSaver(target)
    for thread_id in ("1", "2"):
        run_turns(chat_graph(old), thread_id, range(2))
    assert copy_threads(peer.source(), saver).messages == 12
    revision = target.get("chatledger:langgraph:1").revision
    run_turns(chat_graph(old), "2", range(2, 3))
    assert copy_threads(peer.source(), saver) == Copied(conversations=2, messages=3)
    assert target.get("chatledger:langgraph:1").revision == revision
    assert contents(saver, "2") == contents(old, "2")


def test_writes_that_came_after_the_first_copy_are_added(peer: Peer, target: Store) -> None:
    old, saver = peer.saver(), ChatledgerSaver(target)
    asking_graph(old).invoke({"messages": [question(0)]}, config_of("1"))
    newest = old.get_tuple(config_of("1"))
    assert newest is not None
    copy_threads(peer.source(), saver)
    old.put_writes(newest.config, [("messages", [question(1)])], "0" * 32, "~late")
    assert copy_threads(peer.source(), saver) == Copied(conversations=1)
    assert contents(saver, "1") == contents(old, "1")


def interviewing_graph(saver: Saver) -> Graph:
    """Return a graph that asks three questions in one task, which stays at one checkpoint."""

    def ask(state: MessagesState) -> dict[str, Any]:
        answers = [interrupt(f"{name}?") for name in ("name", "age", "city")]
        return {"messages": [HumanMessage(f"{answers}", id="answers")]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    return builder.compile(checkpointer=saver)


def test_answers_that_came_after_the_first_copy_are_added(peer: Peer, target: Store) -> None:
    old, saver = peer.saver(), ChatledgerSaver(target)
    interviewing_graph(old).invoke({"messages": [question(0)]}, config_of("1"))
    assert copy_threads(peer.source(), saver).problems == []
    for answer in ("Bob", ["Bern", "Basel"], "Bob"):
        interviewing_graph(old).invoke(Command(resume=answer), config_of("1"))
        assert copy_threads(peer.source(), saver).problems == []
        assert contents(saver, "1") == contents(old, "1")


@pytest.mark.parametrize("answers_there", [0, 1])
def test_answers_that_were_given_here_stay(peer: Peer, target: Store, answers_there: int) -> None:
    old, saver = peer.saver(), ChatledgerSaver(target)
    interviewing_graph(old).invoke({"messages": [question(0)]}, config_of("1"))
    copy_threads(peer.source(), saver)
    for each, answers in ((old, answers_there), (saver, 2)):
        for _ in range(answers):
            interviewing_graph(each).invoke(Command(resume="yes"), config_of("1"))
    before = contents(saver, "1")
    [problem] = copy_threads(peer.source(), saver).problems
    assert "differs" in problem.why
    assert contents(saver, "1") == before


def test_a_thread_is_not_added_to_another_one_with_its_id(peer: Peer, target: Store) -> None:
    old, saver = peer.saver(), ChatledgerSaver(target)
    run_turns(chat_graph(saver), "1", range(1))
    run_turns(chat_graph(old), "1", range(1, 2))
    before = contents(saver, "1")
    copied = copy_threads(peer.source(), saver)
    assert copied == Copied(problems=[Problem("1", "In the target another thread has its id.")])
    assert contents(saver, "1") == before


def test_a_nul_in_metadata_is_removed_as_it_would_be_here(peer: Peer, target: Store) -> None:
    old, saver = peer.saver(), ChatledgerSaver(target)
    run = {**config_of("1"), "metadata": {"note": "a\0b"}}
    chat_graph(old).invoke({"messages": [question(0)]}, cast(Any, run))
    for _ in range(2):
        assert copy_threads(peer.source(), saver).problems == []
    assert {found.metadata["note"] for found in saver.list(config_of("1"))} == {"ab"}  # type: ignore[typeddict-item]


def test_a_thread_that_was_continued_here_is_left_alone(peer: Peer, target: Store) -> None:
    old, saver = peer.saver(), ChatledgerSaver(target)
    run_turns(chat_graph(old), "1", range(1))
    copy_threads(peer.source(), saver)
    for each in (saver, old):
        run_turns(chat_graph(each), "1", range(1, 2))
    before = contents(saver, "1")
    copied = copy_threads(peer.source(), saver)
    assert (copied.conversations, copied.messages) == (0, 0)
    [problem] = copied.problems
    assert problem.conversation_id == "1"
    assert "continued" in problem.why
    assert contents(saver, "1") == before


def test_an_interrupted_copy_continues_where_it_was(peer: Peer, target: Store) -> None:
    old, saver = peer.saver(), ChatledgerSaver(target)
    run_turns(chat_graph(old), "1", range(3))
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 4:
            raise KeyError("stop")

    with pytest.raises(KeyError):
        copy_threads(peer.source(), saver, progress=stop)
    assert seen[-1] == Progress(conversations=0, messages=4, conversation_id="1")
    again = copy_threads(peer.source(), ChatledgerSaver(target))
    assert again == Copied(conversations=1, messages=9 - 4)
    assert contents(ChatledgerSaver(target), "1") == contents(old, "1")


def test_expired_threads_are_left_out_and_expired_parents_are_not_missed(
    peer: Peer, target: Store
) -> None:
    for thread_id, seconds in (("expired", 3600), ("live", 3600)):
        run_turns(chat_graph(peer.saver(ttl_seconds=seconds)), thread_id, range(2))
    items = [item for item in peer.items() if item["PK"]["S"] == "CHECKPOINT_expired"]
    for item in items:
        item["ttl"] = {"N": str(int(time.time()) - 5)}
        peer.client.put_item(TableName=peer.table, Item=item)
    # DynamoDB has deleted the first checkpoint, and the values of the second one.
    first, second, third, *_ = contents(peer.saver(), "live")
    keys = [("CHECKPOINT_live", f"#{first[1]['id']}"), (f"CHUNK_live##{second[1]['id']}", "CHUNK")]
    for key in keys:
        parts = {name: {"S": part} for name, part in zip(("PK", "SK"), key, strict=True)}
        peer.client.delete_item(TableName=peer.table, Key=parts)
    source, saver = peer.source(), ChatledgerSaver(target)
    assert copy_threads(source, saver) == Copied(conversations=1, messages=4)
    assert source.expired == 1
    assert saver.get_tuple(config_of("expired")) is None
    found = contents(saver, "live")
    assert found[0] == (*third[:3], None, third[4])
    assert found[1:] == contents(peer.saver(), "live")[1:]


def test_values_in_s3_are_copied_with_a_client_and_reported_without(
    peer: Peer, target: Store
) -> None:
    with simulated_aws() as endpoint:
        s3 = boto3.client("s3", endpoint_url=endpoint, region_name=REGION)
        s3.create_bucket(Bucket="bucket")
        offload = {"bucket_name": "bucket", "endpoint_url": endpoint, "key_prefix": "/app/"}
        old, saver = peer.saver(s3_offload_config=offload), ChatledgerSaver(target)
        chat_graph(old).invoke({"messages": [question(0, 400_000)]}, config_of("long"))
        run_turns(chat_graph(old), "short", range(1))
        copied = copy_threads(peer.source(), saver)
        assert copied.conversations == 1
        [problem] = copied.problems
        assert problem.conversation_id == "long"
        assert "s3=" in problem.why
        assert saver.get_tuple(config_of("long")) is None
        with_s3 = peer.source(s3=s3, bucket="bucket", key_prefix="app")
        assert copy_threads(with_s3, saver).problems == []
        assert contents(saver, "long") == contents(old, "long")


def test_values_are_copied_where_their_class_cannot_be_imported(
    peer: Peer, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Order(BaseModel):
        number: int

    Order.__module__, Order.__qualname__ = "application", "Order"
    application = ModuleType("application")
    application.__dict__["Order"] = Order
    monkeypatch.setitem(sys.modules, "application", application)
    old, saver = peer.saver(), ChatledgerSaver(target)

    class State(TypedDict):
        order: Any

    builder = StateGraph(State)
    builder.add_node("buy", lambda state: {"order": Order(number=state["order"].number + 1)})
    builder.add_edge(START, "buy")
    builder.compile(checkpointer=old).invoke({"order": Order(number=1)}, config_of("1"))
    monkeypatch.delitem(sys.modules, "application")
    assert copy_threads(peer.source(), saver).problems == []
    monkeypatch.setitem(sys.modules, "application", application)
    newest = saver.get_tuple(config_of("1"))
    assert newest is not None
    assert newest.checkpoint["channel_values"]["order"] == Order(number=2)
    assert contents(saver, "1") == contents(old, "1")


def test_what_checkpoints_have_in_common_is_stored_once(
    peer: Peer, client: "DynamoDBClient"
) -> None:
    old, table = peer.saver(), new_table(client)
    run_turns(chat_graph(old), "1", range(10))
    endpoint = client.meta.endpoint_url
    with open_store(f"dynamodb://{table}?region={REGION}&endpoint={endpoint}") as store:
        copy_threads(peer.source(), ChatledgerSaver(store))
    here, there = len(repr(chatledger_items(client, table))), len(repr(peer.items()))
    client.delete_table(TableName=table)
    assert here < there / 5


def test_threads_get_their_owners(peer: Peer, target: Store) -> None:
    run_turns(chat_graph(peer.saver()), "bob:1", range(1))
    saver = ChatledgerSaver(target, owner_key="user_id")
    [problem] = copy_threads(peer.source(), saver).problems
    assert "owner=" in problem.why
    source = peer.source(owner=lambda thread_id: thread_id.partition(":")[0])
    assert copy_threads(source, saver).problems == []
    assert copy_threads(source, saver) == Copied(conversations=1)
    assert saver.get_tuple(config_of("bob:1", user_id="bob")) is not None
    assert saver.get_tuple(config_of("bob:1", user_id="eve")) is None
    stolen = copy_threads(peer.source(owner=lambda _: "eve"), saver)
    assert stolen.problems == [Problem("bob:1", "In the target it belongs to another owner.")]


def test_a_conversation_shows_the_messages_of_a_copied_thread(peer: Peer, target: Store) -> None:
    run_turns(chat_graph(peer.saver()), "1", range(2))
    saver = ChatledgerSaver(target, messages="conversation")
    assert copy_threads(peer.source(), saver).problems == []
    for turn in (2, 3):
        shown = [message.text for message in target.page("1").messages]
        assert shown == messages_of(chat_graph(saver), "1")
        assert len(shown) == 2 * turn
        run_turns(chat_graph(saver), "1", range(turn, turn + 1))


def test_a_thread_does_not_take_the_id_of_another_owners_conversation(
    peer: Peer, target: Store
) -> None:
    run_turns(chat_graph(peer.saver()), "1", range(1))
    target.append("1", [Message.user("Hi, I'm Eve")], owner="eve")
    saver = ChatledgerSaver(target, messages="conversation", owner_key="user_id")
    copied = copy_threads(peer.source(owner=lambda _: "bob"), saver)
    assert copied == Copied(problems=[Problem("1", "In the target it belongs to another owner.")])
    chat_graph(saver).invoke({"messages": [question(1)]}, config_of("1", user_id="eve"))
    assert target.get("1", owner="eve").message_count == 3


def test_a_thread_whose_conversation_was_deleted_here_is_reported(
    peer: Peer, target: Store
) -> None:
    run_turns(chat_graph(peer.saver()), "1", range(1))
    saver = ChatledgerSaver(target, messages="conversation")
    copy_threads(peer.source(), saver)
    target.delete("1")
    copied = copy_threads(peer.source(), saver)
    assert copied == Copied(problems=[Problem("1", "In the target its conversation was deleted.")])
    with pytest.raises(NotFound):
        target.get("1")


@pytest.mark.parametrize("kind", ["checkpoint", "write"])
def test_a_thread_with_an_item_of_something_else_is_reported(
    peer: Peer, target: Store, kind: str
) -> None:
    for thread_id in ("1", "2"):
        run_turns(chat_graph(peer.saver()), thread_id, range(1))
    odd = "CHECKPOINT_2"
    if kind == "write":
        [*_, last] = (item for item in peer.items() if item["PK"]["S"].startswith("WRITES_2#"))
        odd = last["PK"]["S"]
    key = {"PK": {"S": odd}, "SK": {"S": "~"}}
    peer.client.put_item(TableName=peer.table, Item=key | {"user": {"S": "Bob"}})
    saver = ChatledgerSaver(target)
    copied = copy_threads(peer.source(), saver)
    assert copied.conversations == 1
    assert copied.problems == [Problem("2", "It has items that DynamoDBSaver has not written.")]
    assert saver.get_tuple(config_of("2")) is None or kind == "write"


def test_an_encrypted_saver_encrypts_what_is_copied(peer: Peer, target: Store) -> None:
    class Cipher(CipherProtocol):
        def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
            salt = time.time_ns() % 255 + 1
            return "xor", bytes([salt, *(byte ^ salt for byte in plaintext)])

        def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
            return bytes(byte ^ ciphertext[0] for byte in ciphertext[1:])

    old = peer.saver()
    run_turns(chat_graph(old), "1", range(2))
    saver = ChatledgerSaver(target, serde=EncryptedSerializer(Cipher()))
    assert copy_threads(peer.source(), saver) == Copied(conversations=1, messages=6)
    assert copy_threads(peer.source(), saver) == Copied(conversations=1)
    assert contents(saver, "1") == contents(old, "1")
    records = target.page("chatledger:langgraph:1").messages
    assert all(record.text.startswith("bytes+xor ") for record in records)


def test_invalid_arguments_and_missing_tables_are_rejected(
    peer: Peer, target: Store, tmp_path: Path
) -> None:
    class Other:
        def dumps_typed(self, value: Any) -> tuple[str, bytes]:
            return JsonPlusSerializer().dumps_typed(value)

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            return JsonPlusSerializer().loads_typed(data)

    with pytest.raises(InvalidArgument, match="AsyncStore"):
        copy_threads(
            peer.source(), ChatledgerSaver(open_async_store(f"sqlite:///{tmp_path}/async.db"))
        )
    with pytest.raises(InvalidArgument, match="JsonPlusSerializer"):
        copy_threads(peer.source(), ChatledgerSaver(target, serde=Other()))
    with pytest.raises(InvalidArgument, match="both"):
        peer.source(bucket="bucket")
    with pytest.raises(TableMissing, match="missing"):
        copy_threads(DynamoDBSaverTable("missing", client=peer.client), ChatledgerSaver(target))


def test_threads_begun_by_this_saver_keep_its_lifetime(peer: Peer, target: Store) -> None:
    run_turns(chat_graph(peer.saver()), "1", range(1))
    copy_threads(peer.source(), ChatledgerSaver(target, expires_in=timedelta(days=2)))
    expires = target.get("chatledger:langgraph:1").expires_at
    assert expires is not None
    assert abs(expires.timestamp() - time.time() - 2 * 86400) < 60
