"""The states of simulated graphs: channels of several kinds, whose values share elements.

The delta channels ``log`` and ``facts`` hold lists, and are stored as LangGraph does: a checkpoint
holds a snapshot now and then, and else the value follows from what tasks have written before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple, DeltaChannelHistory
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, _DeltaSnapshot
from langgraph.types import Send

DELTA_CHANNELS = ("log", "facts")
NULL_TASK = "00000000-0000-0000-0000-000000000000"
"""LangGraph's task for writes of no task."""
SPECIAL_CHANNELS = (ERROR, INTERRUPT, RESUME)


@dataclass(frozen=True, slots=True)
class TaskWrites:
    """What one task writes after a checkpoint."""

    task: str
    path: str
    writes: list[tuple[str, Any]]


@dataclass(slots=True)
class State:
    """The values of all channels after a step, those of delta channels too.

    Nobody changes a value; a step makes new ones.
    """

    values: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    updates: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each delta channel, the updates and steps since its last snapshot."""

    @classmethod
    def of(cls, found: CheckpointTuple, history: Mapping[str, DeltaChannelHistory]) -> "State":
        """Return the state at a checkpoint that was read, with the history of delta channels."""
        values = dict(found.checkpoint["channel_values"])
        versions: dict[str, Any] = dict(found.checkpoint["channel_versions"])
        for channel in DELTA_CHANNELS:
            if channel in values:
                values[channel] = values[channel].value
            elif channel in history:
                seed = history[channel].get("seed")
                written = [each for _, _, value in history[channel]["writes"] for each in value]
                values[channel] = [*(seed.value if seed else ()), *written]
        counters: Any = found.metadata.get("counters_since_delta_snapshot") or {}
        return cls(values, versions, {name: (n, m) for name, (n, m) in counters.items()})


def delta_channels_of(found: CheckpointTuple) -> list[str]:
    """Return the delta channels whose values at the checkpoint follow from what was before it."""
    checkpoint = found.checkpoint
    return [
        channel
        for channel in DELTA_CHANNELS
        if channel in checkpoint["channel_versions"] and channel not in checkpoint["channel_values"]
    ]


class StateMaker:
    """Draws what graphs do to their states; every element has a text of its own."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._numbers = count(1)
        self._snapshot_every = random.choice((1, 2, 3, 5))
        self._uses_deltas = random.random() < 0.7

    def draw_tasks(self, tasks: Sequence[str]) -> list[TaskWrites]:
        """Return what tasks of these names write after one checkpoint."""
        return [self._draw_task(task) for task in tasks]

    def _draw_task(self, task: str) -> TaskWrites:
        random = self._random
        writes: list[tuple[str, Any]] = []
        channels = ("messages", *(DELTA_CHANNELS if self._uses_deltas else ()))
        writes += [
            (channel, self._elements(random.choice((1, 1, 2))))
            for channel in channels
            if random.random() < 0.6
        ]
        if random.random() < 0.3 or not writes:
            writes.append(("number", next(self._numbers)))
        if random.random() < 0.15:
            writes.append((random.choice(SPECIAL_CHANNELS), f"special {next(self._numbers)}"))
        return TaskWrites(task, random.choice(("", f"~__pregel_pull, {task}")), writes)

    def draw_answer(self) -> TaskWrites:
        """Return the answer to an interrupt, which replaces an earlier one."""
        return TaskWrites(NULL_TASK, "", [(RESUME, f"answer {next(self._numbers)}")])

    def step(
        self, state: State, tasks: Sequence[TaskWrites], *, snapshots: bool = False
    ) -> tuple[State, dict[str, Any], dict[str, int]]:
        """Return the state after these tasks, the values to store, and the new versions.

        Args:
            state: The state before.
            tasks: What the tasks have written.
            snapshots: Whether all delta channels are stored in full.
        """
        random = self._random
        new = State(dict(state.values), dict(state.versions), dict(state.updates))
        changed: set[str] = set()
        for task in sorted(tasks, key=lambda each: (each.path, each.task)):
            for channel, value in task.writes:
                if channel in ("messages", *DELTA_CHANNELS):
                    new.values[channel] = [*new.values.get(channel, ()), *value]
                elif channel == "number":
                    new.values[channel] = value
                else:
                    continue
                changed.add(channel)
        for channel, change in (
            ("messages", self._edit),
            ("files", self._write_file),
            ("sends", self._send),
        ):
            if random.random() < 0.25:
                new.values[channel] = change(new.values)
                changed.add(channel)
        version = max(new.versions.values(), default=0) + 1
        stored = {name: value for name, value in new.values.items() if name not in DELTA_CHANNELS}
        for channel in DELTA_CHANNELS:
            if channel not in new.values:
                continue
            updates, steps = new.updates.get(channel, (0, 0))
            updates += channel in changed
            new.updates[channel] = (updates, steps + 1)
            if snapshots or (channel in changed and updates >= self._snapshot_every):
                stored[channel] = _DeltaSnapshot(new.values[channel])
                del new.updates[channel]
                changed.add(channel)
        new_versions = dict.fromkeys(changed, version)
        new.versions |= new_versions
        return new, stored, new_versions

    def _elements(self, number: int) -> list[Any]:
        return [self._element() for _ in range(number)]

    def _element(self) -> Any:
        text = f"{next(self._numbers)}" + "." * self._random.choice((1, 20, 40, 120))
        return {"id": text[:9], "text": text} if self._random.random() < 0.5 else text

    def _edit(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the messages with one of them removed, replaced, inserted or repeated."""
        random, messages = self._random, list(values.get("messages", ()))
        at = random.randrange(len(messages) + 1)
        match random.choice(("insert", "remove", "replace", "repeat", "summarize")):
            case "insert":
                messages[at:at] = self._elements(1)
            case "remove":
                del messages[at : at + 1]
            case "replace":
                messages[at : at + 1] = self._elements(1)
            case "repeat":
                messages[at:at] = messages[:2]
            case _:
                messages[: len(messages) // 2] = self._elements(1)
        return messages

    def _write_file(self, values: Mapping[str, Any]) -> dict[str, Any]:
        content = self._random.choice((self._element, lambda: self._elements(2)))()
        files = dict(values.get("files", {}))
        if len(files) > 2:
            del files[self._random.choice(list(files))]
        return files | {self._random.choice(("a.txt", "b.txt", "c.txt")): content}

    def _send(self, values: Mapping[str, Any]) -> list[Any]:
        state = {"messages": values.get("messages", []), "number": next(self._numbers)}
        return [Send(node, state) for node in self._random.choice((("one",), ("one", "two"), ()))]
