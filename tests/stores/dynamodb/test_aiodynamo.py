"""What async callers rely on beside the contract: credentials, event loops, bytes, no threads."""

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
from chatledger.stores.dynamodb.aiodynamo_calls import AiodynamoCalls
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import Call, CallFailed
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.stores.dynamodb.fake_endpoint import SILENCE, Answering, everything

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.usefixtures("aws_environment")

HELLO = [Message.user("hello")]

OpenAsync = Callable[..., AsyncDynamoDBStore]


@pytest.fixture
def open_async(dynamodb_local: DynamoDBLocal, table: str) -> OpenAsync:
    """``open_async(**options)``: a store over the test's table."""

    def open(**options: Any) -> AsyncDynamoDBStore:
        known = {"region": REGION, "endpoint": dynamodb_local.endpoint}
        return AsyncDynamoDBStore(table, **(known | options))

    return open


async def read_back(store: AsyncDynamoDBStore) -> list[str]:
    await store.append("trip", HELLO)
    return [message.text for message in (await store.tail("trip", 100)).messages]


# Credentials --------------------------------------------------------------------------------------


class Expiring:
    """A provider of credentials that have expired, and take a second to be renewed."""

    def __init__(self, *, lifetime: timedelta = timedelta(hours=1)) -> None:
        self.renewals = 0
        self.renewing = False
        self.broken = False
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
        if self.broken:
            raise CredentialRetrievalError(provider="test", error_msg="the sign-in is over")
        return self._key(self._lifetime)

    def _key(self, lifetime: timedelta) -> dict[str, str]:
        end = datetime.now(UTC) + lifetime
        return {
            "access_key": KEY,
            "secret_key": KEY,
            "token": "token",
            "expiry_time": end.isoformat(),
        }


def test_credentials_are_renewed_once_for_all_and_the_event_loop_goes_on(
    open_async: OpenAsync,
) -> None:
    given = Expiring()

    async def use() -> int:
        turns = 0
        async with open_async(session=given.session()) as store:
            using = [asyncio.create_task(store.append(f"{n}", HELLO)) for n in range(20)]
            while not all(task.done() for task in using):
                turns += given.renewing
                await asyncio.sleep(0.01)
            await asyncio.gather(*using)
        return turns

    assert asyncio.run(use()) > 10
    assert given.renewals == 1


def test_credentials_are_renewed_before_each_end(open_async: OpenAsync) -> None:
    given = Expiring(lifetime=timedelta(minutes=12))  # within the 15 that botocore renews before

    async def use() -> None:
        async with open_async(session=given.session()) as store:
            await store.append("trip", HELLO)
            renewed = given.renewals
            await store.get("trip")
            assert given.renewals == renewed + 1

    asyncio.run(use())


def test_credentials_that_cannot_be_renewed_are_told_and_asked_for_again(
    open_async: OpenAsync,
) -> None:
    given = Expiring()

    async def use() -> None:
        async with open_async(session=given.session()) as store:
            given.broken = True
            with pytest.raises(AccessRefused, match="could not be renewed"):
                await store.append("trip", HELLO)
            given.broken = False
            assert await read_back(store) == ["hello"]

    asyncio.run(use())


def test_a_cancelled_task_takes_no_others_credentials_along(open_async: OpenAsync) -> None:
    given = Expiring()

    async def use() -> None:
        async with open_async(session=given.session()) as store:
            first = asyncio.create_task(store.append("trip", HELLO))
            while not given.renewing:  # noqa: ASYNC110  set in another thread
                await asyncio.sleep(0.01)
            second = asyncio.create_task(read_back(store))
            await asyncio.sleep(0.01)
            first.cancel()
            assert await second == ["hello"]

    asyncio.run(use())
    assert given.renewals == 1


def test_region_address_and_credentials_come_from_the_usual_chain(
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
            return await read_back(store)

    assert asyncio.run(use()) == ["hello"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "No AWS region is named; write region=eu-west-1, say, or set AWS_DEFAULT_REGION."),
        (
            {"region": "eu-west-1", "endpoint": "nowhere"},
            "DynamoDB cannot be reached there: Invalid endpoint: nowhere.",
        ),
    ],
    ids=["no region", "no address"],
)
def test_a_place_that_cannot_be_is_told_with_the_first_call(
    options: dict[str, str], sentence: str
) -> None:
    async def use() -> None:
        async with AsyncDynamoDBStore("conversations", **options) as store:  # type: ignore[arg-type]
            await store.get("trip")

    with pytest.raises(InvalidArgument) as refused:
        asyncio.run(use())
    assert str(refused.value) == sentence


# Event loops --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed")  # sockets of the loops that ended
def test_one_store_serves_one_event_loop_after_the_other(open_async: OpenAsync) -> None:
    store = open_async()
    for n in range(1, 4):
        assert asyncio.run(read_back(store)) == ["hello"] * n

    asyncio.run(store.close())
    gc.collect()


def test_a_store_refuses_a_second_event_loop_at_the_same_time(open_async: OpenAsync) -> None:
    store = open_async()

    async def use() -> None:
        async with store:
            await store.append("trip", HELLO)
            with pytest.raises(RuntimeError, match="one event loop"):
                await asyncio.to_thread(asyncio.run, store.get("trip"))
            assert (await store.get("trip")).message_count == 1

    asyncio.run(use())


def test_a_closed_store_says_so(open_async: OpenAsync) -> None:
    async def use() -> None:
        store = open_async()
        await store.append("trip", HELLO)
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable, match=r"was closed; open it again\.$"):
            await store.get("trip")

    asyncio.run(use())


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_what_is_under_way_when_a_store_is_closed_is_told_so(seconds: float) -> None:
    async def use(endpoint: str) -> None:
        store = AsyncDynamoDBStore("conversations", region=REGION, endpoint=endpoint)
        waiting = asyncio.create_task(store.get("trip"))
        await asyncio.sleep(seconds)
        await store.close()
        with pytest.raises(StoreUnavailable, match=r"was closed; open it again\.$"):
            await asyncio.wait_for(waiting, 5)

    with Answering(everything(SILENCE)) as server:
        asyncio.run(use(server.endpoint))


def test_many_tasks_have_their_turns_without_a_thread_a_call(open_async: OpenAsync) -> None:
    async def use() -> tuple[int, int]:
        async with open_async() as store:
            await store.append("first", HELLO)
            before = threading.active_count()
            most = before

            async def turn(n: int) -> int:
                nonlocal most
                await store.append(f"{n}", HELLO, reply_follows=True)
                most = max(most, threading.active_count())
                await store.append(f"{n}", HELLO)
                return len((await store.tail(f"{n}", 20)).messages)

            assert await asyncio.gather(*map(turn, range(200))) == [2] * 200
            return before, most

    before, most = asyncio.run(use())
    assert most == before


# Bytes --------------------------------------------------------------------------------------------

KEYS = {"pk": {"S": "c#bytes"}, "sk": {"S": "m#1"}}
ITEM: dict[str, Any] = KEYS | {
    "B": {"B": b"named as its type"},
    "b": {"B": bytes(range(256)) * 40},
    "none": {"B": b""},
    "set": {"BS": [b"one", b"\xff"]},
    "list": {"L": [{"B": b"in a list"}, {"S": "text"}, {"M": {}}, {"L": [{"B": b"deep"}]}]},
    "map": {"M": {"B": {"B": b"in a map"}, "S": {"M": {"S": {"B": b"deep"}, "BS": {"N": "1"}}}}},
    "text": {"S": "QUJD"},
    "texts": {"SS": ["B", "QUJD"]},
    "others": {"L": [{"N": "1"}, {"BOOL": True}, {"NULL": True}, {"NS": ["1"]}]},
}


def test_replies_and_refusals_are_those_of_boto3_whatever_they_hold(
    client: "DynamoDBClient", dynamodb_local: DynamoDBLocal, table: str
) -> None:
    at = {"TableName": table}
    put = at | {"Item": ITEM}
    told = at | {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    absent = told | {"Item": ITEM, "ConditionExpression": "attribute_not_exists(pk)"}
    present = told | {"ConditionExpression": "attribute_exists(pk)"}
    elsewhere = KEYS | {"sk": {"S": "-"}}
    update = {"UpdateExpression": "SET c = :c", "ReturnValues": "ALL_NEW"}
    value = {":c": {"M": {"B": {"B": b"\x00"}}}}
    asked = [
        Call("PutItem", put),
        Call("PutItem", put | {"ReturnValues": "ALL_OLD"}),
        Call("GetItem", at | {"Key": KEYS, "ConsistentRead": True}),
        Call("Scan", at | {"Limit": 1}),
        Call("UpdateItem", at | update | {"Key": KEYS, "ExpressionAttributeValues": value}),
        Call("BatchWriteItem", {"RequestItems": {table: [{"PutRequest": {"Item": ITEM}}]}}),
        Call("PutItem", absent),
        Call("TransactWriteItems", {"TransactItems": [{"Put": absent}]}),
        Call(
            "TransactWriteItems",
            {"TransactItems": [{"Put": absent}, {"ConditionCheck": present | {"Key": elsewhere}}]},
        ),
        Call("GetItem", {"TableName": "nowhere", "Key": KEYS}),
        Call("Query", at),
    ]

    async def over_aiodynamo() -> list[Any]:
        calls = AiodynamoCalls(
            session=None, region=REGION, endpoint=dynamodb_local.endpoint, patience=5
        )
        heard = []
        for call in asked:
            try:
                heard.append(await calls.perform(call))
            except CallFailed as failed:
                heard.append(vars(failed))
        await calls.close()
        return heard

    expected = []
    boto3_calls = Boto3Calls(client)
    for call in asked:
        try:
            reply = boto3_calls.perform(call)
            del reply["ResponseMetadata"]
            expected.append(reply)
        except CallFailed as failed:
            expected.append(vars(failed))
    client.delete_item(TableName=table, Key=KEYS)
    assert asyncio.run(over_aiodynamo()) == expected
    assert expected[2]["Item"] == ITEM
