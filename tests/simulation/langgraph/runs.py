"""What the clients of a schedule call: runs of graphs, as LangGraph makes them, and the rest."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, TypeAlias, cast

from langgraph.checkpoint.base import CheckpointTuple

from chatledger.errors import ChatledgerError
from tests.simulation.copies import OperationCall
from tests.simulation.langgraph.model import Model, Run
from tests.simulation.langgraph.states import (
    DELTA_CHANNELS,
    NULL_TASK,
    State,
    StateMaker,
    TaskWrites,
    delta_channels_of,
)

OWNER_KEY = "user"
Script: TypeAlias = Generator[OperationCall, Any, None]
Config: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """The scripts of the clients in a schedule, and their frequencies."""

    threads: tuple[str, ...]
    namespaces: tuple[str, ...]
    owners: tuple[str, ...]
    weights: dict[str, float]
    travels: float
    """The probability that a run begins at an older checkpoint."""
    resumes: float
    """The probability that a run continues the tasks of the checkpoint at which it begins."""
    overtakes: float
    """The probability that an operation is called before those that were submitted earlier."""
    restarts: float
    """The probability that a client goes on in a new process before its next script."""


@dataclass(slots=True)
class Submission:
    """An operation that a run has submitted, and the earlier ones that must succeed before."""

    operation: OperationCall
    needs: list[int]


class Scripts:
    """Draws the scripts."""

    def __init__(self, random: Random, workload: Workload, model: Model) -> None:
        self._random = random
        self._workload = workload
        self._model = model
        self._states = StateMaker(random)
        self._numbers = count(1)
        self._copies = count(1)
        self._has_uuids = random.random() < 0.8

    def draw(self, clock: "Clock") -> Script:
        """Return a script for a client whose process has this clock."""
        random, workload = self._random, self._workload
        kind = random.choices(tuple(workload.weights), tuple(workload.weights.values()))[0]
        run = Run(next(self._numbers))
        threads = [*workload.threads, *(id for id in self._model.threads if "copy" in id)]
        thread = random.choice(threads)
        namespace = random.choice(workload.namespaces)
        owner = random.choice(workload.owners)
        place = {"thread_id": thread, "checkpoint_ns": namespace, OWNER_KEY: owner}
        match kind:
            case "run":
                return self.run(clock, place)
            case "get_tuple":
                if known := self._known(thread, namespace):
                    place["checkpoint_id"] = random.choice(known)
                return _call("get_tuple", thread, {"run": run, "config": {"configurable": place}})
            case "list":
                return _call("list", thread, {"run": run, "config": {"configurable": place}})
            case "delete_for_runs":
                runs = tuple(random.sample(("one", "two", "three"), random.choice((1, 1, 2))))
                return _call(kind, "", {"run": run, "run_ids": runs})
            case "copy_thread":
                target = f"copy {next(self._copies)}"
                return _call(kind, thread, {"run": run, "target": target})
            case _:
                return _call(kind, thread, {"run": run})

    def _known(self, thread: str, namespace: str) -> list[str]:
        return [
            put.checkpoint_id
            for put in self._model.thread(thread).puts.values()
            if put.namespace == namespace
        ]

    def read_all(self, place: dict[str, Any]) -> Script:
        """Read all checkpoints of a namespace, and the histories of their delta channels."""
        thread, config = place["thread_id"], {"configurable": place}
        yield "get_tuple", thread, {"run": Run(next(self._numbers)), "config": config}
        listed = yield "list", thread, {"run": Run(next(self._numbers)), "config": config}
        for found in listed:
            if channels := delta_channels_of(found):
                arguments = {"config": found.config, "channels": channels}
                yield "delta_history", thread, {"run": Run(next(self._numbers)), **arguments}
        listed_ids = {found.checkpoint["id"] for found in listed}
        for id in sorted(set(self._known(thread, place["checkpoint_ns"])) - listed_ids)[:2]:
            config = {"configurable": place | {"checkpoint_id": id}}
            yield "get_tuple", thread, {"run": Run(next(self._numbers)), "config": config}

    def delete(self, thread: str) -> Script:
        yield "delete_thread", thread, {"run": Run(next(self._numbers))}

    # Runs ----------------------------------------------------------------------------------------

    def run(self, clock: "Clock", place: dict[str, Any]) -> Script:
        """Read a checkpoint, and put others after it, and the writes of tasks between them."""
        random, workload, thread = self._random, self._workload, place["thread_id"]
        run = Run(next(self._numbers))
        known = self._known(thread, place["checkpoint_ns"])
        if known and random.random() < workload.travels:
            run.travels = True
            place = place | {"checkpoint_id": random.choice(known)}
        found: CheckpointTuple | None = yield (
            "get_tuple",
            thread,
            {"run": run, "config": {"configurable": place}},
        )
        if found is None:
            if run.travels:
                return
            state = State()
        else:
            place = {**place, **found.config["configurable"]}
            history: Any = {}
            if channels := delta_channels_of(found):
                history = yield (
                    "delta_history",
                    thread,
                    {"run": run, "config": {"configurable": place}, "channels": channels},
                )
            state = State.of(found, history)
        submissions = self._submissions(run, clock, place, found, state)
        failed: set[int] = set()
        for number in self._order(submissions):
            submission = submissions[number]
            if failed.intersection(submission.needs):
                failed.add(number)
                continue
            try:
                yield submission.operation
            except ChatledgerError:
                failed.add(number)
                if random.random() < 0.5:
                    return

    def _order(self, submissions: Sequence[Submission]) -> list[int]:
        """Return an order in which the operations are called; each comes after what it needs."""
        left, order = list(range(len(submissions))), list[int]()
        while left:
            ready = [n for n in left if not set(submissions[n].needs) & set(left)]
            is_overtaken = self._random.random() < self._workload.overtakes
            chosen = self._random.choice(ready) if is_overtaken else ready[0]
            left.remove(chosen)
            order.append(chosen)
        return order

    def _submissions(
        self,
        run: Run,
        clock: "Clock",
        place: dict[str, Any],
        found: CheckpointTuple | None,
        state: State,
    ) -> list[Submission]:
        """Return what a run submits, in the order in which LangGraph does."""
        random = self._random
        run_id = random.choice(("one", "two", "three"))
        submissions: list[Submission] = []
        last_put: list[int] = []
        delta_writes: list[int] = []
        checkpoint_id: str | None = None if found is None else found.checkpoint["id"]
        tasks: list[TaskWrites] = []
        if found is not None and random.random() < self._workload.resumes:
            done = {task_id for task_id, _, _ in found.pending_writes or ()}
            tasks = self._states.draw_tasks(("one", "two"))
            tasks = [task for task in tasks if _task_id(task, checkpoint_id) not in done]
            if random.random() < 0.5:
                tasks.append(self._states.draw_answer())
        exits = random.random() < 0.15  # durability="exit"
        for step in range(random.choice((1, 2, 3))):
            for task in tasks:
                writes = task.writes
                if exits:
                    writes = [write for write in writes if write[0] in DELTA_CHANNELS]
                has_deltas = any(channel in DELTA_CHANNELS for channel, _ in writes)
                if writes and checkpoint_id is not None:
                    if has_deltas:
                        delta_writes.append(len(submissions))
                    submissions.append(
                        Submission(
                            (
                                "put_writes",
                                place["thread_id"],
                                {
                                    "run": run,
                                    "config": _config(place, checkpoint_id),
                                    "writes": writes,
                                    "task_id": _task_id(task, checkpoint_id),
                                    "task_path": task.path,
                                },
                            ),
                            [],
                        )
                    )
            pending = found.pending_writes if found is not None and step == 0 else None
            state, values, new_versions = self._states.step(
                state, tasks, snapshots=run.travels or bool(pending) or checkpoint_id is None
            )
            checkpoint = {
                "v": 4,
                "id": clock.new_id(uuids=self._has_uuids),
                "ts": f"{clock.time}",
                "channel_values": values,
                "channel_versions": dict(state.versions),
                "versions_seen": {"one": new_versions},
                "updated_channels": sorted(new_versions),
            }
            metadata: dict[str, Any] = {"source": "loop", "step": step, "parents": {}}
            metadata["run_id"] = run_id
            if state.updates:
                metadata["counters_since_delta_snapshot"] = {
                    name: list(counts) for name, counts in state.updates.items()
                }
            submissions.append(
                Submission(
                    (
                        "put",
                        place["thread_id"],
                        {
                            "run": run,
                            "config": _config(place, checkpoint_id),
                            "checkpoint": checkpoint,
                            "metadata": metadata,
                            "new_versions": new_versions,
                        },
                    ),
                    [*last_put, *delta_writes],
                )
            )
            last_put, delta_writes = [len(submissions) - 1], []
            if exits:
                break
            checkpoint_id = cast(str, checkpoint["id"])
            tasks = self._states.draw_tasks(random.choice((("one",), ("one", "two"))))
        return submissions


class Clock:
    """Makes the ids of checkpoints in one process, which sort by its clock."""

    def __init__(self, numbers: "count[int]") -> None:
        self._numbers = numbers
        self._last = 0
        self.time = 0
        """The time (ms) on the clock of the process."""

    def new_id(self, *, uuids: bool) -> str:
        self._last = max(self._last, self.time)
        time, number = f"{self._last:012x}", next(self._numbers)
        if not uuids:
            return f"{time} {number:04}"
        return f"{time[:8]}-{time[8:]}-6000-8000-{number:012x}"


def _call(kind: str, thread: str, arguments: dict[str, Any]) -> Script:
    yield kind, thread, arguments


def _config(place: dict[str, Any], checkpoint_id: str | None) -> Config:
    others = {name: value for name, value in place.items() if name != "checkpoint_id"}
    if checkpoint_id is not None:
        others["checkpoint_id"] = checkpoint_id
    return {"configurable": others}


def _task_id(task: TaskWrites, checkpoint_id: str | None) -> str:
    """Return the id of the task: LangGraph's, too, depends on the checkpoint and the name alone."""
    return NULL_TASK if task.task == NULL_TASK else f"{task.task} after {checkpoint_id}"
