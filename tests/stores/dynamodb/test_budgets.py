"""What conversations cost at any length, and that the documentation says so.

``docs/costs.md`` is made of what is measured here. Where it has changed, run this module with
``CHATLEDGER_WRITE_DOCS=1`` and see whether the change is one that users should read of.
"""

import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from chatledger.messages import Message, new_id
from chatledger.stores.dynamodb.compression import UNIT
from chatledger.stores.dynamodb.records import size_of
from chatledger.testing.dynamodb_local import DynamoDBLocal
from tests.stores.dynamodb.conftest import OpenStore
from tests.stores.dynamodb.costs_page import PAGE, render
from tests.stores.dynamodb.measuring import OWNER, Measured, Turn, measure
from tests.stores.dynamodb.prose import STARTS, prose
from tests.stores.dynamodb.tables import items_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITE = "CHATLEDGER_WRITE_DOCS"


@pytest.fixture(scope="module")
def measured(dynamodb_local: DynamoDBLocal) -> Measured:
    """All figures, measured once."""
    return measure(dynamodb_local)


ANY_TURN = Turn(question=(1, 1, 0), reply=(2, 4, 0), last_20=(1, 0, 5), both=(2, 5, 0))


def test_a_turn_costs_the_same_at_any_length(measured: Measured) -> None:
    for name in ("turn 10", "turn 100", "turn 1,000", "turn 50,000"):
        assert measured.turns[name] == ANY_TURN, name
    # Of the first one there is less to read.
    assert measured.turns["turn 1"] == replace(ANY_TURN, last_20=(1, 0, 1))


def test_a_turn_is_written_with_5_units_in_3_requests_and_read_with_5_in_1(
    measured: Measured,
) -> None:
    for name, turn in measured.turns.items():
        if name.startswith("turn "):
            written = [sum(figures) for figures in zip(turn.question, turn.reply, strict=True)]
            assert written == [3, 5, 0]
            assert turn.both == (2, 5, 0)
            requests, writes, reads = turn.last_20
            assert (requests, writes) == (1, 0)
            assert reads <= 5


def test_a_conversation_that_nobody_created_costs_a_read_and_its_head_on_the_first_turn(
    measured: Measured,
) -> None:
    # The end is read, the record put, and the head made: it is new to the index, where a renewal
    # takes it out and puts it in.
    first = replace(ANY_TURN, question=(3, 1 + 1 + 1, 1), last_20=(1, 0, 1))
    assert measured.turns["the first, where nobody created the conversation"] == first


def test_a_process_that_is_new_to_a_conversation_reads_its_end_once(measured: Measured) -> None:
    cold = replace(ANY_TURN, question=(2, 1, 1))
    assert measured.turns["one in a process that is new to the conversation"] == cold


def test_a_lifetime_costs_nothing(measured: Measured) -> None:
    assert measured.turns["one where conversations expire after 30 days"] == ANY_TURN


def test_a_conversation_without_an_owner_costs_no_index(measured: Measured) -> None:
    anonymous = replace(ANY_TURN, reply=(2, 2, 0), both=(2, 3, 0), last_20=(1, 0, 4))
    assert measured.turns["one where the conversation has no owner"] == anonymous


def test_a_list_of_20_is_one_request_of_at_most_2_units(measured: Measured) -> None:
    requests, writes, reads = measured.operations["`list` of 20 conversations"]
    assert (requests, writes) == (1, 0)
    assert 0 < reads <= 2


def test_a_fork_is_read_in_two_or_three_requests(measured: Measured) -> None:
    requests, *_ = measured.operations["... of a fork, whose messages lie together"]
    assert requests <= 3


def test_clear_truncate_and_pop_are_one_write_until_every_reader_sees_them(
    measured: Measured,
) -> None:
    for changes in (measured.changes, measured.in_long):
        for name, change in changes.items():
            if name.startswith(("`clear`", "`truncate`", "`pop`", "`delete`")):
                assert change.seen[1] == 1, name


def test_what_is_done_to_the_end_of_a_conversation_costs_the_same_at_any_length(
    measured: Measured,
) -> None:
    cuts = {name: measured.changes[name] for name in measured.in_long if name in measured.changes}
    assert len(cuts) == 3
    for name, change in cuts.items():
        assert measured.in_long[name] == change, name
    assert measured.in_long["`clear`"].seen == measured.changes["`clear` of 20 messages"].seen


def test_a_thousand_characters_of_english_fit_into_one_unit(
    client: "DynamoDBClient", table: str, open_store: OpenStore
) -> None:
    store = open_store()
    lifetime = timedelta(days=30)
    conversation_id = store.create(new_id(), owner=OWNER, expires_in=lifetime).id
    for n in range(len(STARTS)):
        store.append(conversation_id, [Message.user(prose(n))], reply_follows=True)
    sizes = [size_of(item) for item in items_of(client, table) if "b" in item]
    assert len(sizes) == len(STARTS)
    assert max(sizes) < UNIT - 100, "there is some room left"


def test_the_documentation_says_what_was_measured(measured: Measured) -> None:
    text = render(measured)
    if os.environ.get(WRITE):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text, f"run this with {WRITE}=1, and read the change"
