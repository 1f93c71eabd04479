"""``on_call``: a store reports each of its calls, and works the same with and without it."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatledger import (
    Conflict,
    Message,
    NotFound,
    StoreCall,
    StoreUnavailable,
    open_async_store,
    open_store,
)
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.stores.dynamodb.fake_endpoint import FakeEndpoint, Outcome, Reply, reply_to_all
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.tables import new_table

HELLO = [Message.user("hello")]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)


@pytest.fixture
def table(dynamodb_local: DynamoDBLocal) -> Iterator[str]:
    client = dynamodb_local.client()
    yield new_table(client)
    client.close()


def summary(calls: list[StoreCall]) -> list[tuple[str, str]]:
    return [(call.operation, call.outcome) for call in calls]


def fake_url(endpoint: FakeEndpoint) -> str:
    return f"dynamodb://table?region={REGION}&endpoint={endpoint.endpoint}"


def test_each_request_to_dynamodb_is_reported_with_its_units(
    dynamodb_local: DynamoDBLocal, table: str
) -> None:
    calls: list[StoreCall] = []
    client = dynamodb_local.client()
    store = DynamoDBStore(client, table, on_call=calls.append)
    with Meter(client).measured() as cost:
        store.append("trip", HELLO)
        store.append("trip", HELLO, idempotency_key="key")
        store.tail("trip")
    assert [call.operation for call in calls] == cost.operations
    for call in calls:
        assert (call.outcome, call.attempt, call.error) == ("ok", 1, None)
        assert call.units is not None
        assert call.operation == "Query" or call.units >= 1
        assert 0 < call.seconds < 60
    client.close()


def test_an_async_store_reports_the_same(dynamodb_local: DynamoDBLocal, table: str) -> None:
    url = f"dynamodb://{table}?region={REGION}&endpoint={dynamodb_local.endpoint}"
    calls: list[StoreCall] = []
    other: list[StoreCall] = []

    async def use() -> None:
        async with open_async_store(url, on_call=calls.append) as store:
            await store.append("trip", HELLO)
            await store.tail("trip")

    asyncio.run(use())
    with open_store(url, on_call=other.append) as store:
        store.append("other", HELLO)
        store.tail("other")
    assert summary(calls) == summary(other)
    assert [call.units for call in calls] == [call.units for call in other]


def test_units_are_requested_only_if_someone_wants_to_know() -> None:
    bodies: list[bytes] = []

    def respond(operation: str, body: bytes) -> Outcome:
        bodies.append(body)
        return Reply.of(Items=[])

    with FakeEndpoint(respond) as endpoint:
        for on_call in (None, list[StoreCall]().append):
            with open_store(fake_url(endpoint), on_call=on_call) as store, pytest.raises(NotFound):
                store.tail("trip")
    assert [b"ReturnConsumedCapacity" in body for body in bodies] == [False, True]


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        ("ProvisionedThroughputExceededException", 400, "throttled"),
        ("TransactionConflictException", 400, "conflict"),
        ("InternalServerError", 500, "failed"),
    ],
)
def test_each_attempt_is_reported(code: str, status: int, outcome: str) -> None:
    replies = [Reply.error(code, status)] * 2 + [Reply.of(Items=[])]
    calls: list[StoreCall] = []
    with (
        FakeEndpoint(lambda *_: replies.pop(0)) as endpoint,
        open_store(fake_url(endpoint), on_call=calls.append) as store,
        pytest.raises(NotFound),
    ):
        store.tail("trip")
    assert [call.attempt for call in calls] == [1, 2, 3]
    assert [call.outcome for call in calls] == [outcome, outcome, "ok"]
    assert [call.error for call in calls] == [code, code, None]
    assert [call.units for call in calls] == [None, None, None]


def test_a_lost_race_is_a_conflict(dynamodb_local: DynamoDBLocal, table: str) -> None:
    calls: list[StoreCall] = []
    client = dynamodb_local.client()
    store = DynamoDBStore(client, table, on_call=calls.append)
    store.append("trip", HELLO)
    DynamoDBStore(client, table).append("trip", HELLO)
    calls.clear()
    store.append("trip", HELLO)  # aims at the position that the other store took
    assert Counter(call.outcome for call in calls)["conflict"] == 1
    client.close()


def test_a_request_that_a_client_abandons_is_not_reported() -> None:
    calls: list[StoreCall] = []

    async def abandon(url: str) -> None:
        async with open_async_store(url, on_call=calls.append) as store:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.tail("trip"), 0.5)

    with FakeEndpoint(reply_to_all("no reply")) as endpoint:
        asyncio.run(abandon(fake_url(endpoint)))
    assert calls == []


def test_each_transaction_in_sqlite_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "chatledger.db"
    calls: list[StoreCall] = []

    async def use() -> None:
        async with open_async_store(f"sqlite:///{path}", on_call=calls.append) as store:
            await store.append("trip", HELLO)
            await store.tail("trip")

    with open_store(f"sqlite:///{path}", on_call=calls.append) as store:
        store.append("trip", HELLO)
        store.tail("trip")
        with pytest.raises(NotFound):
            store.tail("nowhere")
        with pytest.raises(Conflict):
            store.append("trip", HELLO, revision=7)
        assert summary(calls) == [
            ("Append", "ok"),
            ("ReadTail", "ok"),
            ("ReadTail", "ok"),
            ("Append", "conflict"),
        ]
        assert [call.error for call in calls] == [None, None, None, "Conflict"]
        calls.clear()
        asyncio.run(use())
        assert summary(calls) == [("Append", "ok"), ("ReadTail", "ok")]
        calls.clear()
        path.rename(tmp_path / "moved.db")
        with pytest.raises(StoreUnavailable):
            store.tail("trip")
        assert summary(calls) == [("ReadTail", "failed")]


@pytest.mark.parametrize("kind", ["sqlite", "dynamodb"])
def test_a_function_that_raises_breaks_nothing_and_is_not_quoted(
    kind: str,
    tmp_path: Path,
    dynamodb_local: DynamoDBLocal,
    table: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(call: StoreCall) -> None:
        raise ValueError("secret")

    url = {
        "sqlite": f"sqlite:///{tmp_path / 'chatledger.db'}",
        "dynamodb": f"dynamodb://{table}?region={REGION}&endpoint={dynamodb_local.endpoint}",
    }[kind]
    with caplog.at_level(logging.ERROR), open_store(url, on_call=fail) as store:
        store.append("trip", HELLO)
        assert [message.text for message in store.tail("trip")] == ["hello"]
    assert "raised ValueError" in caplog.text
    assert "secret" not in caplog.text
