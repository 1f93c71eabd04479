"""Clocks that differ by as much as passes the comparison: nothing is lost, and no new conversation
takes the place of one that any clock still shows as live."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from chatledger.stores.dynamodb.clock import MAX_DIFFERENCE, MAX_SKEW
from chatledger.stores.dynamodb.plans import append, create, restore
from chatledger.stores.dynamodb.records import Record
from chatledger.stores.dynamodb.table import LogEnd, Table
from chatledger.stores.dynamodb.ttl import first_record
from tests.simulation import clients, run_schedule, schedules

SCHEDULES = 300
BEGINNING_PLANS: tuple[ModuleType, ...] = (append, create, restore)


class Beginnings:
    """Watches the first records of conversations that follow expired ones."""

    def __init__(self) -> None:
        self.count = 0
        self.early = 0
        """How many were made while the slowest possible clock showed the former one as live."""

    def first_record(self, table: Table, log_end: LogEnd, *args: Any, **options: Any) -> Record:
        former = log_end.record
        if former is not None and not former.closed and former.expiry is not None:
            process: Any = table.clock
            slowest = process.__self__.time - process.__self__.skew - MAX_SKEW
            self.count += 1
            self.early += former.expiry > slowest
        return first_record(table, log_end, *args, **options)


@contextmanager
def clocks_set_apart(clock_difference: int) -> Iterator[Beginnings]:
    """Let the clocks of processes differ, and stores allow for that difference (ms)."""
    beginnings = Beginnings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedules, "CLOCK_SKEWS", ((-MAX_SKEW, 0, MAX_SKEW),))
        patch.setattr(clients, "Table", partial(Table, clock_difference=clock_difference))
        for module in BEGINNING_PLANS:
            patch.setattr(module, "first_record", beginnings.first_record)
        yield beginnings


def test_no_conversation_begins_while_a_clock_shows_the_former_one_as_live() -> None:
    with clocks_set_apart(MAX_DIFFERENCE) as beginnings:
        failures = [seed for seed in range(SCHEDULES) if run_schedule(seed)]
    assert not failures
    assert beginnings.count > 0
    assert beginnings.early == 0


def test_stores_that_do_not_allow_for_the_difference_begin_conversations_early() -> None:
    with clocks_set_apart(0) as beginnings:
        for seed in range(SCHEDULES):
            run_schedule(seed)
            if beginnings.early:
                return
    pytest.fail("no conversation began early, so the schedules would not show it")
