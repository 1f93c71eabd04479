"""The simulation finds no fault in the drop-in's plans, and finds those that a test inserts."""

import inspect
import os
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from chatledger.langchain import plans, stored_history
from chatledger.langchain.stored_history import Archives, WriteToken
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import Call, CallFailed
from chatledger.testing.dynamodb_local import DynamoDBLocal
from tests.simulation.items import Key
from tests.simulation.langchain.checker import Violation
from tests.simulation.langchain.schedules import run_schedule, trace_schedule
from tests.simulation.langchain.table import HistoriesTable
from tests.stores.dynamodb.tables import new_table

SCHEDULES = int(os.environ.get("CHATLEDGER_TEST_HISTORY_SCHEDULES", "2000"))


def run_schedules(first: int, number: int) -> None:
    for seed in range(first, first + number):
        run_schedule(seed)


def test_every_change_and_every_answer_can_be_explained() -> None:
    run_schedules(0, SCHEDULES)


def test_a_seed_makes_the_same_schedule_every_time() -> None:
    for seed in (1, 20, 300):
        assert trace_schedule(seed) == trace_schedule(seed)


# Inserted faults ----------------------------------------------------------------------------------

FAULTS: list[tuple[str, Any, str, str, int]] = [
    (
        "an append does not look for its token",
        plans._append_call,
        '"NOT contains(#p, :token)"',
        '"(NOT contains(#p, :token) OR attribute_exists(#p))"',
        0,
    ),
    (
        "an append that landed is not recognised",
        plans._append,
        "if token.is_in(first):",
        "if token.is_in(first) and False:",
        0,
    ),
    (
        "tokens are kept for one append only",
        WriteToken.at,
        "(period + 2) % 4",
        "(int(now) + 1) % 4",
        0,
    ),
    (
        "an append goes on with an expired history",
        plans._append_call,
        " OR #t > :now)",
        " OR #t > :now OR attribute_exists(#t))",
        0,
    ),
    (
        "an append does not look at the archives' TTLs",
        plans._append_call,
        "#a.#m >= :expires",
        "#a.#m >= :expires OR attribute_exists(#a)",
        360,
    ),
    (
        "messages move although a rival appended others",
        plans._append_and_move,
        "unchanged = (history.messages_attribute, ",
        "unchanged = (",
        0,
    ),
    (
        "messages move although the history was cleared",
        plans._append_and_move,
        ", *history.archive_attributes)",
        ")",
        0,
    ),
    (
        "messages move without the token of the append",
        plans._append_and_move,
        "token.text]}",
        '"another"]}',
        0,
    ),
    (
        "archives have the same number again after a trim",
        Archives.extended,
        "end=self.end + count",
        "end=self.start + count",
        0,
    ),
    (
        "archives have the TTL of the first item",
        plans._append_and_move,
        "ttl = None if min_ttl is None else min_ttl + TTL_MARGIN",
        "ttl = None if min_ttl is None else history.now() + 60",
        0,
    ),
    (
        "the bound on TTLs is raised without the archives",
        plans._extend_archives,
        "archives.names",
        "archives.names[1:]",
        1_270,
    ),
    (
        "archives get a TTL before their history",
        plans._extend_archives,
        "if number_in(first, history.ttl_attribute) is None:",
        "if False:",
        2_780,
    ),
    (
        "a clear deletes an item with archives",
        plans.clear_history,
        "history.delete(None, history.archive_attributes)",
        "history.delete(None, history.archive_attributes[1:])",
        0,
    ),
    (
        "a clear deletes messages that came after it",
        plans._finish_removal,
        "(history.messages_attribute, *unchanged)",
        "unchanged",
        0,
    ),
    (
        "an expired history is cleared although it was extended",
        plans._prepare,
        "(*history.archive_attributes, history.ttl_attribute)",
        "history.archive_attributes",
        850,
    ),
    (
        "a trim forgets what a rival appended",
        plans._trim,
        "unchanged = (history.messages_attribute, *unchanged)",
        "pass",
        0,
    ),
    (
        "a read takes archives that it misses for empty ones",
        plans.read_history,
        "if len(found) == len(names):",
        "if True:",
        0,
    ),
]


@pytest.mark.parametrize(
    ("name", "function", "old", "new", "seed"), FAULTS, ids=[fault[0] for fault in FAULTS]
)
def test_an_inserted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, function: Any, old: str, new: str, seed: int
) -> None:
    """``seed`` is the one from which 1,000 schedules find it."""
    insert(monkeypatch, function, old, new)
    with pytest.raises(Violation, match=r"\(seed \d+\)"):
        run_schedules(seed, 1_000)


def insert(monkeypatch: pytest.MonkeyPatch, function: Any, old: str, new: str) -> None:
    """Replace a part of the function's source, wherever the function is."""
    source = textwrap.dedent(inspect.getsource(function))
    assert old in source, f"{function.__qualname__} no longer contains {old!r}"
    function = getattr(function, "__func__", function)
    namespace: dict[str, Any] = {}
    exec(source.replace(old, new), function.__globals__, namespace)
    (changed,) = namespace.values()
    for place in (plans, stored_history, Archives, WriteToken):
        for name, value in list(vars(place).items()):
            if getattr(value, "__func__", value) is function:
                monkeypatch.setattr(place, name, changed)


# The simulated table ------------------------------------------------------------------------------


@pytest.fixture
def local_table(dynamodb_local: DynamoDBLocal) -> Iterator[type[HistoriesTable]]:
    """Simulated tables that make each call on DynamoDB Local, too, and compare the replies."""
    client = dynamodb_local.client()
    calls = Boto3Calls(client)
    name = new_table(client)

    class ComparedTable(HistoriesTable):
        def __init__(self, **options: Any) -> None:
            options |= {"choose_stale": lambda: False, "choose_unprocessed": None}
            super().__init__(name=name, **(options | {"item_bytes": 400 * 1024}))

        def perform(self, call: Call) -> Any:
            try:
                theirs = normalized(calls.perform(call))
            except CallFailed as failed:
                theirs = facts_of(failed)
            ours: Any
            failure: CallFailed | None = None
            try:
                reply = super().perform(call)
                ours = normalized(reply)
            except CallFailed as failed:
                failure, ours = failed, facts_of(failed)
            assert ours == theirs, call
            if failure is not None:
                raise failure
            return reply

        def delete_overdue(self, key: Key, time: int) -> None:
            pk, sk = key
            client.delete_item(TableName=name, Key={"pk": {"S": pk}, "sk": {"S": sk}})
            super().delete_overdue(key, time)

    yield ComparedTable
    client.delete_table(TableName=name)


def facts_of(failed: CallFailed) -> tuple[Any, ...]:
    return failed.code, normalized(failed.item), normalized(failed.reasons)


def normalized(value: Any) -> Any:
    """Return the value without what has no meaning: metadata, and the order of sets and batches."""
    match value:
        case {"Responses": replies}:
            ((_, items),) = replies.items()
            return sorted(map(repr, map(normalized, items)))
        case {"SS": texts}:
            return sorted(texts)
        case dict():
            ignored = ("ConsumedCapacity", "ResponseMetadata", "UnprocessedItems")
            kept = {name: normalized(each) for name, each in value.items() if name not in ignored}
            return dict(sorted(kept.items()))
        case list() | tuple():
            return [normalized(each) for each in value]
    return value


def test_the_simulated_table_replies_as_dynamodb_does(local_table: type[HistoriesTable]) -> None:
    for seed in range(10):
        run_schedule(seed, local_table)
