"""What other processes do to a thread between the operations of a saver, and at bad moments."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from chatledger import Store, open_store
from chatledger.errors import Conflict, InvalidArgument, NotFound, StoreUnavailable
from chatledger.langgraph import ChatledgerSaver, maintenance
from chatledger.stores.operations import Append, Delete, Operation, ReadPage, ReadTail
from tests.langgraph.graphs import config_of
from tests.langgraph.stores import FailingStore, InterruptedStore, ReplacedStore, lost_reply

T = TypeVar("T")
THREAD = config_of("1", checkpoint_ns="")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/chatledger.db") as store:
        yield store


def checkpoint(id: str, **values: Any) -> Checkpoint:
    return {
        "v": 4,
        "id": id,
        "ts": "2026-11-10T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, 1),
        "versions_seen": {},
        "updated_channels": [*values],
    }


def put(
    saver: ChatledgerSaver, id: str, parent: RunnableConfig = THREAD, **metadata: Any
) -> RunnableConfig:
    """Put a checkpoint after ``parent``, and return its config."""
    described: Any = {"source": "loop", **metadata}
    return saver.put(parent, checkpoint(id, text=f"of {id}"), described, {"text": 1})


def ids(saver: ChatledgerSaver) -> list[str]:
    return [found.checkpoint["id"] for found in saver.list(THREAD)]


def test_a_thread_that_is_deleted_while_it_is_read_is_not_found(store: Store) -> None:
    other = ChatledgerSaver(store)
    one = ChatledgerSaver(InterruptedStore(store, ReadPage, lambda: other.delete_thread("1")))
    last = put(one, "0")
    one.get_tuple(THREAD)
    for n in range(1, 7):
        last = put(other, str(n), last)
    assert one.get_tuple(THREAD) is None


@pytest.mark.parametrize("reads_fail", [True, False])
def test_an_append_without_a_reply_may_have_landed_whatever_fails_after_it(
    store: Store, reads_fail: bool
) -> None:
    class Unavailable(FailingStore):
        """No reply to the first append; then the store is not available at all."""

        def perform(self, operation: Operation[T]) -> T:
            if self.has_failed and reads_fail is isinstance(operation, ReadTail):
                raise StoreUnavailable("Throttled.")
            return super().perform(operation)

    saver = ChatledgerSaver(Unavailable(store, 1, error=lost_reply, performs=False, goes_on=True))
    with pytest.raises(StoreUnavailable) as failed:
        put(saver, "0")
    assert failed.value.may_have_landed


def test_a_checkpoint_is_newer_than_its_parent_whatever_the_clock_of_its_process(
    store: Store,
) -> None:
    ahead, behind = (ChatledgerSaver(store, rivals="refuse") for _ in range(2))
    put(ahead, "5")
    for id in ("1", "2"):
        newest = behind.get_tuple(THREAD)
        assert newest is not None
        put(behind, id, newest.config)
    for saver in (ahead, ChatledgerSaver(store)):
        newest = saver.get_tuple(THREAD)
        assert newest is not None
        assert newest.checkpoint["id"] == "2"
    branch = put(ChatledgerSaver(store), "4")
    assert ChatledgerSaver(store).get_tuple(THREAD) == newest, "the ids of branches sort by time"
    assert branch["configurable"]["checkpoint_id"] in ids(ahead)


@pytest.mark.parametrize("rivals", ["fork", "refuse"])
def test_a_read_by_another_user_does_not_disturb_the_owner_s_run(store: Store, rivals: Any) -> None:
    saver = ChatledgerSaver(store, owner_key="user_id", rivals=rivals)
    ada, eve = (config_of("1", checkpoint_ns="", user_id=user) for user in ("ada", "eve"))
    first = put(saver, "1", ada)
    assert saver.get_tuple(eve) is None
    put(saver, "2", first)
    with pytest.raises(NotFound):
        put(saver, "3", eve)  # not a conflict, which would show that there is a thread
    assert [found.checkpoint["id"] for found in saver.list(ada)] == ["2", "1"]


def test_a_thread_may_begin_anew_after_another_process_has_deleted_it(store: Store) -> None:
    saver = ChatledgerSaver(store, rivals="refuse")
    put(saver, "1")
    ChatledgerSaver(store).delete_thread("1")
    put(saver, "2")
    assert ids(saver) == ["2"]


def test_a_thread_that_this_process_began_is_not_taken_for_a_later_one(
    store: Store, tmp_path: Path
) -> None:
    replaced = ReplacedStore(store)
    saver = ChatledgerSaver(replaced)
    put(saver, "1")
    # The thread expires, TTL deletes it, and another process begins it anew at the same revision.
    with open_store(f"sqlite:///{tmp_path}/later.db") as later:
        put(ChatledgerSaver(later), "2")
        replaced.store = later
        assert ids(saver) == ["2"]


def test_a_pruned_thread_is_not_mixed_with_what_this_process_knows(store: Store) -> None:
    one, other = ChatledgerSaver(store), ChatledgerSaver(store)
    last = THREAD
    for n in range(3):
        last = put(one, str(n), last)
    other.prune(["1"])
    # There are seven records now, as many as the three known ones and the four last ones.
    for n in range(3, 9):
        last = put(other, str(n), last)
    assert ids(one) == ["8", "7", "6", "5", "4", "3", "2"]


def test_what_is_put_while_runs_are_deleted_stays(store: Store) -> None:
    put(ChatledgerSaver(store), "1", run_id="one")
    other = ChatledgerSaver(store)
    changing = InterruptedStore(store, (Append, Delete), lambda: put(other, "2", run_id="two"))
    ChatledgerSaver(changing).delete_for_runs(["one"])
    assert ids(other) == ["2"]


def test_a_thread_of_which_all_runs_are_deleted_may_begin_anew(store: Store) -> None:
    saver = ChatledgerSaver(store, rivals="refuse")
    config = put(saver, "1", run_id="one")
    saver.put_writes(config_of("1", checkpoint_ns="", checkpoint_id="2"), [("text", "a")], "task")
    saver.delete_for_runs(["one"])
    assert ids(saver) == []
    assert saver.get_tuple(config) is None
    put(saver, "2", run_id="two")
    found = saver.get_tuple(THREAD)
    assert found is not None
    assert found.pending_writes == [("task", "text", "a")]
    saver.delete_for_runs(["two"])
    saver.seed_thread("1", [])
    assert len(ids(saver)) == 1


def test_a_thread_that_is_pruned_while_it_is_copied_is_copied_as_it_was_at_one_moment(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MAX_LIMIT", 2)
    saver = ChatledgerSaver(store)
    last = THREAD
    for n in range(5):
        last = put(saver, str(n), last)

    def prune_and_continue() -> None:
        saver.prune(["1"])
        put(saver, "5", last)

    copier = ChatledgerSaver(InterruptedStore(store, ReadPage, prune_and_continue))
    copier.copy_thread("1", "copy")
    copied = [found.checkpoint["id"] for found in saver.list(config_of("copy"))]
    assert copied == ids(saver) == ["5", "4"]


def test_a_copy_does_not_have_the_owner_of_one_thread_and_the_state_of_another(
    store: Store,
) -> None:
    saver = ChatledgerSaver(store, owner_key="user_id")
    ada, bob = (config_of("1", checkpoint_ns="", user_id=user) for user in ("ada", "bob"))
    put(saver, "1", ada)

    def begin_anew() -> None:
        saver.delete_thread("1")
        put(saver, "2", bob)

    copying = InterruptedStore(store, ReadPage, begin_anew)
    ChatledgerSaver(copying, owner_key="user_id").copy_thread("1", "copy")
    copied = {user: [*saver.list(config_of("copy", user_id=user))] for user in ("ada", "bob")}
    assert copied["ada"] == []
    assert [found.checkpoint["id"] for found in copied["bob"]] == ["2"]


def test_a_thread_that_is_deleted_while_it_is_copied_is_not_copied(store: Store) -> None:
    saver = ChatledgerSaver(store)
    put(saver, "1")
    copying = InterruptedStore(store, ReadPage, lambda: saver.delete_thread("1"))
    ChatledgerSaver(copying).copy_thread("1", "copy")
    assert saver.get_tuple(config_of("copy")) is None


def test_a_checkpoint_that_was_pruned_cannot_be_continued(store: Store) -> None:
    """It may be hidden only, since another one needs a part of it, but the rest is gone."""
    saver = ChatledgerSaver(store)
    first = checkpoint("1", log=_DeltaSnapshot(["a"]), facts=_DeltaSnapshot(["b"]))
    parent = saver.put(THREAD, first, {}, {"log": 1, "facts": 1})
    metadata: Any = {"counters_since_delta_snapshot": {"log": (1, 1)}}
    second = checkpoint("2", facts=_DeltaSnapshot(["b", "c"]))
    second["channel_versions"] = {"log": 2, "facts": 2}
    newest = saver.put(parent, second, metadata, {"log": 2, "facts": 2})
    saver.prune(["1"])
    history = saver.get_delta_channel_history(config=newest, channels=["log"])
    assert history["log"]["seed"] == _DeltaSnapshot(["a"])
    with pytest.raises(InvalidArgument, match="pruned"):
        put(saver, "3", parent)


@pytest.mark.parametrize("clock", ["time", "monotonic"])
def test_a_process_that_slept_does_not_write_with_what_it_knew_before(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    replaced = ReplacedStore(store)
    saver = ChatledgerSaver(replaced)
    config = put(saver, "1")
    with open_store(f"sqlite:///{tmp_path}/later.db") as later:
        put(ChatledgerSaver(later), "2")  # begins the thread anew, at the same revision
        replaced.store = later
        passed = getattr(time, clock)() + 3_601
        monkeypatch.setattr(time, clock, lambda: passed)
        saver.put_writes(config, [("text", "for 1")], "task")
        found = ChatledgerSaver(later).get_tuple(THREAD)
        assert found is not None
        assert (found.checkpoint["id"], found.pending_writes) == ("2", [])


@pytest.mark.parametrize("rivals", ["fork", "refuse"])
def test_a_put_that_landed_is_recognised_although_the_thread_was_pruned(
    store: Store, rivals: Any
) -> None:
    """Pruning writes the checkpoint anew, and removes the parent, without which none is put."""

    class Pruned(FailingStore):
        """The reply to an append is lost, and the thread is pruned before it is read again."""

        def perform(self, operation: Operation[T]) -> T:
            if self.has_failed:
                ChatledgerSaver(store).prune(["1"])
            return super().perform(operation)

    parent = put(ChatledgerSaver(store), "1")
    saver = ChatledgerSaver(
        Pruned(store, 1, error=lost_reply, performs=True, goes_on=True), rivals=rivals
    )
    put(saver, "2", parent)
    assert ids(saver) == ["2"]


# A run's tasks and its next checkpoint are stored at the same time --------------------------------


@pytest.fixture
def runs(store: Store) -> tuple[tuple[ChatledgerSaver, RunnableConfig], ...]:
    """Two processes that have read the same checkpoint, which another one had put."""
    put(ChatledgerSaver(store), "1")
    savers = [ChatledgerSaver(store, rivals="refuse") for _ in range(2)]
    return tuple((saver, read_config(saver)) for saver in savers)


def read_config(saver: ChatledgerSaver) -> RunnableConfig:
    found = saver.get_tuple(THREAD)
    assert found is not None
    return found.config


def pending_writes(store: Store) -> list[Any]:
    found = ChatledgerSaver(store).get_tuple(THREAD)
    assert found is not None
    return found.pending_writes or []


def test_the_run_whose_task_was_stored_first_is_the_one_that_counts(
    store: Store, runs: Any
) -> None:
    (one, config), (other, other_config) = runs
    one.put_writes(config, [("text", "of one")], "task")
    with pytest.raises(Conflict, match="another run"):
        put(other, "3", other_config)
    with pytest.raises(Conflict, match="another run"):
        other.put_writes(other_config, [("text", "of other")], "task")
    assert pending_writes(store) == [("task", "text", "of one")]
    put(one, "2", config)
    assert ids(one) == ["2", "1"]


def test_the_run_whose_checkpoint_was_stored_first_is_the_one_that_counts(
    store: Store, runs: Any
) -> None:
    (one, config), (other, other_config) = runs
    put(one, "2", config)
    with pytest.raises(Conflict, match="another run"):
        other.put_writes(other_config, [("text", "of other")], "task")
    with pytest.raises(Conflict, match="another run"):
        put(other, "3", other_config)
    one.put_writes(config, [("text", "of one")], "task")
    before = one.get_tuple(config_of("1", checkpoint_ns="", checkpoint_id="1"))
    assert before is not None
    assert before.pending_writes == [("task", "text", "of one")]
    assert ids(one) == ["2", "1"]


def test_a_checkpoint_never_follows_the_tasks_of_two_runs(store: Store, runs: Any) -> None:
    """A delta channel is built from what the tasks wrote, whatever their run believed."""
    (one, config), (other, other_config) = runs
    one.put_writes(config, [("text", "of one")], "task 1")
    with pytest.raises(Conflict, match="another run"):
        other.put_writes(other_config, [("text", "of other")], "task 2")
    with pytest.raises(Conflict, match="another run"):
        put(other, "3", other_config)
    assert pending_writes(store) == [("task 1", "text", "of one")]
    put(one, "2", config)
    assert ids(one) == ["2", "1"]


def test_a_run_that_begins_between_two_tasks_of_the_first_one_may_overtake_it(
    store: Store, runs: Any
) -> None:
    (first, config), _ = runs
    first.put_writes(config, [("text", "of first")], "task 1")
    other = ChatledgerSaver(store, rivals="refuse")
    start = read_config(other)
    other.put_writes(start, [("text", "of other")], "task 2")
    with pytest.raises(Conflict, match="another run"):
        first.put_writes(config, [("text", "of first")], "task 3")
    with pytest.raises(Conflict, match="another run"):
        put(first, "2", config)
    put(other, "3", start)
    assert ids(other) == ["3", "1"]


def test_of_two_runs_that_wrote_the_same_the_first_one_counts(store: Store, runs: Any) -> None:
    (one, config), (other, other_config) = runs
    written = {"list": ["a", {"b": "c" * 300}], "text": "d"}
    one.put_writes(config, [*written.items()], "task")
    with pytest.raises(Conflict, match="another run"):
        other.put_writes(other_config, [*written.items()], "task")
    with pytest.raises(Conflict, match="another run"):
        put(other, "3", other_config)
    put(one, "2", config)
    assert ids(one) == ["2", "1"]


def test_a_task_that_was_done_when_a_run_began_is_its_own(store: Store, runs: Any) -> None:
    (ended, config), _ = runs
    ended.put_writes(config, [("text", "of ended")], "task 1")
    one = ChatledgerSaver(store, rivals="refuse")
    start = read_config(one)
    one.put_writes(start, [("text", "of one")], "task 2")
    put(one, "2", start)
    assert ids(one) == ["2", "1"]


def test_a_run_that_begins_while_the_first_one_works_is_its_rival(store: Store) -> None:
    first = ChatledgerSaver(store, rivals="refuse")
    config = put(first, "1")  # a run that began with an empty thread has no checkpoint to read
    other = ChatledgerSaver(store, rivals="refuse")
    start = read_config(other)
    other.put_writes(start, [("text", "of other")], "task")
    with pytest.raises(Conflict, match="another run"):
        put(first, "2", config)
    put(other, "3", start)
    assert ids(other) == ["3", "1"]


def test_a_task_stays_that_of_its_run_when_the_thread_is_pruned(store: Store, runs: Any) -> None:
    (one, config), (other, other_config) = runs
    one.put_writes(config, [("text", "of one")], "task")
    ChatledgerSaver(store).prune(["1"])
    with pytest.raises(Conflict, match="another run"):
        put(other, "3", other_config)
    put(one, "2", config)
    assert ids(one) == ["2", "1"]


@pytest.mark.parametrize(
    "channel", ["__error__", "__interrupt__", "__resume__"], ids=["error", "interrupt", "resume"]
)
def test_what_a_run_tells_of_a_task_that_has_not_ended_is_no_rival(
    store: Store, runs: Any, channel: str
) -> None:
    (one, config), (other, other_config) = runs
    one.put_writes(config, [(channel, "of one")], "task")
    put(other, "3", other_config)
    assert ids(other) == ["3", "1"]
