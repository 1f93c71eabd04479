"""What plans make of DynamoDB's answers, told by literal ones: no server is asked."""

from datetime import timedelta
from random import Random
from typing import Any

import pytest

from chatledger.conversations import Appended
from chatledger.errors import Conflict, NotFound, StoreUnavailable
from chatledger.stores.dynamodb import bodies, plans, reading
from chatledger.stores.dynamodb.calls import FIRST_WAIT, LONGEST_WAIT, Call, CallFailed, Plan, run
from chatledger.stores.dynamodb.log import Log
from chatledger.stores.dynamodb.records import Fence, encode_fence
from chatledger.testing.store_contract.helpers import said as texts_of
from chatledger.testing.store_contract.helpers import say
from tests.stores.dynamodb.plan_driver import CONDITION, ByHand, Driven, found, said

TRANSIENT = [
    "InternalServerError",
    "NoAnswer",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
]
CANCELLED = "TransactionCanceledException"


@pytest.fixture
def by_hand() -> ByHand:
    return ByHand()


def append(
    by_hand: ByHand,
    *texts: str,
    after: int | None = None,
    owner: str | None = None,
    key: str | None = None,
    follows: bool = False,
) -> Plan[Appended]:
    return by_hand.patiently(
        plans.append(
            by_hand.table,
            "trip",
            say(*texts or ["hello"]),
            owner=owner,
            after=after,
            idempotency_key=key,
            reply_follows=follows,
        )
    )


def at_the_put(by_hand: ByHand, plan: Plan[Appended]) -> Driven[Appended]:
    """The plan, told that the conversation has three messages and about to put the fourth."""
    driven = Driven(plan)
    assert driven.operation == "Query"
    driven.answer(found(by_hand.item(3)))
    assert driven.operation in ("PutItem", "TransactWriteItems")
    return driven


def position(driven: Driven[Appended]) -> int:
    """Where its record is to be put."""
    return int(driven.call.params["Item"]["sk"]["S"].removeprefix("m#"))


def warm(by_hand: ByHand) -> None:
    """Have the table remember that message 4 was appended just now."""
    driven = at_the_put(by_hand, append(by_hand, follows=True))
    driven.answer()
    assert driven.result.revision == 4


# Rivals, and ourselves


@pytest.mark.parametrize("code", TRANSIENT)
@pytest.mark.parametrize("after", [None, 3])
def test_throttling_is_not_mistaken_for_a_conflict(
    by_hand: ByHand, code: str, after: int | None
) -> None:
    driven = at_the_put(by_hand, append(by_hand, after=after))
    put = driven.call
    for _ in range(3):
        driven.fail(code)
        assert driven.wait <= LONGEST_WAIT
        driven.answer()
        assert driven.call == put, "the very same is tried again"
    driven.answer()
    assert driven.operation == "UpdateItem"
    driven.answer()
    assert driven.result == Appended(range(4, 5), 4)


def test_a_record_in_the_way_that_bears_our_token_is_ours(by_hand: ByHand) -> None:
    driven = at_the_put(by_hand, append(by_hand))
    ours = driven.call.params["Item"]
    driven.fail("NoAnswer", unknown=True)
    driven.answer()
    driven.fail(CONDITION, item=ours)
    assert driven.operation == "UpdateItem", "it is in, and the head is what is left to do"
    driven.answer()
    assert driven.result == Appended(range(4, 5), 4)


def test_a_record_of_ours_was_in_though_it_has_died_since(by_hand: ByHand) -> None:
    driven = at_the_put(by_hand, append(by_hand, "1", "2", follows=True))
    token = driven.call.params["Item"]["k"]["S"]
    driven.fail("NoAnswer", unknown=True)
    driven.answer()
    driven.fail(CONDITION, item=encode_fence("trip", Fence(4, 2, token), 1_800_000_000))
    assert driven.result == Appended(range(4, 6), 5)


def test_a_transaction_that_finds_our_token_was_ours(by_hand: ByHand) -> None:
    driven = at_the_put(by_hand, append(by_hand, key="request-7", follows=True))
    ours, key = (part["Put"]["Item"] for part in driven.call.params["TransactItems"])
    driven.fail("NoAnswer", unknown=True)
    driven.answer()
    reasons = (("ConditionalCheckFailed", ours), ("ConditionalCheckFailed", key))
    driven.fail(CANCELLED, reasons=reasons)
    while driven.step is not None:
        # Whatever it asks, it is told what is there; and nothing is put any more.
        assert driven.operation in ("Query", "GetItem")
        driven.answer(found(ours) if driven.operation == "Query" else {"Item": key})
    assert driven.result == Appended(range(4, 5), 4)


def test_behind_a_rival_it_is_tried_again_at_once_and_without_a_read(by_hand: ByHand) -> None:
    driven = at_the_put(by_hand, append(by_hand, "1", "2", follows=True))
    driven.fail(CONDITION, item=by_hand.item(4, width=5, messages=5, message_count=8))
    assert position(driven) == 9
    assert driven.call.params["Item"]["a"] == {"N": "8"}, "it says what it follows"
    assert driven.call.params["Item"]["q"] == {"N": "10"}
    driven.answer()
    assert driven.result == Appended(range(9, 11), 10)


def test_behind_many_rivals_the_end_is_read_and_others_are_given_way(by_hand: ByHand) -> None:
    operations: list[str] = []
    waits: list[float] = []
    stands_at = 3

    def always_beaten(call: Call) -> dict[str, Any]:
        nonlocal stands_at
        operations.append(call.operation)
        if call.operation == "Query":
            stands_at += 10  # far ahead of whoever goes step by step
            return found(by_hand.item(stands_at))
        tried = int(call.params["Item"]["sk"]["S"].removeprefix("m#"))
        if len(operations) < 11:
            raise CallFailed(CONDITION, item=by_hand.item(tried))
        return {}

    appended = run(append(by_hand, follows=True), always_beaten, waits.append)
    three = ["Query", "PutItem", "PutItem", "PutItem"]
    assert operations == [*three, *three, *three[:3]]
    assert appended.revision == 35
    assert len(set(waits)) == 6, "from the second time on, each time for another while"
    assert max(waits) <= 0.25


def test_nothing_is_refused_on_a_remembered_word(by_hand: ByHand) -> None:
    warm(by_hand)
    driven = Driven(append(by_hand, after=3))
    assert driven.operation == "Query", "it remembers 4, and looks again"
    with pytest.raises(Conflict) as refused:
        driven.answer(found(by_hand.item(5)))
    assert (refused.value.expected, refused.value.revision) == (3, 5)

    driven = Driven(append(by_hand, owner="eve"))
    assert driven.operation == "Query"
    with pytest.raises(NotFound):
        driven.answer(found(by_hand.item(5, owner="bob")))


def test_nothing_is_refused_on_the_word_of_a_rival(by_hand: ByHand) -> None:
    driven = at_the_put(by_hand, append(by_hand, after=3))
    driven.fail(CONDITION, item=by_hand.item(4))
    assert driven.operation == "Query"
    with pytest.raises(Conflict) as refused:
        driven.answer(found(by_hand.item(4)))
    assert refused.value.revision == 4


def test_after_is_not_taken_on_trust(by_hand: ByHand) -> None:
    driven = Driven(append(by_hand, after=7))
    with pytest.raises(Conflict):
        driven.answer(found(by_hand.item(3)))
    driven = Driven(append(by_hand, after=7))
    with pytest.raises(NotFound):
        driven.answer(found())


# Patience


@pytest.mark.parametrize("code", TRANSIENT)
def test_what_is_transient_is_tried_again_with_full_jitter_until_patience_ends(code: str) -> None:
    waits_of = [waits_until_it_gives_up(ByHand(seed=seed), code) for seed in range(100)]
    for n, of_one_try in enumerate(zip(*(waits[:10] for waits in waits_of), strict=True)):
        longest = min(FIRST_WAIT * 2**n, LONGEST_WAIT)
        assert 0 <= min(of_one_try) < longest / 10
        assert longest * 9 / 10 < max(of_one_try) <= longest


def waits_until_it_gives_up(by_hand: ByHand, code: str) -> list[float]:
    driven = at_the_put(by_hand, append(by_hand))
    waits: list[float] = []

    def try_on() -> None:
        while True:
            driven.fail(code)
            waits.append(driven.wait)
            by_hand.seconds += driven.wait
            driven.answer()

    with pytest.raises(StoreUnavailable, match=code) as refused:
        try_on()
    assert not refused.value.may_have_landed
    assert 20 - LONGEST_WAIT <= by_hand.seconds <= 20
    return waits


def test_what_is_no_passing_trouble_is_not_tried_again(by_hand: ByHand) -> None:
    driven = at_the_put(by_hand, append(by_hand))
    with pytest.raises(CallFailed):
        driven.fail("ValidationException")


@pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError"])
def test_a_transaction_in_the_way_of_another_is_tried_again(by_hand: ByHand, reason: str) -> None:
    driven = at_the_put(by_hand, append(by_hand, key="request-7", follows=True))
    transaction = driven.call
    driven.fail(CANCELLED, reasons=((None, None), (reason, None)))
    assert driven.wait <= FIRST_WAIT
    driven.answer()
    assert driven.call == transaction
    driven.answer()
    assert driven.result.revision == 4


def test_what_a_key_answers_waits_for_a_look_at_the_record_that_it_came_with() -> None:
    """That may have let the conversation expire, by a clock that is behind."""
    by_hand = ByHand()
    first = at_the_put(by_hand, append(by_hand, key="request-7"))
    record, key = (each["Put"]["Item"] for each in first.call.params["TransactItems"])
    again = Driven(append(by_hand, key="request-7", after=0))
    again.answer(found(by_hand.item(3)))
    assert again.operation == "GetItem"
    again.answer({"Item": key})
    assert again.operation == "Query"
    again.answer(found(record))
    assert again.operation == "GetItem"
    again.answer({"Item": key})
    assert again.result == Appended(range(4, 5), 4)


def test_a_title_that_was_freed_while_it_was_looked_for_is_not_taken_for_none() -> None:
    """The head that bears it was not there yet, and now another process ends the conversation."""
    by_hand = ByHand()
    fence = encode_fence("trip", by_hand.record(1), 1)
    driven = Driven(by_hand.patiently(plans.get(by_hand.table, "trip", owner=None)))
    driven.answer(found(by_hand.item(2)))
    assert driven.operation == "GetItem"
    driven.answer({"Item": fence})
    assert driven.operation == "Query"
    driven.answer(found(by_hand.item(3, messages=0, closed=True)))
    assert driven.wait < LONGEST_WAIT, "it is read anew"
    driven.answer()
    with pytest.raises(NotFound):
        driven.answer(found(by_hand.item(3, messages=0, closed=True)))


def test_a_head_that_is_lost_for_good_leaves_the_conversation_readable() -> None:
    by_hand = ByHand()
    driven = Driven(by_hand.patiently(plans.get(by_hand.table, "trip", owner=None)))
    driven.answer(found(by_hand.item(2)))
    driven.answer({"Item": encode_fence("trip", by_hand.record(1), 1)})
    driven.answer(found(by_hand.item(2)))
    assert (driven.result.title, driven.result.message_count) == (None, 2)


@pytest.mark.parametrize("stamp", [None, 1_900_000_000])
def test_what_a_cut_leaves_of_a_record_keeps_its_own_stamp(stamp: int | None) -> None:
    """The cut's may be from before another process had the conversation live for ever."""
    by_hand = ByHand()
    record = by_hand.record(
        1, width=2, messages=2, message_count=2, body=said("1", "2"), stamp=stamp
    )
    cut = by_hand.record(3, stamp=1_800_000_000)
    plan = bodies.shorten(Log(by_hand.table, "trip"), reading.Stretch(record, 1, 1), cut)
    driven = Driven(by_hand.patiently(plan))
    assert driven.operation == "PutItem"
    kept = driven.call.params["Item"].get("expires_at")
    assert kept == (None if stamp is None else {"N": str(stamp)})


# Parts


def at_the_parts(by_hand: ByHand) -> Driven[Appended]:
    """The plan of a first message that is too long for a record, about to write its parts."""
    driven = Driven(append(by_hand, Random(1).randbytes(80_000).hex(), owner="bob"))
    driven.answer(found())
    assert driven.operation == "BatchWriteItem"
    return driven


def tokens_of_parts(driven: Driven[Appended]) -> set[str]:
    requests = driven.call.params["RequestItems"]["conversations"]
    return {request["PutRequest"]["Item"]["sk"]["S"].split("#")[1] for request in requests}


def test_parts_with_a_stamp_that_may_still_arrive_are_written_under_another_token() -> None:
    """The late one could bring back a stamp that was taken away meanwhile, for TTL to eat it."""
    by_hand = ByHand(expire_after=timedelta(days=30))
    driven = at_the_parts(by_hand)
    tokens = []
    for _ in range(2):
        tokens.append(tokens_of_parts(driven))
        driven.fail("NoAnswer", unknown=True)
    assert driven.operation == "BatchWriteItem"
    tokens.append(tokens_of_parts(driven))
    assert len(set.union(*tokens)) == 3
    driven.answer()
    (named,) = tokens[-1]
    assert driven.call.params["Item"]["y"] == {"S": named}


def test_it_is_given_up_in_the_end_and_nothing_has_landed() -> None:
    driven = at_the_parts(ByHand(expire_after=timedelta(days=30)))
    for _ in range(2):
        driven.fail("NoAnswer", unknown=True)
    with pytest.raises(StoreUnavailable, match="long message") as refused:
        driven.fail("NoAnswer", unknown=True)
    assert not refused.value.may_have_landed


@pytest.mark.parametrize("expire_after", [None, timedelta(days=30)])
def test_parts_that_never_arrived_are_sent_again(expire_after: timedelta | None) -> None:
    driven = at_the_parts(ByHand(expire_after=expire_after))
    sent = driven.call
    driven.fail("ThrottlingException")
    driven.answer()
    assert driven.call == sent


def test_parts_without_a_stamp_may_arrive_twice() -> None:
    driven = at_the_parts(ByHand())
    sent = driven.call
    driven.fail("NoAnswer", unknown=True)
    driven.answer()
    assert driven.call == sent


GAVE_UP = [
    (["ThrottlingException"], [], False),
    (["ThrottlingException", "NoAnswer"], ["NoAnswer"], True),
    # What is known of the last try says nothing of an earlier one.
    (["NoAnswer", "ThrottlingException"], ["NoAnswer"], True),
    (["InternalServerError"], ["InternalServerError"], True),
    (["NoAnswer"], [], False),  # no connection came about
]


@pytest.mark.parametrize(("codes", "unknown", "may_have_landed"), GAVE_UP)
@pytest.mark.parametrize("key", [None, "request-7"])
def test_it_is_said_of_a_write_whether_it_may_have_landed(
    by_hand: ByHand, codes: list[str], unknown: list[str], may_have_landed: bool, key: str | None
) -> None:
    driven = at_the_put(by_hand, append(by_hand, key=key))
    for code in codes[:-1]:
        driven.fail(code, unknown=code in unknown)
        driven.answer()
    by_hand.seconds += 21
    with pytest.raises(StoreUnavailable) as refused:
        driven.fail(codes[-1], unknown=codes[-1] in unknown)
    assert refused.value.may_have_landed is may_have_landed


def test_a_read_never_landed(by_hand: ByHand) -> None:
    driven = Driven(append(by_hand))
    driven.fail("NoAnswer", unknown=True)
    driven.answer()
    by_hand.seconds += 21
    with pytest.raises(StoreUnavailable) as refused:
        driven.fail("NoAnswer", unknown=True)
    assert not refused.value.may_have_landed


@pytest.mark.parametrize(
    "code", ["ThrottlingException", "AccessDeniedException", "ExpiredTokenException"]
)
def test_an_append_that_is_in_is_not_answered_with_an_error_of_its_head(
    by_hand: ByHand, code: str
) -> None:
    driven = at_the_put(by_hand, append(by_hand))
    driven.answer()
    assert driven.operation == "UpdateItem"
    driven.fail(code)
    if driven.step is not None:
        driven.answer()
        by_hand.seconds += 21
        driven.fail(code)
    assert driven.result == Appended(range(4, 5), 4)


def test_a_write_that_may_have_landed_says_so_whatever_came_of_the_next_try(
    by_hand: ByHand,
) -> None:
    driven = at_the_put(by_hand, append(by_hand))
    driven.fail("NoAnswer", unknown=True)
    driven.answer()
    with pytest.raises(CallFailed) as failed:
        driven.fail("ExpiredTokenException")
    assert failed.value.unknown


# What is remembered

MINUTE = 60


@pytest.mark.parametrize(
    ("wall", "monotonic", "remembered"),
    [
        (59 * MINUTE, 59 * MINUTE, True),
        (59 * MINUTE, 0, True),
        # A frozen process's monotonic clock stands still, and the wall clock may be set back.
        (61 * MINUTE, 0, False),
        (-5 * MINUTE, 61 * MINUTE, False),
        (0, 61 * MINUTE, False),
        (-5 * MINUTE, 0, False),
    ],
)
def test_a_position_is_remembered_for_an_hour_by_each_of_both_clocks(
    by_hand: ByHand, wall: float, monotonic: float, remembered: bool
) -> None:
    warm(by_hand)
    by_hand.clock.advance(seconds=wall)
    by_hand.seconds += monotonic
    driven = Driven(append(by_hand))
    assert driven.operation == ("PutItem" if remembered else "Query")


def test_a_position_is_not_remembered_beyond_the_end_of_the_conversation() -> None:
    by_hand = ByHand(expire_after=timedelta(minutes=10))
    driven = Driven(append(by_hand, follows=True))
    driven.answer(found())
    driven.answer()
    driven.answer()
    assert driven.result.revision == 1
    by_hand.clock.advance(minutes=9)
    assert Driven(append(by_hand)).operation == "PutItem"
    by_hand.clock.advance(minutes=1)
    assert Driven(append(by_hand)).operation == "Query"


def test_a_position_is_as_old_as_the_moment_before_it_was_put(by_hand: ByHand) -> None:
    driven = at_the_put(by_hand, append(by_hand, follows=True))
    by_hand.clock.advance(minutes=30)  # the put takes its time
    driven.answer()
    assert driven.result.revision == 4
    by_hand.clock.advance(minutes=31)
    assert Driven(append(by_hand)).operation == "Query"


# Torn reads


def test_a_tail_that_was_torn_is_read_again(by_hand: ByHand) -> None:
    driven = Driven(by_hand.patiently(plans.tail(by_hand.table, "trip", 3, owner=None)))
    # 3 was cut off and fenced by 4 while the query ran: it saw one and not the other.
    driven.answer(found(by_hand.item(5, after=2), by_hand.item(3), by_hand.item(1)))
    assert driven.wait < 1
    driven.answer()
    cut = by_hand.item(4, after=2, messages=0, body=None, message_count=2)
    last = by_hand.item(5, after=2, message_count=3)
    driven.answer(found(last, cut, by_hand.item(2)))
    if driven.step is not None:
        driven.answer(found(by_hand.item(1)))
    while driven.step is not None:
        driven.answer({"Item": by_hand.item(1)})
    tail = driven.result
    assert texts_of(tail.messages) == ["message 1", "message 2", "message 5"]
    assert tail.conversation.revision == 5
    assert tail.conversation.message_count == 3


def test_a_page_that_was_torn_is_read_again(by_hand: ByHand) -> None:
    plan = plans.page(by_hand.table, "trip", after=None, before=None, limit=10, owner=None)
    driven = Driven(by_hand.patiently(plan))
    driven.answer(found(by_hand.item(3)))
    # 2 was replaced in the meantime, with a change that this reader has not seen.
    driven.answer(found(by_hand.item(1), by_hand.item(2, rewritten=4), by_hand.item(3)))
    assert driven.wait < 1
    driven.answer()
    marker = by_hand.item(4, after=3, messages=0, body=None, message_count=3)
    driven.answer(found(marker))
    changed = by_hand.item(2, rewritten=4, body=said("another"))
    driven.answer(found(by_hand.item(1), changed, by_hand.item(3), marker))
    assert texts_of(driven.result.messages) == ["message 1", "another", "message 3"]


def test_a_conversation_that_never_stands_still_is_given_up(by_hand: ByHand) -> None:
    def never_still(call: Call) -> dict[str, Any]:
        return found(by_hand.item(5, after=4), by_hand.item(3), by_hand.item(2))

    waits: list[float] = []
    plan = by_hand.patiently(plans.tail(by_hand.table, "trip", 3, owner=None))
    with pytest.raises(StoreUnavailable, match="kept changing"):
        run(plan, never_still, waits.append)
    assert len(waits) == 100
    assert max(waits) <= 0.5
