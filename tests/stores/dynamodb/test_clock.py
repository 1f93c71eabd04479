"""The store compares its clock with DynamoDB's, and clocks that differ a little lose nothing."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from chatledger import ClockSkewed, Message, NotFound
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore, clock
from chatledger.stores.dynamodb.calls import Call
from chatledger.stores.dynamodb.clock import ClockComparison
from chatledger.testing.dynamodb_local import REGION, DynamoDBLocal
from chatledger.values import now, to_datetime
from tests.stores.dynamodb.fake_endpoint import FakeEndpoint, Reply, reply_to_writes
from tests.stores.dynamodb.plan_driver import CONDITION_FAILED, PlanDriver, PlanHarness, query_reply
from tests.stores.dynamodb.plan_store import plans_on

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HELLO = [Message.user("hello")]
HOUR = timedelta(hours=1)
FAR = timedelta(seconds=20)
"""A skew that is refused, whatever the fraction of the second."""

Refused = Callable[[DynamoDBStore], object]


def clock_off_by(skew: timedelta) -> Callable[[], Any]:
    return lambda: now() + skew


@pytest.fixture
def slow_calls_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the clocks although a call takes seconds, as on a loaded machine."""
    monkeypatch.setattr(clock, "LONGEST_CALL", clock.MAX_SKEW - clock.RESOLUTION - 100)


@pytest.fixture
def open_skewed(
    client: "DynamoDBClient", table: str, slow_calls_count: None
) -> Callable[[timedelta], DynamoDBStore]:
    def open(skew: timedelta) -> DynamoDBStore:
        return DynamoDBStore(client, table, clock=clock_off_by(skew), compare_clock=True)

    return open


@pytest.mark.parametrize("skew", [FAR, -FAR], ids=["ahead", "behind"])
def test_a_skewed_store_warns_once_and_refuses_a_lifetime_and_a_lease(
    open_skewed: Callable[[timedelta], DynamoDBStore],
    skew: timedelta,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = open_skewed(skew)
    with pytest.raises(NotFound):
        store.get("trip")
    with pytest.raises(ClockSkewed, match="set it") as refused:
        store.append("trip", HELLO, expires_in=HOUR)
    assert refused.value.seconds == pytest.approx(skew.total_seconds(), abs=2)
    assert not refused.value.may_have_landed
    with pytest.raises(NotFound):
        store.get("trip")
    with pytest.raises(ClockSkewed):
        _ = store.clock_difference  # a turn reads it for its lease
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert [each.getMessage() for each in warnings] == [str(refused.value)]


@pytest.mark.usefixtures("slow_calls_count")
@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.append("trip", HELLO),
        lambda store: store.replace("trip", 1, HELLO[0]),
        lambda store: store.truncate("trip", after=1),
        lambda store: store.claim("trip", owner="bob"),
        lambda store: store.append("ended", HELLO),
        lambda store: store.create("ended"),
        lambda store: store.fork("trip", new_id="copy"),
        lambda store: store.put_entry("plain", "name", 1, expires_in=HOUR),
        lambda store: store.sweep(),
    ],
    ids=[
        *("append", "replace", "truncate", "claim"),
        *("append over an expired one", "create over an expired one", "fork", "put", "sweep"),
    ],
)
def test_a_skewed_store_refuses_each_write_that_depends_on_the_time(
    client: "DynamoDBClient", table: str, write: Refused
) -> None:
    times = [now() - 2 * HOUR]
    early = DynamoDBStore(client, table, clock=lambda: times[0])
    early.append("ended", HELLO, expires_in=timedelta(seconds=1))
    times[0] = now()
    early.append("trip", [*HELLO, *HELLO], expires_in=HOUR)
    early.append("plain", HELLO)
    store = DynamoDBStore(client, table, clock=clock_off_by(FAR), compare_clock=True)
    with pytest.raises(ClockSkewed):
        write(store)
    assert [each.text for each in early.tail("trip", 5).messages] == ["hello", "hello"]


def test_a_skewed_store_reads_and_makes_the_writes_that_do_not_depend_on_the_time(
    open_skewed: Callable[[timedelta], DynamoDBStore],
) -> None:
    store = open_skewed(FAR)
    store.append("trip", HELLO)
    store.append("trip", HELLO)
    store.put_entry("trip", "name", 1)
    store.truncate("trip", after=1)
    assert len(store.tail("trip", 5).messages) == 1
    store.delete("trip")


def test_a_store_whose_clock_is_right_refuses_nothing(
    client: "DynamoDBClient", table: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = DynamoDBStore(client, table)
    store.append("trip", HELLO, expires_in=HOUR)
    store.append("trip", HELLO)
    assert store.clock_difference == timedelta(seconds=10)
    assert not caplog.records


@pytest.mark.usefixtures("aws_environment", "slow_calls_count")
def test_the_async_store_refuses_as_well(
    dynamodb_local: DynamoDBLocal, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def write() -> None:
        async with AsyncDynamoDBStore(
            table,
            region=REGION,
            endpoint=dynamodb_local.endpoint,
            clock=clock_off_by(FAR),
            compare_clock=True,
        ) as store:
            await store.append("trip", HELLO, expires_in=HOUR)

    with pytest.raises(ClockSkewed):
        asyncio.run(write())
    assert [each.name for each in caplog.records if each.levelno == logging.WARNING] == [
        "chatledger.stores"
    ]


def test_the_clock_of_a_test_is_not_compared(client: "DynamoDBClient", table: str) -> None:
    store = DynamoDBStore(client, table, clock=clock_off_by(FAR))
    store.append("trip", HELLO, expires_in=HOUR)
    store.append("trip", HELLO)
    assert store.clock_difference == timedelta(0)


@pytest.mark.usefixtures("aws_environment")
def test_replies_without_a_date_leave_the_skew_unknown() -> None:
    async def write(endpoint: str, *, times: int = 1) -> None:
        async with AsyncDynamoDBStore(
            "conversations",
            region=REGION,
            endpoint=endpoint,
            clock=clock_off_by(FAR),
            compare_clock=True,
        ) as store:
            for _ in range(times):  # a reply that takes longer than a second tells nothing
                await store.append("trip", HELLO, expires_in=HOUR)

    with FakeEndpoint(reply_to_writes(Reply.of()), dated=False) as server:
        asyncio.run(write(server.endpoint))
    with FakeEndpoint(reply_to_writes(Reply.of())) as server, pytest.raises(ClockSkewed):
        asyncio.run(write(server.endpoint, times=5))


# One comparison -----------------------------------------------------------------------------------


class Clocks:
    """The two clocks of a process, and a comparison that gets replies with any date."""

    def __init__(self) -> None:
        self.time = 1_800_000_000_000
        self.monotonic = 0.0
        self.comparison = ClockComparison(lambda: self.time, lambda: self.monotonic)

    def pass_seconds(self, seconds: float) -> None:
        self.time += round(seconds * 1_000)
        self.monotonic += seconds

    def call(
        self, *, service_ahead: float = 0, seconds: float = 0, date: str | None = None
    ) -> None:
        """Make a call whose reply has the date of a service with that difference (s)."""

        def plan() -> Any:
            yield Call("GetItem", {})

        driver = PlanDriver(self.comparison.during(plan()))
        if date is None:
            date = format_datetime(to_datetime(self.time + round(service_ahead * 1_000)))
        self.pass_seconds(seconds)
        driver.reply({"ResponseMetadata": {"HTTPHeaders": {"date": date}}})

    @property
    def skew(self) -> float | None:
        """The skew for which writes are refused, if they are."""
        try:
            self.comparison.require()
        except ClockSkewed as skewed:
            return skewed.seconds
        return None


@pytest.mark.parametrize(
    ("service_ahead", "skew"),
    [
        *((0, None), (0.9, None), (-0.9, None)),
        *((2.9, None), (-2.9, None), (3.1, None), (-3.9, None)),
        *((5.1, -5), (-5.1, 5), (300, -300), (-300, 299)),
    ],
)
def test_a_clock_is_refused_once_it_must_differ_by_more_than_three_seconds(
    service_ahead: float, skew: float | None
) -> None:
    clocks = Clocks()  # at a whole second; the date of a reply is rounded down
    clocks.call(service_ahead=service_ahead)
    assert clocks.skew == (None if skew is None else pytest.approx(skew, abs=0.2))


@pytest.mark.parametrize("fraction", [0, 0.25, 0.5, 0.75, 0.999])
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("seconds", [0, 0.5, 1])
def test_a_clock_that_differs_by_more_than_five_seconds_never_passes(
    fraction: float, direction: int, seconds: float
) -> None:
    clocks = Clocks()
    clocks.pass_seconds(fraction)
    at_reply = seconds if direction < 0 else 0  # of all moments of the call, the least telling
    clocks.call(service_ahead=5.001 * direction + at_reply, seconds=seconds)
    assert clocks.skew is not None


def test_a_slow_call_and_a_date_that_cannot_be_read_prove_nothing() -> None:
    clocks = Clocks()
    clocks.call(service_ahead=60, seconds=1.5)
    clocks.call(date="yesterday")
    clocks.call(date="Wed, 21 Oct 2015 07:28:00 -0000")
    assert clocks.comparison.is_due
    assert clocks.skew is None


def test_clocks_are_compared_again_after_an_hour_and_warned_of_once_an_hour(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clocks = Clocks()
    clocks.call(service_ahead=2.5)
    assert len(caplog.records) == 1
    clocks.pass_seconds(3_500)
    clocks.call(service_ahead=60)  # not compared
    assert clocks.skew is None
    clocks.pass_seconds(100)
    clocks.call(service_ahead=60)
    assert clocks.skew == pytest.approx(-60)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("seconds", [-600, 6])
def test_clocks_are_compared_again_once_one_was_set(
    seconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    clocks = Clocks()
    clocks.call()
    clocks.time += seconds * 1_000
    clocks.call(service_ahead=-seconds)
    assert clocks.skew is not None
    clocks.time -= seconds * 1_000
    assert clocks.skew is None  # until the next reply
    clocks.call()
    assert clocks.skew is None
    assert not clocks.comparison.is_due
    assert len(caplog.records) == 1


# Conversations that have just expired -------------------------------------------------------------


@pytest.fixture
def harness() -> PlanHarness:
    harness = PlanHarness()
    harness.table.clock_difference = 10_000
    return harness


@pytest.mark.parametrize("operation", ["append", "create"])
def test_a_new_conversation_waits_until_the_former_one_has_expired_by_every_clock(
    harness: PlanHarness, operation: str
) -> None:
    former = harness.item(1, lifetime=60_000, expiry=harness.table.time() + 60_000)
    harness.clock.advance(seconds=63)
    store = plans_on(harness.table)
    plan = store.append("trip", HELLO) if operation == "append" else store.create("trip")
    driver = PlanDriver(plan)
    driver.reply(query_reply(former))
    assert driver.wait_seconds == pytest.approx(7)
    harness.clock.advance(seconds=7)
    driver.reply()
    assert driver.operation == "PutItem"
    # A process whose clock is slower has extended it meanwhile: the messages join its own.
    extended = harness.item(2, lifetime=60_000, expiry=harness.table.time() + 60_000)
    driver.fail(CONDITION_FAILED, item=extended)
    if operation == "append":
        assert driver.operation == "PutItem"
        assert driver.call.params["Item"]["l"] == {"N": "1"}


def test_a_new_conversation_need_not_wait_if_the_former_one_expired_long_ago_or_was_deleted(
    harness: PlanHarness,
) -> None:
    expiry = harness.table.time() + 60_000
    harness.clock.advance(seconds=63)
    deleted = PlanDriver(plans_on(harness.table).append("trip", HELLO))
    deleted.reply(query_reply(harness.item(1, lifetime=60_000, expiry=expiry, closed=True)))
    assert deleted.operation == "PutItem"
    harness.clock.advance(seconds=7)
    expired = PlanDriver(plans_on(harness.table).append("trip", HELLO))
    expired.reply(query_reply(harness.item(1, lifetime=60_000, expiry=expiry)))
    assert expired.operation == "PutItem"


def test_a_guarded_put_waits_until_the_former_entry_has_expired_by_every_clock(
    client: "DynamoDBClient", table: str
) -> None:
    store = DynamoDBStore(client, table)
    store.put_entry(None, "lock", "ours", owner="bob", expires_in=timedelta(seconds=60), revision=0)
    items = client.query(
        TableName=table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "o#bob"}},
    )["Items"]
    harness = PlanHarness()
    harness.table.clock_difference = 10_000
    harness.clock.time = now() + timedelta(seconds=63)
    put = plans_on(harness.table).put_entry(
        None, "lock", "theirs", owner="bob", expires_in=timedelta(seconds=60), revision=0
    )
    driver = PlanDriver(put)
    driver.fail(CONDITION_FAILED, item=items[0])
    assert driver.wait_seconds == pytest.approx(7, abs=3)
