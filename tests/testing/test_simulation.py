"""The simulation finds no fault in the plans, and finds those that are put into them."""

import inspect
import os
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from chatledger.stores.dynamodb import bodies, heads, log, plans, reading, table
from chatledger.stores.dynamodb.calls import Call, Plan
from chatledger.stores.dynamodb.log import Log
from chatledger.stores.dynamodb.plans import common, cut
from chatledger.stores.dynamodb.records import Record, key, record_sort
from chatledger.testing.simulation import play, script, simulate
from chatledger.testing.simulation.__main__ import main

SCHEDULES = int(os.environ.get("CHATLEDGER_TEST_SCHEDULES", "50000"))
PLANS = "chatledger.stores.dynamodb"


def test_every_history_can_be_explained() -> None:
    played = play(0, schedules=SCHEDULES)
    assert not played.failures, f"\n{played.failures[0]}"
    assert played.schedules == SCHEDULES


def test_a_seed_makes_the_same_history_every_time() -> None:
    for seed in (1, 20, 300):
        assert script(seed) == script(seed)


def test_by_hand_it_prints_the_history_of_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--seed", "7"])
    assert script(7) in capsys.readouterr().out


# Faults that are put in ---------------------------------------------------------------------------


class Plans:
    """The real plans, into which faults are put until the end of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def rewrite(self, function: Any, old: str, new: str) -> None:
        """Change a part of the function's source."""
        source = textwrap.dedent(inspect.getsource(function))
        assert old in source, f"{function.__qualname__} does not say {old!r} any more"
        made: dict[str, Any] = {}
        code = compile(source.replace(old, new), inspect.getfile(function), "exec")
        exec(code, function.__globals__, made)
        self.replace(function, made[function.__name__])

    def replace(self, function: Any, other: Any) -> None:
        """Put another function in its place, wherever it is called from."""
        modules = [module for name, module in sys.modules.items() if name.startswith(PLANS)]
        for place in [Log, *modules]:
            for name, value in list(vars(place).items()):
                if value is function:
                    self._monkeypatch.setattr(place, name, other)

    def set(self, place: Any, name: str, value: Any) -> None:
        assert hasattr(place, name)
        self._monkeypatch.setattr(place, name, value)


def a_rival_is_taken_for_us(broken: Plans) -> None:
    broken.rewrite(log._in_the_way, "rival.token == record.token", "True")


def we_are_taken_for_a_rival(broken: Plans) -> None:
    broken.rewrite(log._in_the_way, "rival.token == record.token", "False")


def dead_records_are_deleted(broken: Plans) -> None:
    def delete(log: Log, record: Record) -> Plan[None]:
        where = {"Key": key(log.id, record_sort(record.position))}
        yield Call("DeleteItem", log.guarded("attribute_exists(#pk)") | where)

    broken.replace(bodies._fence_one, delete)


def nothing_closes_a_deleted_log(broken: Plans) -> None:
    original = Log.put

    def put(log: Log, record: Record, *others: Any) -> Plan[Any]:
        return None if record.closed else (yield from original(log, record, *others))

    broken.replace(Log.put, put)


def heads_go_backwards(broken: Plans) -> None:
    broken.set(heads, "_NEWER", "#life = :life_ AND #created_at = :created_at_")


def stamps_are_renewed_after_the_extension(broken: Plans) -> None:
    extended, renew = common.extended, heads.renew
    late: dict[Any, Record] = {}

    def extend_at_once(log: Log, last: Record) -> Plan[Record]:
        late[id(log.table), log.id] = last
        # As though there were no item to renew.
        return (yield from _answered(extended(log, last), {"Items": []}))

    def renew_stamps_too(log: Log, last: Record) -> Plan[None]:
        if (before := late.pop((id(log.table), log.id), None)) is not None:
            yield from extended(log, before)
        yield from renew(log, last)

    broken.replace(extended, extend_at_once)
    broken.replace(renew, renew_stamps_too)


def _answered(plan: Plan[Record], reply: Any) -> Plan[Record]:
    """What the plan comes to where each of its calls is answered so, and none is made."""
    try:
        next(plan)
        while True:
            plan.send(reply)
    except StopIteration as end:
        result: Record = end.value
        return result
    yield


def after_is_taken_on_trust(broken: Plans) -> None:
    original = plans.append

    def append(place: table.Table, id: str, messages: Any, *, after: Any, **given: Any) -> Any:
        remembered = place.remembered(id)
        if after and remembered and remembered.record:
            trusted = remembered.record._replace(position=after, width=1, messages=0)
            place.remember(id, remembered._replace(last=trusted), since=place.time())
        return (yield from original(place, id, messages, after=after, **given))

    broken.replace(original, append)


def torn_reads_pass(broken: Plans) -> None:
    for function in (reading.back, reading.on, reading._check_unchanged):
        broken.rewrite(function, "raise Torn", "pass")


def positions_are_remembered_for_ever(broken: Plans) -> None:
    broken.set(table, "REMEMBERED", 100 * table.DAY)


def a_remembered_word_refuses(broken: Plans) -> None:
    broken.rewrite(plans.append, "sure = False", "sure = True")


def whether_it_lives_is_asked_twice(broken: Plans) -> None:
    broken.rewrite(common.follow, "raise Torn", "last = None")


def a_title_is_set_upon_any_other(broken: Plans) -> None:
    broken.rewrite(
        heads.edit,
        '("#edit = :edit" if seen else "attribute_not_exists(#edit)")',
        '"#life = :life"',
    )


def what_is_cut_off_is_not_told_to_be_dead(broken: Plans) -> None:
    broken.rewrite(cut.cut, "(*before, (below + 1, last.revision))", "before")


def a_replacement_looks_at_no_revision(broken: Plans) -> None:
    broken.rewrite(plans.replace, "revision != last.revision", "False")


FAULTS: list[tuple[Callable[[Plans], None], int]] = [
    (a_rival_is_taken_for_us, 0),
    (we_are_taken_for_a_rival, 0),
    (dead_records_are_deleted, 0),
    (nothing_closes_a_deleted_log, 0),
    (heads_go_backwards, 400),
    (stamps_are_renewed_after_the_extension, 0),
    (after_is_taken_on_trust, 0),
    (torn_reads_pass, 5_500),
    (positions_are_remembered_for_ever, 0),
    (a_remembered_word_refuses, 0),
    (whether_it_lives_is_asked_twice, 2_700),
    (a_title_is_set_upon_any_other, 0),
    (what_is_cut_off_is_not_told_to_be_dead, 0),
    (a_replacement_looks_at_no_revision, 0),
]
"""Each with the schedule to start at: some show in one of some thousands only."""


@pytest.mark.parametrize(("fault", "first"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_fault_that_is_put_in_is_found(
    fault: Callable[[Plans], None], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(Plans(monkeypatch))
    assert any(simulate(seed) for seed in range(first, first + 10_000))
