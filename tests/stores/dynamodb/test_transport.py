"""What a store says when DynamoDB refuses, throttles, is away or does not answer; over boto3 and
over aiodynamo alike, and before its deadline.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

import boto3
import pytest
from anyio.from_thread import start_blocking_portal
from botocore.config import Config

from chatledger import ChatledgerError, Message, NotFound, StoreUnavailable
from chatledger.errors import AccessRefused, TableMismatch, TableMissing
from chatledger.messages import new_id
from chatledger.stores.contract import Store
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore
from chatledger.testing.dynamodb_local import REGION, DynamoDBLocal
from chatledger.testing.store_contract.asynchronous import Blocking
from tests.stores.dynamodb.fake_endpoint import (
    DROP,
    SILENCE,
    Answering,
    Reply,
    everything,
    passed_on,
    writes,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

PATIENCE = 0.5
ENOUGH = 20.0
"""For what recovers, on however slow a machine."""
DEADLINE = 5.0
"""Well over what it takes, well under the time-outs that nobody set."""
HELLO = [Message.user("hello")]

OpenAt = Callable[..., Store]


pytestmark = pytest.mark.usefixtures("aws_environment")


@pytest.fixture(params=["boto3", "aiodynamo"])
def open_at(request: pytest.FixtureRequest) -> Iterator[OpenAt]:
    """``open_at(endpoint)``: a store there, over the one or the other, that soon gives up."""
    with ExitStack() as ends:

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
            ends.callback(client.close)
            return DynamoDBStore(client, table, patience=patience)

        def over_aiodynamo(
            endpoint: str, table: str = "conversations", *, patience: float = PATIENCE
        ) -> Store:
            store = AsyncDynamoDBStore(table, region=REGION, endpoint=endpoint, patience=patience)
            portal = ends.enter_context(start_blocking_portal("asyncio"))
            ends.enter_context(portal.wrap_async_context_manager(store))
            return cast(Store, Blocking(store, portal))

        yield over_boto3 if request.param == "boto3" else over_aiodynamo


@contextmanager
def refused(
    error: type[ChatledgerError], sentence: str
) -> Iterator[pytest.ExceptionInfo[ChatledgerError]]:
    """The block ends in that error before the deadline; the pattern is of the whole sentence."""
    begun = time.monotonic()
    with pytest.raises(error, match=f"^{sentence}$") as info:
        yield info
    assert time.monotonic() - begun < DEADLINE


# The table ----------------------------------------------------------------------------------------


def test_a_table_that_is_not_there_is_named_with_what_makes_it(
    open_at: OpenAt, dynamodb_local: DynamoDBLocal
) -> None:
    store = open_at(dynamodb_local.endpoint, "nowhere")
    for use in (lambda: store.get("trip"), lambda: store.append("trip", HELLO)):
        with refused(
            TableMissing,
            "There is no DynamoDB table 'nowhere' in this account and region; make it with "
            r"chatledger\.stores\.dynamodb\.create_table\(client, 'nowhere'\)\.",
        ):
            use()


KEYS = {
    "id": [("id", "HASH", "S")],
    "pk": [("pk", "HASH", "S")],
    "pk and a number": [("pk", "HASH", "S"), ("sk", "RANGE", "N")],
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_a_table_with_other_keys_is_no_store(
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
        with refused(
            TableMismatch,
            f"The DynamoDB table '{table}' is not as a store needs it: DynamoDB says, .*[^.]. "
            rf"chatledger\.stores\.dynamodb\.check_table\(client, '{table}'\) tells what mends it\.",
        ):
            use()
    client.delete_table(TableName=table)


# Who calls ----------------------------------------------------------------------------------------


def test_without_credentials_nothing_is_sent(
    open_at: OpenAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with Answering(everything(Reply.of())) as server:
        store = open_at(server.endpoint)
        for use in (lambda: store.get("trip"), lambda: store.append("trip", HELLO)):
            with refused(
                AccessRefused, "There are no AWS credentials here, .*where a role gives them."
            ):
                use()
    assert server.seen == []


@pytest.mark.parametrize(
    "code",
    [
        "AccessDeniedException",
        "ExpiredTokenException",
        "InvalidSignatureException",
        "UnrecognizedClientException",
    ],
)
def test_credentials_that_aws_refuses_are_not_tried_again(open_at: OpenAt, code: str) -> None:
    with Answering(everything(Reply.error(code))) as server:
        store = open_at(server.endpoint)
        with refused(
            AccessRefused,
            rf"AWS refused the call \({code}\): the credentials have expired, or may not use table "
            r"'conversations'; renew them, or give them the rights of "
            r"chatledger\.stores\.dynamodb\.policy\.",
        ):
            store.get("trip")
    assert server.seen == ["Query"]


def test_a_right_that_only_writing_lacks_is_named_too(open_at: OpenAt) -> None:
    with Answering(writes(Reply.error("AccessDeniedException"))) as server:
        store = open_at(server.endpoint)
        with refused(AccessRefused, "AWS refused the call .*"):
            store.append("trip", HELLO)
    assert server.seen == ["Query", "PutItem"]


# For a while --------------------------------------------------------------------------------------

WHILE = {
    "throttled": (Reply.error("ThrottlingException"), "ThrottlingException", False),
    "over capacity": (
        Reply.error("ProvisionedThroughputExceededException"),
        "ProvisionedThroughputExceededException",
        False,
    ),
    "failing": (Reply.error("InternalServerError", 500), "InternalServerError", True),
    "away": (
        Reply.error("ServiceUnavailable", 503),
        "(ServiceUnavailable|InternalServerError)",
        True,
    ),
    "behind a page of a proxy's": (Reply(502, b"<p>Bad gateway</p>"), "InternalServerError", True),
    "answering no JSON": (Reply(200, b"<p>Welcome</p>"), "no answer, [A-Za-z]+", True),
    "dropping": (DROP, "no answer, [A-Za-z]+", True),
    "silent": (SILENCE, "no answer, [A-Za-z]+", True),
}


@pytest.mark.parametrize(("answer", "why", "may_have_landed"), WHILE.values(), ids=WHILE)
def test_a_write_is_tried_again_until_the_deadline_and_says_whether_it_may_be_in(
    open_at: OpenAt, answer: Reply | str, why: str, may_have_landed: bool
) -> None:
    with Answering(writes(answer)) as server:
        store = open_at(server.endpoint)
        with refused(
            StoreUnavailable, rf"DynamoDB did not do PutItem in time \({why}\); try again later\."
        ) as failed:
            store.append("trip", HELLO)
    assert failed.value.may_have_landed is may_have_landed  # type: ignore[attr-defined]
    assert server.seen.count("PutItem") > 1 or answer == SILENCE


@pytest.mark.parametrize(("answer", "why"), [each[:2] for each in WHILE.values()], ids=WHILE)
def test_a_read_is_tried_again_until_the_deadline_and_has_changed_nothing(
    open_at: OpenAt, answer: Reply | str, why: str
) -> None:
    with (
        Answering(everything(answer)) as server,
        refused(
            StoreUnavailable, rf"DynamoDB did not do Query in time \({why}\); try again later\."
        ) as failed,
    ):
        open_at(server.endpoint).tail("trip", 20)
    assert failed.value.may_have_landed is False  # type: ignore[attr-defined]


def test_where_nobody_listens_nothing_has_landed(open_at: OpenAt) -> None:
    with Answering(everything(DROP)) as server:
        pass  # ended: the port is free again
    store = open_at(server.endpoint)
    with refused(
        StoreUnavailable,
        r"DynamoDB did not do Query in time \(no connection, [A-Za-z]+\); try again later\.",
    ) as failed:
        store.append("trip", HELLO)
    assert failed.value.may_have_landed is False  # type: ignore[attr-defined]


def test_what_recovers_in_time_is_noticed_by_nobody(open_at: OpenAt) -> None:
    troubles: list[Reply | str] = [
        Reply.error("ThrottlingException"),
        Reply.error("InternalServerError", 500),
        DROP,
        Reply(502, b"<p>Bad gateway</p>"),
    ]
    with Answering(lambda *_: troubles.pop() if troubles else Reply.of(Items=[])) as server:
        store = open_at(server.endpoint, patience=ENOUGH)
        with refused(NotFound, "There is no conversation 'trip'."):
            store.get("trip")
    assert server.seen == ["Query"] * 5


@pytest.mark.parametrize("trouble", [DROP, Reply.error("InternalServerError", 500)])
def test_a_write_whose_answer_was_lost_is_in_once(
    open_at: OpenAt, dynamodb_local: DynamoDBLocal, table: str, trouble: Reply | str
) -> None:
    lost: list[int] = []

    def once_lost(operation: str, body: bytes) -> Reply | str:
        reply = passed_on(dynamodb_local.endpoint, operation, body)
        if operation == "PutItem" and not lost:
            lost.append(reply.status)
            return trouble
        return reply

    with Answering(once_lost) as server:
        store = open_at(server.endpoint, table, patience=ENOUGH)
        appended = store.append("trip", HELLO)
        assert store.get("trip").message_count == 1
        assert store.tail("trip", 5).messages == HELLO
    assert lost == [200]
    assert list(appended.seqs) == [1]


def test_a_rival_that_came_first_is_told_from_its_record(
    open_at: OpenAt, dynamodb_local: DynamoDBLocal, table: str
) -> None:
    # The failed put brings the winner's record along, its body in bytes.
    one, other = (open_at(dynamodb_local.endpoint, table) for _ in range(2))
    long = "A body that is compressed, for it is long. " * 100
    one.append("trip", HELLO)
    other.append("trip", [Message.user(long)])
    assert list(one.append("trip", HELLO).seqs) == [3]
    assert [message.text for message in other.tail("trip", 5).messages] == ["hello", long, "hello"]


def test_a_proxy_of_the_environment_is_used(
    open_at: OpenAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Answering(everything(Reply.of(Items=[]))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint)
        monkeypatch.setenv("http_proxy", proxy.endpoint)
        with refused(NotFound, ".*"):
            open_at("http://dynamodb.test").get("trip")
    assert proxy.seen == ["Query"]
