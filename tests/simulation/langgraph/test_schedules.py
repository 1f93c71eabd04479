"""The simulation finds no fault in the saver's plans, and finds those that a test inserts."""

import inspect
import os
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from chatledger.langgraph import maintenance
from chatledger.langgraph.plans import Plans
from chatledger.langgraph.thread import Thread
from chatledger.langgraph.values import Decoder, Encoder, ListNode
from tests.simulation.langgraph.schedules import run_schedule, trace_schedule
from tests.simulation.scheduler import Violation

SCHEDULES = int(os.environ.get("CHATLEDGER_TEST_SAVER_SCHEDULES", "500"))
FOUND_WITHIN = 500
"""How many schedules find each inserted fault."""


def run_schedules(number: int) -> None:
    for seed in range(number):
        run_schedule(seed)


def test_every_answer_is_what_langgraph_may_rely_on() -> None:
    run_schedules(SCHEDULES)


def test_a_seed_makes_the_same_schedule_every_time() -> None:
    for seed in (1, 20, 300):
        assert trace_schedule(seed) == trace_schedule(seed)


# Inserted faults ----------------------------------------------------------------------------------

FAULTS: list[tuple[Callable[..., Any], str, str]] = [
    # An append that landed although its reply was lost is not recognised.
    (
        Plans._append,
        "thread.has_since(revision, contents) for revision, contents in attempted",
        "False for _ in attempted",
    ),
    # An append does not require the revision on which it is based.
    (Plans._append, "revision=thread.revision,", "revision=None,"),
    # Appends do not check the owner.
    (Plans._append, "owner=owner,", "owner=None,"),
    # Rivals are not refused.
    (Plans._check_rivals, 'if self.settings.rivals == "fork" or', "if True or"),
    # Writes of a run that was overtaken are taken.
    (Plans._check_rival_writes, "if is_overtaken:", "if False:"),
    # A checkpoint may follow what a task of another run has written.
    (Plans._check_rivals, "and not self._has_rival_writes(thread, address, parent)", ""),
    # A run does not know what its own tasks have written.
    (Plans._has_rival_writes, "runs <= {address.run}", "runs"),
    # What was written before a run began does not belong to it.
    (Plans._has_rival_writes, "address.started_seq,", "0,"),
    # A run does not know its own checkpoints.
    (Plans._parent, "self.settings.runs.add(id, address.run)", "pass"),
    # A record may refer to one that was not acknowledged.
    (
        Plans._append,
        "attempted.append((thread.revision, contents))",
        """attempted.append((thread.revision, contents))
        revision, count = thread.revision, thread.message_count
        seqs = range(revision + 1, revision + len(messages) + 1)
        thread.add_appended(seqs, record, contents=contents)
        thread.revision, thread.message_count = revision, count""",
    ),
    # An append without a reply is said not to have landed.
    (Plans._append, "unavailable.may_have_landed = unknown > 0", "pass"),
    # A thread that is deleted while it is read is not found as a conversation.
    (Plans._between, "suppress(NotFound)", "suppress()"),
    # The newest checkpoint is that of the clock that is ahead.
    (
        Thread._add_checkpoint,
        "newest.latest_id <= checkpoint.latest_id",
        "newest.id <= checkpoint.id",
    ),
    # A read takes what it has found for all that is new.
    (
        Plans.refresh,
        "if len(new) == expected == conversation",
        "if True or len(new) == expected == conversation",
    ),
    # Pruning removes the checkpoints from which values of delta channels are built.
    (maintenance._rewrite, "if checkpoint.seq in kept:", "if False:"),
    # Pruning removes what others have put since the thread was read.
    (maintenance._keep, "revision=thread.revision,", "revision=None,"),
    # Checkpoints that were pruned are found.
    (Thread.find, "found is None or found.is_hidden", "found is None"),
    # A list refers to one that lacks some of its elements.
    (
        Encoder._encode_list,
        "while base.base is not None and prefix <= base.prefix and suffix <= base.suffix:",
        "while base.base is not None:",
    ),
    # The last elements of a list are taken from another place.
    (ListNode.elements, "shift = node.base.length - node.length", "shift = 0"),
    # References point to the element before.
    (Decoder._add_leaf, "len(self.leaves))", "len(self.leaves) - (len(self.leaves) > 3))"),
    # The last of a task's writes at an index counts, not the first.
    (Thread._counting, "if index < 0 or key not in found:", "if True:"),
    # Pending writes are not ordered by the path of their task.
    (Thread.writes_of, "key=lambda write: write[:3]", "key=lambda write: (write[1], write[2])"),
    # The history of a delta channel ends where that of another one does.
    (Thread.delta_history, "missing.discard(channel)", "missing.clear()"),
]


@pytest.mark.parametrize(
    ("function", "old", "new"), FAULTS, ids=[f"{f.__name__}-{new[-40:]}" for f, _, new in FAULTS]
)
def test_an_inserted_fault_is_found(
    function: Callable[..., Any], old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(function, old, new, monkeypatch)
    with pytest.raises((Violation, LookupError, AssertionError)):
        run_schedules(FOUND_WITHIN)


def insert(
    function: Callable[..., Any], old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replace ``old`` by ``new`` in the source of the function, wherever it is in use."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1
    changed: dict[str, Any] = {}
    exec(source.replace(old, new), function.__globals__, changed)
    modules = [
        module for name, module in sys.modules.items() if name.startswith("chatledger.langgraph")
    ]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__.startswith("chatledger.langgraph")
    }
    for place in (*modules, *classes):
        for name, value in list(vars(place).items()):
            if value is function:
                monkeypatch.setattr(place, name, changed[function.__name__])
