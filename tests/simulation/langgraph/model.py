"""What LangGraph may rely on: a model of threads, which checks each answer of the saver.

The model notes what each operation writes or removes, and between which steps. An answer is wrong
if no order of these effects explains it: if it holds what was never written, what had certainly
been removed, or another value; or if it lacks what was certainly there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple, DeltaChannelHistory

from chatledger.errors import (
    AlreadyExists,
    ChatledgerError,
    Conflict,
    InvalidArgument,
    NotFound,
    StoreUnavailable,
)
from tests.simulation.langgraph.states import NULL_TASK
from tests.simulation.scheduler import Violation


@dataclass(slots=True, eq=False)
class Run:
    """A run of a graph, or a single call of the application.

    Attributes:
        number: Its number.
        travels: True if it begins at a checkpoint with a given id.
        read: The operation with which it read that.
    """

    number: int
    travels: bool = False
    read: "Action | None" = None


@dataclass(slots=True, eq=False, kw_only=True)
class Action:
    """An operation of a saver, and when it took effect.

    Attributes:
        number: Its number.
        kind: Its kind, such as ``put``.
        owner: The owner that its config names; None if the kind has no config.
        run: The run that calls it.
        start: The step at which it began.
        began: The true time then (ms).
        end: The step at which it was answered.
        ended: The true time then (ms).
        landed: The step by which it has certainly taken effect.
        landed_at: The true time by which it has (ms).
        is_refused: True if it certainly takes no effect.
    """

    number: int
    kind: str
    owner: str | None
    run: Run
    start: int
    began: int
    end: float = inf
    ended: float = inf
    landed: float = inf
    landed_at: float = inf
    is_refused: bool = False

    def land(self, step: float, time: float) -> None:
        """Note that it has taken effect by then."""
        self.landed, self.landed_at = min(self.landed, step), min(self.landed_at, time)


@dataclass(slots=True, eq=False, kw_only=True)
class Fact:
    """What an action wrote.

    Attributes:
        action: The action; for a fact of a copied thread, the copy.
        thread: The thread in which it was written.
        namespace: Its namespace.
        checkpoint_id: The checkpoint, or that after which a task wrote it.
        origin: The fact of the other thread, if it was copied.
    """

    action: Action
    thread: "ThreadModel"
    namespace: str
    checkpoint_id: str
    origin: "Fact | None" = None

    @property
    def owner(self) -> str | None:
        return self.action.owner if self.origin is None else self.origin.owner


@dataclass(slots=True, eq=False, kw_only=True)
class Put(Fact):
    """A checkpoint."""

    parent_id: str | None
    checkpoint: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(slots=True, eq=False, kw_only=True)
class Write(Fact):
    """A write of a task."""

    task_id: str
    path: str
    index: int
    channel: str
    value: Any

    @property
    def place(self) -> tuple[str, str, str, int]:
        return self.namespace, self.checkpoint_id, self.task_id, self.index

    @property
    def order(self) -> tuple[str, str, int]:
        return self.path, self.task_id, self.index


@dataclass(slots=True, eq=False)
class Removal:
    """The removal of a thread (``delete_thread``), of all but the newest checkpoints (``prune``) or
    of those of runs (``delete_for_runs``)."""

    action: Action
    run_ids: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class ThreadModel:
    """What was written to a thread id, and removed."""

    id: str
    puts: dict[tuple[str, str], Put] = field(default_factory=dict)
    writes: dict[tuple[str, str], list[Write]] = field(default_factory=dict)
    removals: list[Removal] = field(default_factory=list)
    activity: list[Action] = field(default_factory=list)
    """All actions that may append to the thread, and so extend its life."""
    winners: dict[tuple[str, str, str, int], Write] = field(default_factory=dict)
    """The write that was seen at each place, if the first one wins there."""
    copies: "list[tuple[ThreadModel, Action]]" = field(default_factory=list)
    """The copies of this thread that are under way."""

    def facts(self) -> Iterator[Fact]:
        yield from self.puts.values()
        for writes in self.writes.values():
            yield from writes

    def ancestors(self, put: Put) -> Iterator[Put]:
        """Yield the parent, its parent, and so on."""
        before: Put | None = put
        while before is not None and before.parent_id is not None:
            before = self.puts.get((before.namespace, before.parent_id))
            if before is not None:
                yield before

    def rank(self, put: Put) -> str:
        """Return the latest id among its own and those of its ancestors.

        The ids are those of clocks, which differ; a checkpoint is newer than its ancestors.
        """
        return max([put.checkpoint_id, *(each.checkpoint_id for each in self.ancestors(put))])


class Model:
    """All threads, and the checks of answers.

    Args:
        refuses_rivals: Whether the savers do.
        lifetime: That of threads (ms); None if they do not expire.
        skew: By how much (ms) two clocks differ at most.
    """

    def __init__(self, *, refuses_rivals: bool, lifetime: int | None, skew: int) -> None:
        self._refuses_rivals = refuses_rivals
        self._lifetime = lifetime
        self._skew = skew
        self.threads: dict[str, ThreadModel] = {}
        self._removals: list[Removal] = []
        """Those of all threads."""

    def thread(self, id: str) -> ThreadModel:
        if id not in self.threads:
            self.threads[id] = ThreadModel(id, removals=list(self._removals))
        return self.threads[id]

    # What operations write -----------------------------------------------------------------------

    def add_put(
        self,
        action: Action,
        thread: ThreadModel,
        namespace: str,
        parent_id: str | None,
        checkpoint: Mapping[str, Any],
        metadata: Mapping[str, Any],
    ) -> None:
        """Add a checkpoint that ``action`` is about to put."""
        parent = None if parent_id is None else thread.puts.get((namespace, parent_id))
        values, versions = dict(checkpoint["channel_values"]), checkpoint["channel_versions"]
        if parent is not None:
            # A value belongs to the version of a channel, not to a checkpoint.
            before = parent.checkpoint
            for channel in before["channel_values"].keys() & versions.keys() - values.keys():
                if before["channel_versions"][channel] == versions[channel]:
                    values[channel] = before["channel_values"][channel]
        put = Put(
            action=action,
            thread=thread,
            namespace=namespace,
            checkpoint_id=checkpoint["id"],
            parent_id=parent_id,
            checkpoint={**checkpoint, "channel_values": values},
            metadata=metadata,
        )
        self._add(put)
        thread.activity.append(action)

    def add_writes(
        self,
        action: Action,
        thread: ThreadModel,
        place: tuple[str, str],
        writes: Sequence[tuple[str, Any]],
        task: tuple[str, str],
    ) -> None:
        """Add the writes of a task, given by id and path, after the checkpoint at ``place``."""
        for index, (channel, value) in enumerate(writes):
            self._add(
                Write(
                    action=action,
                    thread=thread,
                    namespace=place[0],
                    checkpoint_id=place[1],
                    task_id=task[0],
                    path=task[1],
                    index=WRITES_IDX_MAP.get(channel, index),
                    channel=channel,
                    value=value,
                )
            )
        thread.activity.append(action)

    def add_removal(
        self, action: Action, thread: ThreadModel | None, run_ids: tuple[str, ...] = ()
    ) -> None:
        """Add a removal from the thread; None stands for all, also those that begin meanwhile."""
        removal = Removal(action, run_ids)
        if thread is None:
            self._removals.append(removal)
        for each in self.threads.values() if thread is None else (thread,):
            each.removals.append(removal)
            each.activity.append(action)

    def _add(self, fact: Fact) -> None:
        key = fact.namespace, fact.checkpoint_id
        if isinstance(fact, Put):
            fact.thread.puts[key] = fact
        elif isinstance(fact, Write):
            fact.thread.writes.setdefault(key, []).append(fact)
        for target, copy in fact.thread.copies:
            self._add(replace(fact, action=copy, thread=target, origin=fact))

    def begin_copy(self, action: Action, source: ThreadModel, target: ThreadModel) -> None:
        """Add what the copy may show: what is in the source, or is written meanwhile."""
        for fact in list(source.facts()):
            self._add(replace(fact, action=action, thread=target, origin=fact))
        source.copies.append((target, action))
        target.activity.append(action)

    # When something is there ---------------------------------------------------------------------

    def _may_cover(self, removal: Removal, fact: Fact) -> bool:
        """Return whether the removal may remove the fact, if it was there."""
        kind = removal.action.kind
        if kind == "delete_thread":
            return True
        thread = fact.thread
        put = thread.puts.get((fact.namespace, fact.checkpoint_id))
        if put is None or put.action.is_refused or put.action.start > removal.action.landed:
            return False  # writes whose checkpoint is not there stay
        if kind == "delete_for_runs":
            return put.metadata["run_id"] in removal.run_ids
        return any(
            thread.rank(other) >= put.checkpoint_id
            for other in thread.puts.values()
            if other.namespace == put.namespace
            and other is not put
            and not other.action.is_refused
            and other.action.start <= removal.action.landed
        )

    def _covers(self, removal: Removal, fact: Fact) -> bool:
        """Return whether the removal certainly removes the fact, if it was there."""
        kind = removal.action.kind
        if removal.action.landed_at >= self._lives_until(fact, removal.action.start):
            return False  # to the clock of its process, the thread has expired
        if kind == "delete_thread" or not isinstance(fact, Put):
            return kind == "delete_thread"
        if kind == "delete_for_runs":
            return fact.metadata["run_id"] in removal.run_ids
        rank = fact.thread.rank(fact)
        return any(
            (other.checkpoint_id > rank or other.parent_id == fact.checkpoint_id)
            and self._must_be_there(other, removal.action)
            for other in fact.thread.puts.values()
            if other.namespace == fact.namespace and other is not fact
        )

    def _may_be_removed(self, fact: Fact, until: float, *, is_source: bool = False) -> bool:
        """Return whether the fact may have been removed by the step ``until``.

        With ``is_source``, a later checkpoint needs it, so that it goes only with its thread.
        """
        if fact.origin is not None and self._may_be_removed(
            fact.origin, fact.action.landed, is_source=is_source
        ):
            return True
        return any(
            not removal.action.is_refused
            and (not is_source or removal.action.kind == "delete_thread")
            and removal.action.start <= until
            and removal.action.landed >= fact.action.start
            and self._may_cover(removal, fact)
            for removal in fact.thread.removals
        )

    def _must_be_there(self, fact: Fact, read: Action, *, is_source: bool = False) -> bool:
        """Return whether the fact was certainly there during all of the read."""
        if fact.action.landed > read.start:
            return False
        if self._may_be_removed(fact, read.end, is_source=is_source):
            return False
        if fact.origin is not None:
            # The lifetime of a copy is about that of the source.
            return self._lifetime is None and self._must_be_there(
                fact.origin, fact.action, is_source=is_source
            )
        return read.ended < self._lives_until(fact, read.start)

    def _lives_until(self, fact: Fact, known_by: float = inf) -> float:
        """Return the time (ms) until which the thread certainly lives after the fact was added.

        Only what has landed by the step ``known_by`` extends its life: an operation that lasts
        longer than that may have read the expiry before.
        """
        if self._lifetime is None:
            return inf
        least = self._lifetime - self._skew
        until = fact.action.began + least
        for action in sorted(fact.thread.activity, key=lambda each: each.landed_at):
            if (
                action.landed_at < until
                and action.landed <= known_by
                and action.kind in ("put", "put_writes")
            ):
                until = max(until, action.began + least)
        return until

    def _may_live_at(self, fact: Fact, time: float) -> bool:
        """Return whether the thread may live at that time (ms), with the fact."""
        if self._lifetime is None or fact.origin is not None:
            return True
        most = self._lifetime + self._skew
        until = fact.action.ended + most
        for action in fact.thread.activity:  # in the order in which they began
            if action.began <= until and not action.is_refused:
                until = max(until, action.ended + most)
        return time <= until

    def _may_be_there(self, fact: Fact, read: Action, since: Action) -> bool:
        """Return whether the fact may have been there at a moment of the read.

        What the read found may be as old as ``since``.
        """
        if fact.action.is_refused or fact.action.start > read.end:
            return False
        if fact.origin is not None and not self._may_be_there(
            fact.origin, fact.action, fact.action
        ):
            return False
        return self._may_live_at(fact, since.began) and not any(
            removal.action.landed < since.start
            and fact.action.end <= removal.action.start
            and self._covers(removal, fact)
            for removal in fact.thread.removals
        )

    # Checks of answers ---------------------------------------------------------------------------

    def check_found(
        self, thread: ThreadModel, found: CheckpointTuple, read: Action, namespace: str
    ) -> Put:
        """Check a checkpoint that a read returned, and return the put that stored it."""
        id = found.checkpoint["id"]
        put = thread.puts.get((namespace, id))
        what = f"checkpoint {id} of {thread.id}"
        if put is None:
            raise Violation(f"{what} was never put")
        if not self._may_be_there(put, read, read):
            raise Violation(f"{what} is read, although it was refused or removed")
        if put.owner != read.owner:
            raise Violation(f"{what} of {put.owner} is read by {read.owner}")
        if put.origin is None:  # a copy is written bit by bit
            put.action.land(read.end, read.ended)
        checkpoint = {**found.checkpoint}
        if checkpoint != put.checkpoint:
            raise Violation(f"{what} is {checkpoint}, not {put.checkpoint}")
        if found.metadata != put.metadata:
            raise Violation(f"{what} has the metadata {found.metadata}, not {put.metadata}")
        self._check_configs(thread, put, found, read)
        writes = list(found.pending_writes or ())
        self._check_writes(thread, (namespace, id), writes, read, since=read)
        return put

    def _check_configs(
        self, thread: ThreadModel, put: Put, found: CheckpointTuple, read: Action
    ) -> None:
        def id_in(config: Any) -> str | None:
            if config is None:
                return None
            given = dict(config["configurable"])
            id: str = given.pop("checkpoint_id")
            given.pop("__chatledger_run", None)
            expected = {"thread_id": thread.id, "checkpoint_ns": put.namespace, "user": read.owner}
            if given != expected:
                raise Violation(f"checkpoint {put.checkpoint_id} has the config {config}")
            return id

        if id_in(found.config) != put.checkpoint_id:
            raise Violation(f"checkpoint {put.checkpoint_id} has the config {found.config}")
        parent_id = id_in(found.parent_config)
        if parent_id != put.parent_id:
            parent = thread.puts.get((put.namespace, put.parent_id or ""))
            is_gone = parent is not None and self._may_be_removed(parent, read.end)
            if parent_id is not None or not is_gone:
                raise Violation(
                    f"checkpoint {put.checkpoint_id} has the parent {parent_id}, not "
                    f"{put.parent_id}"
                )

    def _check_writes(
        self,
        thread: ThreadModel,
        place: tuple[str, str],
        found: Sequence[tuple[str, str, Any]],
        read: Action,
        *,
        since: Action,
        channel: str | None = None,
        needed_at: int = 0,
    ) -> None:
        """Check the writes after the checkpoint at ``place``.

        All must be there; with ``channel``, those of this channel that a later checkpoint needs,
        which is put at the step ``needed_at``.
        """
        what = f"checkpoint {place[1]} of {thread.id}"
        written = thread.writes.get(place, [])
        matched: list[Write] = []
        for task_id, written_channel, value in found:
            candidates = [
                write
                for write in written
                if (write.task_id, write.channel) == (task_id, written_channel)
                and write.value == value
            ]
            if not candidates:
                raise Violation(f"a write of {task_id} after {what} is {value!r}")
            (write,) = candidates
            if not self._may_be_there(write, read, since):
                raise Violation(f"a write of {task_id} after {what} was refused or removed")
            if write.origin is None:
                write.action.land(read.end, read.ended)
            matched.append(write)
        if [write.order for write in matched] != sorted({write.order for write in matched}):
            raise Violation(f"the writes after {what} are in the order {found}")
        by_place = {write.place: write for write in matched}
        for other in written:
            if channel is not None and channel != other.channel:
                # Another write may have won at its index.
                continue
            winner = by_place.get(other.place)
            if winner is None:
                rivals = [write for write in written if write.place == other.place]
                is_source = channel is not None
                if is_source and (
                    other.action.landed > needed_at
                    or any(write.channel != channel for write in rivals)
                ):
                    continue
                if self._must_be_there(other, since, is_source=is_source):
                    raise Violation(f"the write {other.value!r} after {what} is lost")
            elif winner is not other:
                if self._precedes(winner, other, read, since):
                    raise Violation(f"{winner.value!r} won over {other.value!r} after {what}")
                if self._refuses_rivals and other.index >= 0 and self._must_be_there(other, since):
                    raise Violation(f"{other.value!r} was ignored after {what}, not refused")
        for write in matched:
            if write.index < 0:
                continue
            before = thread.winners.setdefault(write.place, write)
            if before is not write:
                if not self._may_be_removed(before, read.end) and self._lifetime is None:
                    raise Violation(f"{before.value!r} after {what} became {write.value!r}")
                thread.winners[write.place] = write

    def _precedes(self, winner: Write, other: Write, read: Action, since: Action) -> bool:
        """Return whether ``other`` should have won at an index."""
        if winner.index >= 0:  # the first one
            return other.action.landed < winner.action.start and (
                self._must_be_there(other, winner.action)
            )
        # The last one.
        return winner.action.end < other.action.start and self._must_be_there(other, since)

    def check_newest(
        self, thread: ThreadModel, found: Put | None, read: Action, namespace: str
    ) -> None:
        """Check that what a read without an id returned is the newest checkpoint."""
        rank = "" if found is None else thread.rank(found)
        for put in thread.puts.values():
            if put.namespace != namespace or put.owner != read.owner or put is found:
                continue
            # Of a pruned thread, the ancestors may be gone.
            own_rank = put.checkpoint_id if thread.removals else thread.rank(put)
            is_newer = own_rank > rank or (
                found is not None and put.parent_id == found.checkpoint_id
            )
            if is_newer and self._must_be_there(put, read):
                raise Violation(
                    f"the newest checkpoint of {thread.id} is {put.checkpoint_id}, but "
                    f"{found and found.checkpoint_id} is read"
                )

    def check_missing(
        self,
        thread: ThreadModel,
        found: Iterable[Put],
        read: Action,
        namespace: str,
        id: str | None,
    ) -> None:
        """Check that a read that found these checkpoints has missed none."""
        seen = set(found)
        for put in thread.puts.values():
            if (
                put not in seen
                and put.namespace == namespace
                and id in (None, put.checkpoint_id)
                and put.owner == read.owner
                and self._must_be_there(put, read)
            ):
                raise Violation(f"checkpoint {put.checkpoint_id} of {thread.id} is lost")

    def check_history(
        self,
        thread: ThreadModel,
        put: Put,
        history: Mapping[str, DeltaChannelHistory],
        read: Action,
        since: Action,
    ) -> None:
        """Check the history of delta channels at a checkpoint that was there at ``since``."""
        for channel, found in history.items():
            writes = list(found["writes"])
            seed: Any = None
            chain: list[Put] = []
            for before in thread.ancestors(put):
                chain.append(before)
                if channel in before.checkpoint["channel_values"]:
                    seed = before.checkpoint["channel_values"][channel]
                    break
            by_place: dict[tuple[str, str], list[tuple[str, str, Any]]] = {}
            for task_id, written_channel, value in writes:
                places = [
                    (before.namespace, before.checkpoint_id)
                    for before in chain
                    for write in thread.writes.get((before.namespace, before.checkpoint_id), ())
                    if (write.task_id, write.channel, write.value)
                    == (task_id, written_channel, value)
                ]
                if channel != written_channel or not places:
                    raise Violation(f"the history of {channel} has the write {value!r}")
                by_place.setdefault(places[0], []).append((task_id, written_channel, value))
            flat = [
                write
                for before in reversed(chain)
                for write in by_place.get((before.namespace, before.checkpoint_id), ())
            ]
            if flat != writes:
                raise Violation(f"the history of {channel} is in the order {writes}")
            # While it is read, the thread may be deleted, and nothing is left.
            if not self._must_be_there(put, read):
                if found.get("seed", seed) != seed:
                    raise Violation(f"{channel} has the seed {found['seed']}, not {seed}")
                continue
            if found.get("seed") != seed:
                raise Violation(f"{channel} has the seed {found.get('seed')}, not {seed}")
            after = put
            for before in chain:
                place = before.namespace, before.checkpoint_id
                self._check_writes(
                    thread,
                    place,
                    by_place.get(place, []),
                    read,
                    since=since,
                    channel=channel,
                    # Others are those of a branch, and the next checkpoint is without them.
                    needed_at=after.action.start
                    if channel in after.checkpoint["channel_versions"]
                    else 0,
                )
                after = before

    # Answers of writing operations ---------------------------------------------------------------

    def check_put(self, put: Put) -> None:
        """Check a checkpoint whose put was acknowledged."""
        thread, action = put.thread, put.action
        for other in thread.puts.values():
            if other is put or other.action.landed > action.landed:
                continue
            if other.owner != put.owner and self._must_be_there(other, action):
                raise Violation(f"{put.owner} wrote to the thread of {other.owner}")
            if not self._refuses_rivals or other.namespace != put.namespace:
                continue
            if other.action.run is action.run or action.run.travels or other.action.run.travels:
                continue
            if (
                other.parent_id == put.parent_id
                and self._still_there(other, action)
                and self._still_there(put, other.action)  # which may have landed later
            ):
                raise Violation(
                    f"{put.checkpoint_id} and {other.checkpoint_id} continue {put.parent_id}"
                )
        if self._refuses_rivals:
            self._check_tasks_before(put)

    def _check_tasks_before(self, put: Put) -> None:
        """Check that no other run has done a task of the parent since this one read it."""
        thread, action = put.thread, put.action
        read = action.run.read
        # Pruning writes anew what was written before.
        if read is None or any(removal.action.end >= read.start for removal in thread.removals):
            return
        writes = thread.writes.get((put.namespace, put.parent_id or ""), [])
        own = [write for write in writes if write.action.run is action.run]
        for write in writes:
            if (
                write.action.run is not action.run
                and write.index >= 0
                and write.task_id != NULL_TASK
                and write.action.start > read.end
                and self._must_be_there(write, action)
                and not any(
                    (mine.place, mine.channel, mine.value)
                    == (write.place, write.channel, write.value)
                    for mine in own
                )
            ):
                raise Violation(
                    f"{put.checkpoint_id} follows {put.parent_id}, although another run has "
                    f"written {write.value!r} for {write.task_id}"
                )

    def check_writes(self, action: Action, writes: Sequence[Write]) -> None:
        """Check writes that were acknowledged: rivals must not have continued the checkpoint."""
        thread, write = writes[0].thread, writes[0]
        if not self._refuses_rivals or action.run.travels:
            return
        base = thread.puts.get((write.namespace, write.checkpoint_id))
        if base is None or not self._must_be_there(base, action):
            return
        for other in thread.puts.values():
            if (
                (other.namespace, other.parent_id) == (write.namespace, write.checkpoint_id)
                and other.action.run is not action.run
                and not other.action.run.travels
                and self._must_be_there(other, action)
            ):
                raise Violation(
                    f"writes after {write.checkpoint_id} are taken, although "
                    f"{other.checkpoint_id} continues it"
                )

    def _still_there(self, put: Put, action: Action) -> bool:
        """Return whether a checkpoint that has landed was not removed before ``action`` landed."""
        if put.origin is not None and not self._must_be_there(put.origin, put.action):
            return False
        return not self._may_be_removed(put, max(put.action.landed, action.landed)) and (
            action.landed_at < self._lives_until(put)
        )

    def check_refusal(self, action: Action, facts: Sequence[Fact], error: ChatledgerError) -> None:
        """Check that a write was refused for a reason."""
        (fact, *_) = facts
        thread = fact.thread
        began = action.run.read or action
        if isinstance(error, NotFound):
            is_right = any(other.owner != fact.owner for other in self._present(thread, action))
        elif isinstance(error, InvalidArgument):
            parent_id = fact.parent_id if isinstance(fact, Put) else None
            parent = thread.puts.get((fact.namespace, parent_id or ""))
            is_right = parent is not None and not self._must_be_there(parent, action)
        elif isinstance(error, Conflict) and self._refuses_rivals:
            is_right = any(
                other.owner == fact.owner
                and other.namespace == fact.namespace
                and other.action.landed >= began.start
                and (other.action.run is not action.run or other.action.landed > action.start)
                for other in self._present(thread, action)
            ) or any(removal.action.landed >= began.start for removal in thread.removals)
            base = fact.parent_id if isinstance(fact, Put) else fact.checkpoint_id
            before = thread.puts.get((fact.namespace, base or ""))
            if before is not None and not self._must_be_there(before, action):
                is_right = True
        else:
            is_right = False
        if not is_right:
            raise Violation(f"{action.kind} was refused without a reason: {error!r}")

    def _present(self, thread: ThreadModel, action: Action) -> Iterator[Fact]:
        return (
            other
            for other in thread.facts()
            if other.action is not action
            and not other.action.is_refused
            and other.action.start <= action.end
        )

    def check_error(self, action: Action, error: ChatledgerError, facts: Sequence[Fact]) -> None:
        """Check an error that an operation raised; note whether it took no effect."""
        if isinstance(error, StoreUnavailable):
            action.is_refused = bool(facts) and not error.may_have_landed
        elif facts:
            # A write that got no reply may have reached a thread just before it expired.
            action.is_refused = self._lifetime is None or isinstance(error, NotFound)
            self.check_refusal(action, facts, error)
        elif action.kind != "copy_thread" or not isinstance(
            error, AlreadyExists | Conflict | NotFound
        ):
            raise Violation(f"{action.kind} raised {error!r}")
        if action.is_refused and action.landed < inf:
            raise Violation(f"{action.kind} was refused, but its result was read")
