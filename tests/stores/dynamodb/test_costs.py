"""The cost of operations on conversations of any length, and its documentation.

``docs/costs.md`` is generated from the measurements. If they have changed, run this module with
``CHATLEDGER_WRITE_DOCS=1``, and consider whether the changelog should mention the change.
"""

import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from chatledger.messages import Message
from chatledger.stores.dynamodb.records import UNIT, size_of
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.values import new_id
from tests.stores.dynamodb.conftest import OpenStore
from tests.stores.dynamodb.costs_page import COSTS_PAGE, render_page
from tests.stores.dynamodb.measurements import OWNER, Measurements, Turn, measure
from tests.stores.dynamodb.sample_text import SENTENCE_STARTS, sample_text
from tests.stores.dynamodb.tables import items_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITE_DOCS = "CHATLEDGER_WRITE_DOCS"


@pytest.fixture(scope="module")
def measurements(dynamodb_local: DynamoDBLocal) -> Measurements:
    """All figures, measured once for the module."""
    return measure(dynamodb_local)


ANY_TURN = Turn(question=(1, 1, 0), reply=(2, 4, 0), last_20=(1, 0, 5), both=(2, 5, 0))


def test_a_turn_costs_the_same_in_a_conversation_of_any_length(measurements: Measurements) -> None:
    for name in ("turn 10", "turn 100", "turn 1,000", "turn 50,000"):
        assert measurements.turns[name] == ANY_TURN, name
    # After the first turn there is less to read.
    assert measurements.turns["turn 1"] == replace(ANY_TURN, last_20=(1, 0, 1))


def test_a_turn_writes_5_units_in_3_requests_and_reads_at_most_5_in_1(
    measurements: Measurements,
) -> None:
    for name, turn in measurements.turns.items():
        if name.startswith("turn "):
            written = [sum(figures) for figures in zip(turn.question, turn.reply, strict=True)]
            assert written == [3, 5, 0]
            assert turn.both == (2, 5, 0)
            requests, writes, reads = turn.last_20
            assert (requests, writes) == (1, 0)
            assert reads <= 5


def test_the_first_turn_of_a_conversation_not_created_before_also_reads_and_makes_the_head(
    measurements: Measurements,
) -> None:
    # It reads the log end, puts the record and creates the head. A new head costs the index one
    # write; an updated one costs it two, because its sort key changes.
    first = replace(ANY_TURN, question=(3, 1 + 1 + 1, 1), last_20=(1, 0, 1))
    assert measurements.turns["the first, if the conversation was not created before"] == first


def test_a_process_that_has_not_used_a_conversation_before_reads_its_log_end_once(
    measurements: Measurements,
) -> None:
    expected = replace(ANY_TURN, question=(2, 1, 1))
    assert measurements.turns["in a process that has not used the conversation before"] == expected


def test_a_lifetime_costs_nothing(measurements: Measurements) -> None:
    assert measurements.turns["with a lifetime of 30 days"] == ANY_TURN


def test_a_conversation_without_an_owner_costs_no_index(measurements: Measurements) -> None:
    anonymous = replace(ANY_TURN, reply=(2, 2, 0), both=(2, 3, 0), last_20=(1, 0, 4))
    assert measurements.turns["without an owner"] == anonymous


def test_a_list_of_20_conversations_is_one_request_of_at_most_2_units(
    measurements: Measurements,
) -> None:
    requests, writes, reads = measurements.operations["`list` of 20 conversations"]
    assert (requests, writes) == (1, 0)
    assert 0 < reads <= 2


def test_a_fork_is_read_in_at_most_three_requests(measurements: Measurements) -> None:
    requests, *_ = measurements.operations["... of a fork, whose messages are stored together"]
    assert requests <= 3


def test_clear_truncate_pop_and_delete_are_visible_after_one_write(
    measurements: Measurements,
) -> None:
    for changes in (measurements.changes, measurements.in_long):
        for name, change in changes.items():
            if name.startswith(("`clear`", "`truncate`", "`pop`", "`delete`")):
                assert change.until_visible[1] == 1, name


def test_changes_near_the_end_of_a_conversation_cost_the_same_at_any_length(
    measurements: Measurements,
) -> None:
    changes = {
        name: measurements.changes[name]
        for name in measurements.in_long
        if name in measurements.changes
    }
    assert len(changes) == 3
    for name, change in changes.items():
        assert measurements.in_long[name] == change, name
    clear, long_clear = (
        measurements.changes["`clear` of 20 messages"],
        measurements.in_long["`clear`"],
    )
    assert long_clear.until_visible == clear.until_visible


def test_operations_cost_the_same_at_100_and_at_100_000_messages(
    measurements: Measurements,
) -> None:
    short, long, _ = measurements.by_length.values()
    for operation, figures in short.items():
        if operation == "`page` of the first 20 messages":
            # Those of the long one were appended together, and are stored in chunks.
            assert long[operation][0] <= figures[0] + 1
        else:
            assert long[operation] == figures, operation


def test_a_change_in_a_fork_costs_at_most_three_times_what_it_does_elsewhere(
    measurements: Measurements,
) -> None:
    short, _, fork = measurements.by_length.values()
    for operation, (_, writes, reads) in fork.items():
        assert writes <= min(3 * short[operation][1], 15), operation
        assert reads <= 15, operation


def test_a_thousand_characters_of_english_fit_into_one_unit(
    client: "DynamoDBClient", table: str, open_store: OpenStore
) -> None:
    store = open_store()
    lifetime = timedelta(days=30)
    conversation_id = store.create(new_id(), owner=OWNER, expires_in=lifetime).id
    for n in range(len(SENTENCE_STARTS)):
        store.append(conversation_id, [Message.user(sample_text(n))], reply_follows=True)
    sizes = [size_of(item) for item in items_of(client, table) if "b" in item]
    assert len(sizes) == len(SENTENCE_STARTS)
    assert max(sizes) < UNIT - 100, "there is some room to spare"


def test_the_documentation_states_the_measured_figures(measurements: Measurements) -> None:
    text = render_page(measurements)
    if os.environ.get(WRITE_DOCS):
        COSTS_PAGE.write_text(text, encoding="utf-8")
    page = COSTS_PAGE.read_text(encoding="utf-8")
    assert page == text, f"run this with {WRITE_DOCS}=1, and review the change"
