"""The async store beyond the contract: credentials, event loops, bytes, and no extra threads."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError

from chatledger import InvalidArgument, Message, StoreUnavailable
from chatledger.errors import AccessRefused
from chatledger.stores.dynamodb import AsyncDynamoDBStore
from chatledger.stores.dynamodb.aiohttp_calls import AiohttpCalls
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import Call, CallFailed
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.stores.dynamodb.fake_endpoint import NO_REPLY, FakeEndpoint, reply_to_all

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.usefixtures("aws_environment")

HELLO = [Message.user("hello")]

OpenAsync = Callable[..., AsyncDynamoDBStore]


@pytest.fixture
def open_async(dynamodb_local: DynamoDBLocal, table: str) -> OpenAsync:
    """``open_async(**options)`` opens a store over the test's table."""

    def open(**options: Any) -> AsyncDynamoDBStore:
        defaults = {"region": REGION, "endpoint": dynamodb_local.endpoint}
        return AsyncDynamoDBStore(table, **(defaults | options))

    return open


async def append_and_read(store: AsyncDynamoDBStore) -> list[str]:
    await store.append("trip", HELLO)
    return [message.text for message in (await store.tail("trip", 100)).messages]


# Credentials --------------------------------------------------------------------------------------


class ExpiredCredentials:
    """A provider of credentials that have expired and take a second to renew."""

    def __init__(self, *, lifetime: timedelta = timedelta(hours=1)) -> None:
        self.renewals = 0
        self.renewing = False
        self.fails = False
        self._lifetime = lifetime

    def session(self) -> botocore.session.Session:
        session = botocore.session.Session()
        session.register_component("credential_provider", self)
        return session

    def load_credentials(self) -> RefreshableCredentials:
        expired = self._key(timedelta(minutes=-1))
        return RefreshableCredentials.create_from_metadata(expired, self._renew, "test")

    def _renew(self) -> dict[str, str]:
        self.renewals += 1
        self.renewing = True
        time.sleep(1)
        self.renewing = False
        if self.fails:
            raise CredentialRetrievalError(provider="test", error_msg="the sign-in has expired")
        return self._key(self._lifetime)

    def _key(self, lifetime: timedelta) -> dict[str, str]:
        end = datetime.now(UTC) + lifetime
        return {
            "access_key": KEY,
            "secret_key": KEY,
            "token": "token",
            "expiry_time": end.isoformat(),
        }


def test_credentials_are_renewed_once_for_all_tasks_without_blocking_the_event_loop(
    open_async: OpenAsync,
) -> None:
    credentials = ExpiredCredentials()

    async def use() -> int:
        iterations = 0
        async with open_async(session=credentials.session()) as store:
            appends = [asyncio.create_task(store.append(f"{n}", HELLO)) for n in range(20)]
            while not all(task.done() for task in appends):
                iterations += credentials.renewing
                await asyncio.sleep(0.01)
            await asyncio.gather(*appends)
        return iterations

    assert asyncio.run(use()) > 10
    assert credentials.renewals == 1


def test_credentials_are_renewed_each_time_before_they_expire(open_async: OpenAsync) -> None:
    # botocore renews credentials in their last 15 minutes: these before every call.
    credentials = ExpiredCredentials(lifetime=timedelta(minutes=12))

    async def use() -> None:
        async with open_async(session=credentials.session()) as store:
            await store.append("trip", HELLO)
            renewals = credentials.renewals
            await store.get("trip")
            assert credentials.renewals == renewals + 1

    asyncio.run(use())


def test_a_failed_renewal_of_credentials_is_reported_and_tried_again_by_the_next_call(
    open_async: OpenAsync,
) -> None:
    credentials = ExpiredCredentials()

    async def use() -> None:
        async with open_async(session=credentials.session()) as store:
            credentials.fails = True
            with pytest.raises(AccessRefused, match="could not be renewed"):
                await store.append("trip", HELLO)
            credentials.fails = False
            assert await append_and_read(store) == ["hello"]

    asyncio.run(use())


def test_a_cancelled_task_does_not_cancel_the_renewal_that_others_wait_for(
    open_async: OpenAsync,
) -> None:
    credentials = ExpiredCredentials()

    async def use() -> None:
        async with open_async(session=credentials.session()) as store:
            first = asyncio.create_task(store.append("trip", HELLO))
            while not credentials.renewing:  # noqa: ASYNC110  set in another thread
                await asyncio.sleep(0.01)
            second = asyncio.create_task(append_and_read(store))
            await asyncio.sleep(0.01)
            first.cancel()
            assert await second == ["hello"]

    asyncio.run(use())
    assert credentials.renewals == 1


def test_region_endpoint_and_credentials_come_from_the_usual_aws_chain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dynamodb_local: DynamoDBLocal, table: str
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "config").write_text(
        f"[profile bob]\nregion = {REGION}\nendpoint_url = {dynamodb_local.endpoint}\n"
        f"aws_access_key_id = {KEY}\naws_secret_access_key = {KEY}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "bob")

    async def use() -> list[str]:
        async with AsyncDynamoDBStore(table) as store:
            return await append_and_read(store)

    assert asyncio.run(use()) == ["hello"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {},
            (
                "No AWS region is configured; add region=, such as region=eu-west-1, or set "
                "AWS_DEFAULT_REGION."
            ),
        ),
        (
            {"region": "eu-west-1", "endpoint": "nowhere"},
            "The region or the endpoint is not valid: Invalid endpoint: nowhere.",
        ),
    ],
    ids=["no region", "invalid endpoint"],
)
def test_a_missing_region_or_invalid_endpoint_is_reported_by_the_first_call(
    options: dict[str, str], sentence: str
) -> None:
    async def use() -> None:
        async with AsyncDynamoDBStore("conversations", **options) as store:  # type: ignore[arg-type]
            await store.get("trip")

    with pytest.raises(InvalidArgument) as raised:
        asyncio.run(use())
    assert str(raised.value) == sentence


# Event loops --------------------------------------------------------------------------------------


def test_a_store_can_be_used_in_several_event_loops_one_after_another(
    open_async: OpenAsync,
) -> None:
    store = open_async()
    for n in range(1, 4):
        assert asyncio.run(append_and_read(store)) == ["hello"] * n

    asyncio.run(store.close())
    gc.collect()


def test_a_store_refuses_to_be_used_in_two_event_loops_at_once(open_async: OpenAsync) -> None:
    store = open_async()

    async def use() -> None:
        async with store:
            await store.append("trip", HELLO)
            with pytest.raises(RuntimeError, match="one event loop"):
                await asyncio.to_thread(asyncio.run, store.get("trip"))
            assert (await store.get("trip")).message_count == 1

    asyncio.run(use())


def test_a_closed_store_raises_an_error_that_says_so(open_async: OpenAsync) -> None:
    async def use() -> None:
        store = open_async()
        await store.append("trip", HELLO)
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable, match=r"was closed; open it again\.$"):
            await store.get("trip")

    asyncio.run(use())


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_a_call_in_progress_fails_when_the_store_is_closed(seconds: float) -> None:
    async def use(endpoint: str) -> None:
        store = AsyncDynamoDBStore("conversations", region=REGION, endpoint=endpoint)
        waiting = asyncio.create_task(store.get("trip"))
        await asyncio.sleep(seconds)
        await store.close()
        with pytest.raises(StoreUnavailable, match=r"was closed; open it again\.$"):
            await asyncio.wait_for(waiting, 5)

    with FakeEndpoint(reply_to_all(NO_REPLY)) as server:
        asyncio.run(use(server.endpoint))


def test_many_concurrent_tasks_start_no_threads(open_async: OpenAsync) -> None:
    async def use() -> tuple[int, int]:
        async with open_async() as store:
            await store.append("first", HELLO)
            before = threading.active_count()
            highest = before

            async def turn(n: int) -> int:
                nonlocal highest
                await store.append(f"{n}", HELLO, reply_follows=True)
                highest = max(highest, threading.active_count())
                await store.append(f"{n}", HELLO)
                return len((await store.tail(f"{n}", 20)).messages)

            assert await asyncio.gather(*map(turn, range(200))) == [2] * 200
            return before, highest

    before, highest = asyncio.run(use())
    assert highest == before


# Bytes --------------------------------------------------------------------------------------------

KEYS = {"pk": {"S": "c#bytes"}, "sk": {"S": "m#1"}}
ITEM: dict[str, Any] = KEYS | {
    "B": {"B": b"named like its type"},
    "b": {"B": bytes(range(256)) * 40},
    "none": {"B": b""},
    "set": {"BS": [b"one", b"\xff"]},
    "list": {"L": [{"B": b"in a list"}, {"S": "text"}, {"M": {}}, {"L": [{"B": b"deep"}]}]},
    "map": {"M": {"B": {"B": b"in a map"}, "S": {"M": {"S": {"B": b"deep"}, "BS": {"N": "1"}}}}},
    "text": {"S": "QUJD"},
    "texts": {"SS": ["B", "QUJD"]},
    "others": {"L": [{"N": "1"}, {"BOOL": True}, {"NULL": True}, {"NS": ["1"]}]},
}


def test_replies_and_errors_equal_those_of_boto3_whatever_they_contain(
    client: "DynamoDBClient", dynamodb_local: DynamoDBLocal, table: str
) -> None:
    in_table = {"TableName": table}
    put = in_table | {"Item": ITEM}
    with_old_item = in_table | {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    absent = with_old_item | {"Item": ITEM, "ConditionExpression": "attribute_not_exists(pk)"}
    present = with_old_item | {"ConditionExpression": "attribute_exists(pk)"}
    other_key = KEYS | {"sk": {"S": "-"}}
    update = {"UpdateExpression": "SET c = :c", "ReturnValues": "ALL_NEW"}
    value = {":c": {"M": {"B": {"B": b"\x00"}}}}
    calls_to_make = [
        Call("PutItem", put),
        Call("PutItem", put | {"ReturnValues": "ALL_OLD"}),
        Call("GetItem", in_table | {"Key": KEYS, "ConsistentRead": True}),
        Call("Scan", in_table | {"Limit": 1}),
        Call("UpdateItem", in_table | update | {"Key": KEYS, "ExpressionAttributeValues": value}),
        Call("BatchWriteItem", {"RequestItems": {table: [{"PutRequest": {"Item": ITEM}}]}}),
        Call("PutItem", absent),
        Call("TransactWriteItems", {"TransactItems": [{"Put": absent}]}),
        Call(
            "TransactWriteItems",
            {"TransactItems": [{"Put": absent}, {"ConditionCheck": present | {"Key": other_key}}]},
        ),
        Call("GetItem", {"TableName": "nowhere", "Key": KEYS}),
        Call("Query", in_table),
    ]

    async def over_aiohttp() -> list[Any]:
        calls = AiohttpCalls(
            session=None, region=REGION, endpoint=dynamodb_local.endpoint, patience=5
        )
        outcomes = []
        for call in calls_to_make:
            try:
                reply = await calls.perform(call)
                assert reply.pop("ResponseMetadata")["HTTPHeaders"]["date"]
                outcomes.append(reply)
            except CallFailed as failed:
                outcomes.append(vars(failed))
        await calls.close()
        return outcomes

    expected = []
    boto3_calls = Boto3Calls(client)
    for call in calls_to_make:
        try:
            reply = boto3_calls.perform(call)
            del reply["ResponseMetadata"]
            expected.append(reply)
        except CallFailed as failed:
            expected.append(vars(failed))
    client.delete_item(TableName=table, Key=KEYS)
    assert asyncio.run(over_aiohttp()) == expected
    assert expected[2]["Item"] == ITEM
