"""Plans and DynamoDB's replies: literal replies stand in for a server."""

import gc
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from chatledger.conversations import Appended
from chatledger.errors import Conflict, ConversationDamaged, NotFound, StoreUnavailable
from chatledger.stores.dynamodb import cleanup
from chatledger.stores.dynamodb.calls import FIRST_WAIT, LONGEST_WAIT, Call, CallFailed, Plan
from chatledger.stores.dynamodb.log import Log
from chatledger.stores.dynamodb.records import HEAD, Tombstone, encode_record, encode_tombstone
from chatledger.testing.store_contract.helpers import texts_of, user_messages
from tests.stores.dynamodb.logs import head_item
from tests.stores.dynamodb.plan_driver import (
    CONDITION_FAILED,
    PlanDriver,
    PlanHarness,
    body_of,
    query_reply,
    run,
)
from tests.stores.dynamodb.plan_store import plans_on

TRANSIENT = [
    "InternalServerError",
    "NoReply",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
]
CANCELLED = "TransactionCanceledException"


@pytest.fixture
def harness() -> PlanHarness:
    return PlanHarness()


def append(
    harness: PlanHarness,
    *texts: str,
    revision: int | None = None,
    owner: str | None = None,
    key: str | None = None,
    reply_follows: bool = False,
) -> Plan[Appended]:
    return harness.with_retries(
        plans_on(harness.table).append(
            "trip",
            user_messages(*texts or ["hello"]),
            owner=owner,
            revision=revision,
            idempotency_key=key,
            reply_follows=reply_follows,
        )
    )


def drive_to_put(harness: PlanHarness, plan: Plan[Appended]) -> PlanDriver[Appended]:
    """Drive the plan until it puts message 4 of a conversation of three messages."""
    driver = PlanDriver(plan)
    assert driver.operation == "Query"
    driver.reply(query_reply(harness.item(3)))
    assert driver.operation in ("PutItem", "TransactWriteItems")
    return driver


def position_of_put(driver: PlanDriver[Appended]) -> int:
    return int(driver.call.params["Item"]["sk"]["S"].removeprefix("m#"))


def fill_cache(harness: PlanHarness) -> None:
    """Append message 4, so that the table caches the log end."""
    driver = drive_to_put(harness, append(harness, reply_follows=True))
    driver.reply()
    assert driver.result.revision == 4


# Conditional writes: rivals and our own records ---------------------------------------------------


@pytest.mark.parametrize("code", TRANSIENT)
@pytest.mark.parametrize("after", [None, 3])
def test_throttling_is_not_mistaken_for_a_conflict(
    harness: PlanHarness, code: str, after: int | None
) -> None:
    driver = drive_to_put(harness, append(harness, revision=after))
    put = driver.call
    for _ in range(3):
        driver.fail(code)
        assert driver.wait_seconds <= LONGEST_WAIT
        driver.reply()
        assert driver.call == put, "the same call is retried"
    driver.reply()
    assert driver.operation == "UpdateItem"
    driver.reply()
    assert driver.result == Appended(range(4, 5), 4)


def test_a_conflicting_record_with_our_token_is_our_own(harness: PlanHarness) -> None:
    driver = drive_to_put(harness, append(harness))
    ours = driver.call.params["Item"]
    driver.fail("NoReply", unknown=True)
    driver.reply()
    driver.fail(CONDITION_FAILED, item=ours)
    assert driver.operation == "UpdateItem", "the record is written; only the head is left to do"
    driver.reply()
    assert driver.result == Appended(range(4, 5), 4)


def test_a_tombstone_with_our_token_means_that_our_record_was_written(harness: PlanHarness) -> None:
    driver = drive_to_put(harness, append(harness, "1", "2", reply_follows=True))
    token = driver.call.params["Item"]["k"]["S"]
    driver.fail("NoReply", unknown=True)
    driver.reply()
    tombstone = encode_tombstone("trip", Tombstone(4, 2, token), 1_800_000_000)
    driver.fail(CONDITION_FAILED, item=tombstone)
    assert driver.result == Appended(range(4, 6), 5)


def test_a_cancelled_transaction_that_finds_our_token_had_succeeded(harness: PlanHarness) -> None:
    driver = drive_to_put(harness, append(harness, key="request-7", reply_follows=True))
    ours, key = (part["Put"]["Item"] for part in driver.call.params["TransactItems"])
    driver.fail("NoReply", unknown=True)
    driver.reply()
    reasons = (("ConditionalCheckFailed", ours), ("ConditionalCheckFailed", key))
    driver.fail(CANCELLED, reasons=reasons)
    while driver.step is not None:
        # The plan may read again, and finds both items. It must not write anything.
        assert driver.operation in ("Query", "GetItem")
        driver.reply(query_reply(ours) if driver.operation == "Query" else {"Item": key})
    assert driver.result == Appended(range(4, 5), 4)


def test_after_a_rival_the_append_is_retried_at_once_and_without_a_read(
    harness: PlanHarness,
) -> None:
    driver = drive_to_put(harness, append(harness, "1", "2", reply_follows=True))
    driver.fail(CONDITION_FAILED, item=harness.item(4, width=5, messages=5, message_count=8))
    assert position_of_put(driver) == 9
    assert driver.call.params["Item"]["a"] == {"N": "8"}, "the previous seq is the rival's last"
    assert driver.call.params["Item"]["q"] == {"N": "10"}
    driver.reply()
    assert driver.result == Appended(range(9, 11), 10)


def test_after_many_rivals_the_append_reads_the_log_end_and_backs_off(harness: PlanHarness) -> None:
    operations: list[str] = []
    waits: list[float] = []
    revision = 3

    def let_rivals_win(call: Call) -> dict[str, Any]:
        nonlocal revision
        operations.append(call.operation)
        if call.operation == "Query":
            revision += 10  # far ahead of a writer that moves one position at a time
            return query_reply(harness.item(revision))
        position = int(call.params["Item"]["sk"]["S"].removeprefix("m#"))
        if len(operations) < 11:
            raise CallFailed(CONDITION_FAILED, item=harness.item(position))
        return {}

    appended = run(append(harness, reply_follows=True), let_rivals_win, waits.append)
    three_puts = ["Query", "PutItem", "PutItem", "PutItem"]
    assert operations == [*three_puts, *three_puts, *three_puts[:3]]
    assert appended.revision == 35
    assert len(set(waits)) == 6, "from the second loss on, a different wait each time"
    assert max(waits) <= 0.25


def test_an_append_is_never_rejected_on_cached_state(harness: PlanHarness) -> None:
    fill_cache(harness)
    driver = PlanDriver(append(harness, revision=3))
    assert driver.operation == "Query", "revision 4 is cached, but it is read again"
    with pytest.raises(Conflict) as raised:
        driver.reply(query_reply(harness.item(5)))
    assert (raised.value.expected, raised.value.revision) == (3, 5)

    driver = PlanDriver(append(harness, owner="eve"))
    assert driver.operation == "Query"
    with pytest.raises(NotFound):
        driver.reply(query_reply(harness.item(5, owner="bob")))


def test_an_append_is_never_rejected_on_the_record_of_a_rival(harness: PlanHarness) -> None:
    driver = drive_to_put(harness, append(harness, revision=3))
    driver.fail(CONDITION_FAILED, item=harness.item(4))
    assert driver.wait_seconds <= 0.25
    driver.reply()
    assert driver.operation == "Query"
    with pytest.raises(Conflict) as raised:
        driver.reply(query_reply(harness.item(4)))
    assert raised.value.revision == 4


def test_after_is_compared_with_the_log_end(harness: PlanHarness) -> None:
    driver = PlanDriver(append(harness, revision=7))
    with pytest.raises(Conflict):
        driver.reply(query_reply(harness.item(3)))
    driver = PlanDriver(append(harness, revision=7))
    with pytest.raises(NotFound):
        driver.reply(query_reply())


# Retries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", TRANSIENT)
def test_a_transient_failure_is_retried_with_full_jitter_until_patience_ends(code: str) -> None:
    waits_by_seed = [waits_until_it_gives_up(PlanHarness(seed=seed), code) for seed in range(100)]
    for n, nth_waits in enumerate(zip(*(waits[:10] for waits in waits_by_seed), strict=True)):
        longest = min(FIRST_WAIT * 2**n, LONGEST_WAIT)
        assert 0 <= min(nth_waits) < longest / 10
        assert longest * 9 / 10 < max(nth_waits) <= longest


def waits_until_it_gives_up(harness: PlanHarness, code: str) -> list[float]:
    driver = drive_to_put(harness, append(harness))
    waits: list[float] = []

    def keep_failing() -> None:
        while True:
            driver.fail(code)
            waits.append(driver.wait_seconds)
            harness.monotonic += driver.wait_seconds
            driver.reply()

    with pytest.raises(StoreUnavailable, match=code) as raised:
        keep_failing()
    assert not raised.value.may_have_landed
    assert 20 - LONGEST_WAIT <= harness.monotonic <= 20
    return waits


def test_a_permanent_failure_is_not_retried(harness: PlanHarness) -> None:
    driver = drive_to_put(harness, append(harness))
    with pytest.raises(CallFailed):
        driver.fail("ValidationException")


@pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError"])
def test_a_transaction_that_meets_another_is_retried(harness: PlanHarness, reason: str) -> None:
    driver = drive_to_put(harness, append(harness, key="request-7", reply_follows=True))
    transaction = driver.call
    driver.fail(CANCELLED, reasons=((None, None), (reason, None)))
    assert driver.wait_seconds <= FIRST_WAIT
    driver.reply()
    assert driver.call == transaction
    driver.reply()
    assert driver.result.revision == 4


def test_an_idempotency_key_whose_record_is_newer_than_the_log_end_makes_it_read_again() -> None:
    """That record, whose writer's clock may be slow, may have let the conversation expire."""
    harness = PlanHarness()
    first = drive_to_put(harness, append(harness, key="request-7"))
    record, key = (part["Put"]["Item"] for part in first.call.params["TransactItems"])
    driver = PlanDriver(append(harness, key="request-7", revision=0))
    driver.reply(query_reply(harness.item(3)))
    assert driver.operation == "GetItem"
    driver.reply({"Item": key})
    assert driver.operation == "Query"
    driver.reply(query_reply(record))
    assert driver.operation == "GetItem"
    driver.reply({"Item": key})
    assert driver.operation == "Query", "the first call has not updated the head"
    driver.reply(query_reply())
    assert driver.result == Appended(range(4, 5), 4)


def test_a_title_that_is_freed_during_a_read_is_not_taken_for_no_title() -> None:
    """The head with the title was not there yet, and another process now deletes the
    conversation.
    """
    harness = PlanHarness()
    tombstone = encode_tombstone("trip", harness.record(1), 1)
    driver = PlanDriver(harness.with_retries(plans_on(harness.table).get("trip", owner=None)))
    driver.reply(query_reply(harness.item(2)))
    assert driver.operation == "GetItem"
    driver.reply({"Item": tombstone})
    assert driver.operation == "Query"
    driver.reply(query_reply(harness.item(3, messages=0, closed=True)))
    assert driver.wait_seconds < LONGEST_WAIT, "it reads again"
    driver.reply()
    with pytest.raises(NotFound):
        driver.reply(query_reply(harness.item(3, messages=0, closed=True)))


def test_a_conversation_whose_head_is_lost_for_good_stays_readable() -> None:
    harness = PlanHarness()
    driver = PlanDriver(harness.with_retries(plans_on(harness.table).get("trip", owner=None)))
    driver.reply(query_reply(harness.item(2)))
    driver.reply({"Item": encode_tombstone("trip", harness.record(1), 1)})
    driver.reply(query_reply(harness.item(2)))
    assert (driver.result.title, driver.result.message_count) == (None, 2)


@pytest.mark.parametrize("ttl", [None, 1_900_000_000])
def test_a_record_that_is_shortened_by_a_truncation_keeps_its_own_ttl(ttl: int | None) -> None:
    """The truncation's is another one: it was written later."""
    harness = PlanHarness()
    body = body_of("1", "2")
    record = harness.item(1, width=2, messages=2, message_count=2, body=body, ttl=ttl)
    truncation = harness.record(
        3, messages=0, previous_seq=1, message_count=1, truncated=((2, 2),), ttl=1_800_000_000
    )
    plan = cleanup.free_truncated(
        Log(harness.table, "trip"), truncation, read_at=harness.table.now()
    )
    driver = PlanDriver(harness.with_retries(plan))
    driver.reply(query_reply(record))
    if driver.operation == "Query":  # nothing named message 1 yet, so the log's end is checked
        driver.reply(query_reply(encode_record("trip", truncation)))
    assert driver.operation == "PutItem"
    assert driver.call.params["Item"]["n"] == {"N": "1"}
    kept = driver.call.params["Item"].get("expires_at")
    assert kept == (None if ttl is None else {"N": str(ttl)})


# Body parts ---------------------------------------------------------------------------------------


def drive_to_body_parts(harness: PlanHarness) -> PlanDriver[Appended]:
    """Drive the append of a message too long for a record until it writes the body parts."""
    driver = PlanDriver(append(harness, Random(1).randbytes(80_000).hex(), owner="bob"))
    driver.reply(query_reply())
    assert driver.operation == "BatchWriteItem"
    return driver


def tokens_of_body_parts(driver: PlanDriver[Appended]) -> set[str]:
    requests = driver.call.params["RequestItems"]["conversations"]
    return {request["PutRequest"]["Item"]["sk"]["S"].split("#")[1] for request in requests}


@pytest.mark.parametrize("expire_after", [None, timedelta(days=30)])
def test_body_parts_are_retried_until_patience_ends(expire_after: timedelta | None) -> None:
    harness = PlanHarness(expire_after=expire_after)
    driver = drive_to_body_parts(harness)
    driver.fail("NoReply", unknown=True)
    driver.reply()
    harness.monotonic += 21
    with pytest.raises(StoreUnavailable, match="BatchWriteItem"):
        driver.fail("NoReply", unknown=True)


@pytest.mark.parametrize("expire_after", [None, timedelta(days=30)])
def test_body_parts_that_never_arrived_are_sent_again(expire_after: timedelta | None) -> None:
    driver = drive_to_body_parts(PlanHarness(expire_after=expire_after))
    sent = driver.call
    driver.fail("ThrottlingException")
    driver.reply()
    assert driver.call == sent


@pytest.mark.parametrize("expire_after", [None, timedelta(days=30)])
def test_body_parts_whose_outcome_is_unknown_are_written_again(
    expire_after: timedelta | None,
) -> None:
    """They are never changed, so that writing them twice does no harm."""
    driver = drive_to_body_parts(PlanHarness(expire_after=expire_after))
    sent, tokens = driver.call, tokens_of_body_parts(driver)
    driver.fail("NoReply", unknown=True)
    driver.reply()
    assert driver.call == sent
    while driver.operation == "BatchWriteItem":
        assert tokens_of_body_parts(driver) == tokens
        driver.reply()
    assert {driver.call.params["Item"]["y"]["S"]} == tokens


# Unknown outcomes ---------------------------------------------------------------------------------

FAILURES = [
    (["ThrottlingException"], [], False),
    (["ThrottlingException", "NoReply"], ["NoReply"], True),
    # The outcome of the last attempt says nothing about an earlier one.
    (["NoReply", "ThrottlingException"], ["NoReply"], True),
    (["InternalServerError"], ["InternalServerError"], True),
    (["NoReply"], [], False),  # no connection
]


@pytest.mark.parametrize(("codes", "unknown", "may_have_landed"), FAILURES)
@pytest.mark.parametrize("key", [None, "request-7"])
def test_a_failed_write_says_whether_it_may_have_landed(
    harness: PlanHarness,
    codes: list[str],
    unknown: list[str],
    may_have_landed: bool,
    key: str | None,
) -> None:
    driver = drive_to_put(harness, append(harness, key=key))
    for code in codes[:-1]:
        driver.fail(code, unknown=code in unknown)
        driver.reply()
    harness.monotonic += 21
    with pytest.raises(StoreUnavailable) as raised:
        driver.fail(codes[-1], unknown=codes[-1] in unknown)
    assert raised.value.may_have_landed is may_have_landed


def test_a_read_has_never_landed(harness: PlanHarness) -> None:
    driver = PlanDriver(append(harness))
    driver.fail("NoReply", unknown=True)
    driver.reply()
    harness.monotonic += 21
    with pytest.raises(StoreUnavailable) as raised:
        driver.fail("NoReply", unknown=True)
    assert not raised.value.may_have_landed


@pytest.mark.parametrize(
    "code", ["ThrottlingException", "AccessDeniedException", "ExpiredTokenException"]
)
def test_an_append_succeeds_even_if_its_head_cannot_be_updated(
    harness: PlanHarness, code: str
) -> None:
    driver = drive_to_put(harness, append(harness))
    driver.reply()
    assert driver.operation == "UpdateItem"
    driver.fail(code)
    if driver.step is not None:
        driver.reply()
        harness.monotonic += 21
        driver.fail(code)
    assert driver.result == Appended(range(4, 5), 4)


def test_the_outcome_of_a_write_stays_unknown_whatever_the_next_attempt_returns(
    harness: PlanHarness,
) -> None:
    driver = drive_to_put(harness, append(harness))
    driver.fail("NoReply", unknown=True)
    driver.reply()
    with pytest.raises(CallFailed) as failed:
        driver.fail("ExpiredTokenException")
    assert failed.value.unknown


# The cached log end -------------------------------------------------------------------------------

MINUTE = 60


@pytest.mark.parametrize(
    ("wall", "monotonic", "is_cached"),
    [
        (59 * MINUTE, 59 * MINUTE, True),
        (59 * MINUTE, 0, True),
        # The monotonic clock of a frozen process stands still, and the wall clock may be set back.
        (61 * MINUTE, 0, False),
        (-5 * MINUTE, 61 * MINUTE, False),
        (0, 61 * MINUTE, False),
        (-5 * MINUTE, 0, False),
    ],
)
def test_a_log_end_is_cached_for_at_most_an_hour_by_both_clocks(
    harness: PlanHarness, wall: float, monotonic: float, is_cached: bool
) -> None:
    fill_cache(harness)
    harness.clock.advance(seconds=wall)
    harness.monotonic += monotonic
    driver = PlanDriver(append(harness))
    assert driver.operation == ("PutItem" if is_cached else "Query")


def test_a_log_end_is_not_cached_beyond_the_expiry_of_the_conversation() -> None:
    harness = PlanHarness(expire_after=timedelta(minutes=10))
    driver = PlanDriver(append(harness, reply_follows=True))
    driver.reply(query_reply())
    driver.reply()
    driver.reply()
    assert driver.result.revision == 1
    harness.clock.advance(minutes=9)
    assert PlanDriver(append(harness)).operation == "PutItem"
    harness.clock.advance(minutes=1)
    assert PlanDriver(append(harness)).operation == "Query"


def test_the_age_of_a_cached_log_end_counts_from_before_its_put(harness: PlanHarness) -> None:
    driver = drive_to_put(harness, append(harness, reply_follows=True))
    harness.clock.advance(minutes=30)  # the put is slow
    driver.reply()
    assert driver.result.revision == 4
    harness.clock.advance(minutes=31)
    assert PlanDriver(append(harness)).operation == "Query"


# Inconsistent reads -------------------------------------------------------------------------------


def test_an_inconsistent_tail_is_read_again(harness: PlanHarness) -> None:
    driver = PlanDriver(harness.with_retries(plans_on(harness.table).tail("trip", 3, owner=None)))
    # Record 4 truncated message 3 while the query ran, which missed record 4 and message 2.
    driver.reply(query_reply(harness.item(5, previous_seq=2), harness.item(3), harness.item(1)))
    assert driver.wait_seconds < 1
    driver.reply()
    truncation = harness.item(4, previous_seq=2, messages=0, body=None, message_count=2)
    last = harness.item(5, previous_seq=2, message_count=3)
    driver.reply(query_reply(last, truncation, harness.item(2)))
    if driver.step is not None:
        driver.reply(query_reply(harness.item(1)))
    while driver.step is not None:
        driver.reply({"Item": harness.item(1)})
    tail = driver.result
    assert texts_of(tail.messages) == ["message 1", "message 2", "message 5"]
    assert tail.conversation.revision == 5
    assert tail.conversation.message_count == 3


def test_an_inconsistent_page_is_read_again(harness: PlanHarness) -> None:
    plan = plans_on(harness.table).page("trip", after=None, before=None, limit=10, owner=None)
    driver = PlanDriver(harness.with_retries(plan))
    driver.reply(query_reply(harness.item(3)))
    # Message 2 was replaced by revision 4, which is later than the log end read before.
    driver.reply(query_reply(harness.item(1), harness.item(2, rewritten_at=4), harness.item(3)))
    assert driver.wait_seconds < 1
    driver.reply()
    marker = harness.item(4, previous_seq=3, messages=0, body=None, message_count=3)
    driver.reply(query_reply(marker))
    changed = harness.item(2, rewritten_at=4, body=body_of("another"))
    driver.reply(query_reply(harness.item(1), changed, harness.item(3), marker))
    assert texts_of(driver.result.messages) == ["message 1", "another", "message 3"]


def test_a_read_of_a_conversation_that_keeps_changing_fails_when_patience_ends(
    harness: PlanHarness,
) -> None:
    revision = 5
    waits: list[float] = []

    def change_always(call: Call) -> dict[str, Any]:
        nonlocal revision
        revision += 1
        last = harness.item(revision, previous_seq=revision - 1)
        return query_reply(last, harness.item(3), harness.item(2))

    def wait(seconds: float) -> None:
        waits.append(seconds)
        harness.monotonic += seconds

    plan = harness.with_retries(plans_on(harness.table).tail("trip", 3, owner=None))
    with pytest.raises(StoreUnavailable, match="kept changing"):
        run(plan, change_always, wait)
    assert sum(waits) >= 20
    assert max(waits) <= 0.5


def test_a_message_that_stays_missing_is_reported_as_damage(harness: PlanHarness) -> None:
    def miss_message_4(call: Call) -> dict[str, Any]:
        return query_reply(harness.item(5, previous_seq=4), harness.item(3), harness.item(2))

    waits: list[float] = []
    plan = harness.with_retries(plans_on(harness.table).tail("trip", 3, owner=None))
    with pytest.raises(ConversationDamaged) as raised:
        run(plan, miss_message_4, waits.append)
    assert raised.value.seq == 4
    assert len(waits) == 3


# Bounds -------------------------------------------------------------------------------------------


def perform_with_rivals(harness: PlanHarness) -> Callable[[Call], dict[str, Any]]:
    """Answer as a table to which somebody else always writes first."""
    revision = 3

    def perform(call: Call) -> dict[str, Any]:
        nonlocal revision
        harness.monotonic += 0.005
        if call.operation == "Query":
            high = call.params["ExpressionAttributeValues"][":high"]["S"]
            if high != HEAD:
                position = int(high.removeprefix("m#"))
                return query_reply(*(harness.item(n) for n in range(position, 0, -1)))
            revision += 1
            head = head_item("trip", harness.record(revision - 1))
            return query_reply(head, harness.item(revision), harness.item(revision - 1))
        if call.operation == "TransactWriteItems":
            parts = call.params["TransactItems"]
            failed = ("ConditionalCheckFailed", harness.item(revision + 1))
            raise CallFailed(CANCELLED, reasons=(failed, *[(None, None)] * (len(parts) - 1)))
        if call.operation == "BatchWriteItem":
            return {}
        raise CallFailed(CONDITION_FAILED, item=harness.item(revision + 1))

    return perform


LOSING: dict[str, Callable[[PlanHarness], Plan[Any]]] = {
    "append": lambda harness: append(harness),
    "append with a key": lambda harness: append(harness, key="request-7"),
    "append a long message": lambda harness: append(harness, Random(1).randbytes(80_000).hex()),
    "truncate": lambda harness: plans_on(harness.table).truncate("trip", after=1, owner=None),
    "pop": lambda harness: plans_on(harness.table).pop("trip", 1, owner=None),
    "update": lambda harness: plans_on(harness.table).update(
        "trip", title="1", metadata=None, revision=None, metadata_revision=None, owner=None
    ),
    "delete": lambda harness: plans_on(harness.table).delete("trip", owner=None),
}


@pytest.mark.parametrize("losing", LOSING.values(), ids=LOSING)
def test_an_operation_that_always_loses_ends_after_three_times_patience(
    harness: PlanHarness, losing: Callable[[PlanHarness], Plan[Any]]
) -> None:
    """It went on for ever (findings 3, 13 and 26)."""

    def wait(seconds: float) -> None:
        harness.monotonic += seconds

    with pytest.raises(StoreUnavailable) as failed:
        run(harness.with_retries(losing(harness)), perform_with_rivals(harness), wait)
    assert not failed.value.may_have_landed
    assert 15 < harness.monotonic < 70


def test_an_append_to_a_cached_log_end_that_is_stale_needs_no_patience(
    harness: PlanHarness,
) -> None:
    harness.table.patience = 0
    fill_cache(harness)
    driver = PlanDriver(append(harness, reply_follows=True))
    harness.monotonic += 1
    driver.fail(CONDITION_FAILED, item=harness.item(5))
    assert position_of_put(driver) == 6
    driver.reply()
    assert driver.result.revision == 6


def test_a_store_remembers_no_bodies() -> None:
    """10,000 conversations with 20,000 characters a message took 168 MiB (finding 16)."""
    harness, random = PlanHarness(), Random(1)
    number = 1_000

    def append_to(n: int) -> Any:
        text = random.randbytes(10_000).hex()
        return plans_on(harness.table).append(f"trip {n}", user_messages(text), owner="bob")

    def perform(call: Call) -> dict[str, Any]:
        return query_reply() if call.operation == "Query" else {}

    run(append_to(0), perform, lambda _: None)
    tracemalloc.start()
    try:
        for n in range(number):
            run(append_to(n), perform, lambda _: None)
        gc.collect()
        remembered, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert harness.table.cached_end(f"trip {number - 1}") is not None
    assert remembered * 10_000 / number <= 20 * 1024 * 1024
