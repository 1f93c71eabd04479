"""The errors of a store when DynamoDB rejects calls, throttles, is down or does not reply.

They are the same through boto3 and aiohttp, and are raised before the deadline.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from anyio.from_thread import start_blocking_portal
from botocore.config import Config
from botocore.exceptions import ClientError

from chatledger import ChatledgerError, Message, NotFound, StoreUnavailable
from chatledger.errors import AccessRefused, TableMismatch, TableMissing
from chatledger.stores.contract import Store
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore, calls
from chatledger.stores.dynamodb.errors import NO_CREDENTIALS, failure_from_error
from chatledger.testing.dynamodb_local import REGION, DynamoDBLocal
from chatledger.testing.store_contract.asynchronous import BlockingStore
from chatledger.values import new_id
from tests.stores.dynamodb.fake_endpoint import (
    DROP_CONNECTION,
    NO_REPLY,
    FakeEndpoint,
    Outcome,
    Reply,
    forward,
    reply_to_all,
    reply_to_writes,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

PATIENCE = 0.5
LONG_PATIENCE = 20.0
"""Enough for calls that succeed in the end, even on a slow machine."""
DEADLINE = 30.0
"""Well above the time that a failing call takes, and well below the default timeouts."""
HELLO = [Message.user("hello")]

OpenAt = Callable[..., Store]


pytestmark = pytest.mark.usefixtures("aws_environment")


@pytest.fixture(params=["boto3", "aiohttp"])
def open_at(request: pytest.FixtureRequest) -> Iterator[OpenAt]:
    """``open_at(endpoint)`` opens a store at ``endpoint`` that gives up soon."""
    with ExitStack() as stack:

        def over_boto3(
            endpoint: str, table: str = "conversations", *, patience: float = PATIENCE
        ) -> Store:
            client = boto3.Session().client(
                "dynamodb",
                region_name=REGION,
                endpoint_url=endpoint,
                config=Config(
                    connect_timeout=PATIENCE,
                    read_timeout=PATIENCE,
                    retries={"mode": "standard", "total_max_attempts": 1},
                ),
            )
            stack.callback(client.close)
            return DynamoDBStore(client, table, patience=patience)

        def over_aiohttp(
            endpoint: str, table: str = "conversations", *, patience: float = PATIENCE
        ) -> Store:
            store = AsyncDynamoDBStore(table, region=REGION, endpoint=endpoint, patience=patience)
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            stack.enter_context(portal.wrap_async_context_manager(store))
            return cast(Store, BlockingStore(store, portal))

        yield over_boto3 if request.param == "boto3" else over_aiohttp


@contextmanager
def raises_in_time(
    error: type[ChatledgerError], sentence: str
) -> Iterator[pytest.ExceptionInfo[ChatledgerError]]:
    """Assert that the block raises ``error`` before the deadline; the pattern ``sentence`` must
    match its whole message.
    """
    started = time.monotonic()
    with pytest.raises(error, match=f"^{sentence}$") as info:
        yield info
    assert time.monotonic() - started < DEADLINE


# The table ----------------------------------------------------------------------------------------


def test_a_missing_table_is_named_with_the_call_that_creates_it(
    open_at: OpenAt, dynamodb_local: DynamoDBLocal
) -> None:
    store = open_at(dynamodb_local.endpoint, "missing")
    for use in (lambda: store.get("trip"), lambda: store.append("trip", HELLO)):
        with raises_in_time(
            TableMissing,
            "There is no DynamoDB table 'missing' in this account and region; create it with "
            r"chatledger\.stores\.dynamodb\.create_table\(client, 'missing'\)\.",
        ):
            use()


KEYS = {
    "id": [("id", "HASH", "S")],
    "pk": [("pk", "HASH", "S")],
    "pk and a number": [("pk", "HASH", "S"), ("sk", "RANGE", "N")],
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_a_table_with_other_keys_is_rejected(
    open_at: OpenAt,
    dynamodb_local: DynamoDBLocal,
    client: "DynamoDBClient",
    keys: list[tuple[str, str, str]],
) -> None:
    table = f"other-{new_id()}"
    client.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind, _ in keys],  # type: ignore[typeddict-item]
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": of} for name, _, of in keys],  # type: ignore[typeddict-item]
    )
    store = open_at(dynamodb_local.endpoint, table)
    for use in (
        lambda: store.get("trip"),
        lambda: store.append("trip", HELLO),
        lambda: store.list("bob"),
    ):
        with raises_in_time(
            TableMismatch,
            f"The DynamoDB table '{table}' is not set up as the store needs it: "
            "DynamoDB says: .*[^.]. "
            rf"chatledger\.stores\.dynamodb\.check_table\(client, '{table}'\) "
            r"says how to correct it\.",
        ):
            use()
    client.delete_table(TableName=table)


# Credentials --------------------------------------------------------------------------------------


def test_without_credentials_nothing_is_sent(
    open_at: OpenAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with FakeEndpoint(reply_to_all(Reply.of())) as server:
        store = open_at(server.endpoint)
        for use in (lambda: store.get("trip"), lambda: store.append("trip", HELLO)):
            with raises_in_time(AccessRefused, "There are no AWS credentials, .*run with a role."):
                use()
    assert server.operations == []


@pytest.mark.parametrize(
    "code", ["AccessDeniedException", "ExpiredTokenException", "UnrecognizedClientException"]
)
def test_a_call_with_credentials_that_aws_rejects_is_not_retried(
    open_at: OpenAt, code: str
) -> None:
    with FakeEndpoint(reply_to_all(Reply.error(code))) as server:
        store = open_at(server.endpoint)
        with raises_in_time(
            AccessRefused,
            rf"AWS refused the call \({code}\): the credentials have expired, or may not use table "
            r"'conversations'; renew them, or grant them the permissions that "
            r"chatledger\.stores\.dynamodb\.policy lists\.",
        ):
            store.get("trip")
    assert server.operations == ["Query"]


def test_an_invalid_signature_is_blamed_on_the_clock_or_the_secret_key(open_at: OpenAt) -> None:
    with FakeEndpoint(reply_to_all(Reply.error("InvalidSignatureException"))) as server:
        store = open_at(server.endpoint)
        with raises_in_time(
            AccessRefused,
            r"AWS refused the call \(InvalidSignatureException\): the computer's clock is wrong by "
            r"minutes, or the secret key is wrong; set the clock, or check AWS_SECRET_ACCESS_KEY\.",
        ):
            store.get("trip")
    assert server.operations == ["Query"]


def test_missing_permission_to_write_is_reported_too(open_at: OpenAt) -> None:
    with FakeEndpoint(reply_to_writes(Reply.error("AccessDeniedException"))) as server:
        store = open_at(server.endpoint)
        with raises_in_time(AccessRefused, "AWS refused the call .*"):
            store.append("trip", HELLO)
    assert server.operations == ["Query", "PutItem"]


@pytest.mark.parametrize(
    ("status", "code"), [(400, NO_CREDENTIALS), (403, NO_CREDENTIALS), (500, calls.NO_REPLY)]
)
def test_a_refusal_by_the_service_that_issues_credentials_is_not_one_by_dynamodb(
    status: int, code: str
) -> None:
    response: Any = {
        "Error": {"Code": "ResourceNotFoundException", "Message": "There is no such role."},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error = ClientError(response, "AssumeRole")
    failed = failure_from_error(error, "PutItem", single_attempt=True)
    assert (failed.code, failed.unknown) == (code, False)


# Transient failures -------------------------------------------------------------------------------

TRANSIENT_FAILURES = {
    "throttled": (Reply.error("ThrottlingException"), "ThrottlingException", False),
    "over capacity": (
        Reply.error("ProvisionedThroughputExceededException"),
        "ProvisionedThroughputExceededException",
        False,
    ),
    "internal error": (Reply.error("InternalServerError", 500), "InternalServerError", True),
    "unavailable": (
        Reply.error("ServiceUnavailable", 503),
        "(ServiceUnavailable|InternalServerError)",
        True,
    ),
    "a proxy's error page": (Reply(502, b"<p>Bad gateway</p>"), "InternalServerError", True),
    "a reply that is not JSON": (Reply(200, b"<p>Welcome</p>"), "no reply, [A-Za-z]+", True),
    "dropped connection": (DROP_CONNECTION, "no reply, [A-Za-z]+", True),
    "no reply": (NO_REPLY, "no reply, [A-Za-z]+", True),
}


@pytest.mark.parametrize(
    ("outcome", "reason", "may_have_landed"), TRANSIENT_FAILURES.values(), ids=TRANSIENT_FAILURES
)
def test_a_write_is_retried_until_patience_ends_and_says_whether_it_may_have_landed(
    open_at: OpenAt, outcome: Outcome, reason: str, may_have_landed: bool
) -> None:
    with FakeEndpoint(reply_to_writes(outcome)) as server:
        store = open_at(server.endpoint, patience=2 * PATIENCE)
        with raises_in_time(
            StoreUnavailable,
            rf"DynamoDB did not complete PutItem in time \({reason}\); try again later\.",
        ) as failed:
            store.append("trip", HELLO)
    assert failed.value.may_have_landed is may_have_landed  # type: ignore[attr-defined]
    assert server.operations.count("PutItem") > 1 or outcome == NO_REPLY


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [failure[:2] for failure in TRANSIENT_FAILURES.values()],
    ids=TRANSIENT_FAILURES,
)
def test_a_read_is_retried_until_patience_ends_and_has_not_landed(
    open_at: OpenAt, outcome: Outcome, reason: str
) -> None:
    with (
        FakeEndpoint(reply_to_all(outcome)) as server,
        raises_in_time(
            StoreUnavailable,
            rf"DynamoDB did not complete Query in time \({reason}\); try again later\.",
        ) as failed,
    ):
        open_at(server.endpoint).tail("trip", 20)
    assert failed.value.may_have_landed is False  # type: ignore[attr-defined]


def test_without_a_connection_a_write_has_not_landed(open_at: OpenAt) -> None:
    with FakeEndpoint(reply_to_all(DROP_CONNECTION)) as server:
        pass  # closed again, so that nothing listens on its port
    store = open_at(server.endpoint)
    with raises_in_time(
        StoreUnavailable,
        r"DynamoDB did not complete Query in time \(no connection, [A-Za-z]+\); try again later\.",
    ) as failed:
        store.append("trip", HELLO)
    assert failed.value.may_have_landed is False  # type: ignore[attr-defined]


def test_failures_that_end_in_time_are_not_noticed(open_at: OpenAt) -> None:
    failures: list[Outcome] = [
        Reply.error("ThrottlingException"),
        Reply.error("InternalServerError", 500),
        DROP_CONNECTION,
        Reply(502, b"<p>Bad gateway</p>"),
    ]
    with FakeEndpoint(lambda *_: failures.pop() if failures else Reply.of(Items=[])) as server:
        store = open_at(server.endpoint, patience=LONG_PATIENCE)
        with raises_in_time(NotFound, "There is no conversation 'trip'."):
            store.get("trip")
    assert server.operations == ["Query"] * 5


@pytest.mark.parametrize("failure", [DROP_CONNECTION, Reply.error("InternalServerError", 500)])
def test_a_write_whose_reply_is_lost_takes_effect_once(
    open_at: OpenAt, dynamodb_local: DynamoDBLocal, table: str, failure: Outcome
) -> None:
    lost: list[int] = []

    def lose_first_reply(operation: str, body: bytes) -> Outcome:
        reply = forward(dynamodb_local.endpoint, operation, body)
        if operation == "PutItem" and not lost:
            lost.append(reply.status)
            return failure
        return reply

    with FakeEndpoint(lose_first_reply) as server:
        store = open_at(server.endpoint, table, patience=LONG_PATIENCE)
        appended = store.append("trip", HELLO)
        assert store.get("trip").message_count == 1
        assert store.tail("trip", 5).messages == HELLO
    assert lost == [200]
    assert list(appended.seqs) == [1]


def test_the_next_position_is_known_from_the_record_of_a_rival_that_was_first(
    open_at: OpenAt, dynamodb_local: DynamoDBLocal, table: str
) -> None:
    # The failed put returns the winner's record, with its body in bytes.
    one, other = (open_at(dynamodb_local.endpoint, table) for _ in range(2))
    long = "This body is compressed, because it is long. " * 100
    one.append("trip", HELLO)
    other.append("trip", [Message.user(long)])
    assert list(one.append("trip", HELLO).seqs) == [3]
    assert [message.text for message in other.tail("trip", 5).messages] == ["hello", long, "hello"]


def test_the_proxy_of_the_environment_is_used(
    open_at: OpenAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEndpoint(reply_to_all(Reply.of(Items=[]))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint)
        monkeypatch.setenv("http_proxy", proxy.endpoint)
        with raises_in_time(NotFound, ".*"):
            open_at("http://dynamodb.test").get("trip")
    assert proxy.operations == ["Query"]


DAMAGED_REPLIES = {
    "invalid base64": {"Items": [{"pk": {"B": "abcde"}}]},
    "items that are no objects": {"Items": [5]},
    "a text in place of a list": {"Items": 7},
}


@pytest.mark.parametrize("reply", DAMAGED_REPLIES.values(), ids=DAMAGED_REPLIES)
def test_a_damaged_reply_is_retried_like_none_over_aiohttp(
    aws_environment: None, reply: dict[str, Any]
) -> None:
    replies = [Reply.of(Items=[]), Reply.of(**reply)]

    async def read(endpoint: str) -> None:
        async with AsyncDynamoDBStore("conversations", region=REGION, endpoint=endpoint) as store:
            await store.get("trip")

    with FakeEndpoint(lambda *_: replies.pop()) as server:
        with pytest.raises(NotFound):
            asyncio.run(read(server.endpoint))
        assert server.operations == ["Query", "Query"]
