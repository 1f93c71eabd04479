"""Store URLs: what they open, and the errors for invalid ones."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

import pytest

from chatledger import (
    InvalidArgument,
    Message,
    NotFound,
    StoreUnavailable,
    open_async_store,
    open_store,
)
from chatledger.stores.dynamodb import DynamoDBStore, create_table
from chatledger.stores.dynamodb.calls import Call
from chatledger.stores.urls import check_url, format_duration, parse_duration, without_secrets
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from chatledger.values import new_id
from tests.stores.dynamodb.fake_endpoint import FakeEndpoint, Reply

HELLO = [Message.user("hello")]


def test_three_slashes_name_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///chatledger.db") as store:
        store.append("greeting", HELLO)
    assert (tmp_path / "chatledger.db").is_file()


def test_four_slashes_name_a_file_anywhere(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/chatledger.db") as store:
        store.append("greeting", HELLO)
    assert (tmp_path / "chatledger.db").is_file()


def test_a_store_keeps_its_file_when_the_process_changes_its_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with open_store("sqlite:///chatledger.db") as store:
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.append("greeting", HELLO)
    with open_store(f"sqlite:///{tmp_path}/chatledger.db") as store:
        assert store.get("greeting").message_count == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["with space.db", "ünï.db", "50%.db", "what?.db", "a#b.db"])
def test_special_characters_in_a_file_name_are_percent_encoded(tmp_path: Path, name: str) -> None:
    with open_store(f"sqlite:///{tmp_path}/{quote(name)}"):
        assert (tmp_path / name).is_file()


def test_each_in_memory_store_is_separate_and_creates_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///:memory:") as one, open_store("sqlite:///:memory:") as other:
        one.create("mine")
        other.create("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
async def test_sync_and_async_stores_open_the_same_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chatledger.db"
    with open_store(url) as store:
        appended = store.append("greeting", HELLO)
    async with open_async_store(url) as same:
        assert (await same.get("greeting")).revision == appended.revision


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


KIND_ADVICE = "write sqlite:///PATH, such as sqlite:///chatledger.db, or dynamodb://TABLE."
TABLE_ADVICE = (
    "does not name a table; write dynamodb://TABLE with a name of 3 to 255 letters, digits, dots, "
    "dashes and underscores."
)
KNOWN_OPTIONS = "region, endpoint, expire_after, consistent, patience and cleanup are known."
FILE_ADVICE = (
    "does not name a file; write sqlite:///chatledger.db (three slashes) for a file in the working "
    "directory, or sqlite:////var/lib/chatledger.db (four) for any other."
)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", f"The store '' is of an unknown kind; {KIND_ADVICE}"),
        ("chatledger.db", f"The store 'chatledger.db' is of an unknown kind; {KIND_ADVICE}"),
        (
            "postgres://host/db",
            f"The store 'postgres://host/db' is of an unknown kind; {KIND_ADVICE}",
        ),
        ("sqlite:", f"The store 'sqlite:' {FILE_ADVICE}"),
        ("sqlite:chatledger.db", f"The store 'sqlite:chatledger.db' {FILE_ADVICE}"),
        ("sqlite:/chatledger.db", f"The store 'sqlite:/chatledger.db' {FILE_ADVICE}"),
        ("sqlite:///", f"The store 'sqlite:///' {FILE_ADVICE}"),
        ("sqlite://chatledger.db", f"The store 'sqlite://chatledger.db' {FILE_ADVICE}"),
        ("sqlite://host/chatledger.db", f"The store 'sqlite://host/chatledger.db' {FILE_ADVICE}"),
        ("sqlite:///a.db#b", f"The store 'sqlite:///a.db#b' {FILE_ADVICE}"),
        ("sqlite:///a%00.db", f"The store 'sqlite:///a%00.db' {FILE_ADVICE}"),
        ("sqlite://[a.db", "The store 'sqlite://[a.db' is not a valid URL: Invalid IPv6 URL."),
        (
            "sqlite:///a.db?mode=ro",
            "The store 'sqlite:///a.db?mode=ro' has the option 'mode'; only expire_after is known.",
        ),
        (
            "sqlite:///a?a=1",
            "The store 'sqlite:///a?a=1' has the option 'a'; only expire_after is known.",
        ),
        ("dynamodb:", f"The store 'dynamodb:' {TABLE_ADVICE}"),
        ("dynamodb://", f"The store 'dynamodb://' {TABLE_ADVICE}"),
        ("dynamodb:///trips", f"The store 'dynamodb:///trips' {TABLE_ADVICE}"),
        ("dynamodb://ab", f"The store 'dynamodb://ab' {TABLE_ADVICE}"),
        ("dynamodb://tr%69ps", f"The store 'dynamodb://tr%69ps' {TABLE_ADVICE}"),
        ("dynamodb://bob@trips", f"The store 'dynamodb://bob@trips' {TABLE_ADVICE}"),
        ("dynamodb://trips:80", f"The store 'dynamodb://trips:80' {TABLE_ADVICE}"),
        ("dynamodb://trips/items", f"The store 'dynamodb://trips/items' {TABLE_ADVICE}"),
        ("dynamodb://trips#items", f"The store 'dynamodb://trips#items' {TABLE_ADVICE}"),
        (
            "dynamodb://trips?a=1",
            f"The store 'dynamodb://trips?a=1' has the option 'a'; {KNOWN_OPTIONS}",
        ),
    ],
)
@pytest.mark.parametrize("use", [open_store, open_async_store, check_url])
def test_an_invalid_url_is_rejected_with_advice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[str], object],
    url: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument) as raised:
        use(url)
    assert str(raised.value) == sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "option", "sentence"),
    [
        (
            "dynamodb://trips?region=",
            "region",
            "'' is not an AWS region; write one such as eu-west-1.",
        ),
        (
            "dynamodb://trips?region=Ireland",
            "region",
            "'Ireland' is not an AWS region; write one such as eu-west-1.",
        ),
        (
            "dynamodb://trips?endpoint=127.0.0.1:8000",
            "endpoint",
            "'127.0.0.1:8000' is not a URL; write one such as http://127.0.0.1:8000.",
        ),
        (
            "dynamodb://trips?endpoint=http://[::1",
            "endpoint",
            "'http://[::1' is not a URL; write one such as http://127.0.0.1:8000.",
        ),
        (
            "dynamodb://trips?endpoint=http://a:99999",
            "endpoint",
            "'http://a:99999' is not a URL; write one such as http://127.0.0.1:8000.",
        ),
        (
            "dynamodb://trips?endpoint=http:///",
            "endpoint",
            "'http:///' is not a URL; write one such as http://127.0.0.1:8000.",
        ),
        (
            "dynamodb://trips?consistent=yes",
            "consistent",
            "'yes' is not a boolean; write true or false.",
        ),
        (
            "dynamodb://trips?cleanup=soon",
            "cleanup",
            "'soon' is not a duration; write a number and s, m, h, d or w, such as 30d.",
        ),
        (
            "dynamodb://trips?expire_after=0s",
            "expire_after",
            "The duration '0s' is 0:00:00; it must be from 1 second to 36,500 days.",
        ),
        (
            "sqlite:///a.db?expire_after=month",
            "expire_after",
            "'month' is not a duration; write a number and s, m, h, d or w, such as 30d.",
        ),
        (
            "sqlite:///a.db?expire_after",
            "expire_after",
            "'' is not a duration; write a number and s, m, h, d or w, such as 30d.",
        ),
        (
            "sqlite:///a.db?expire_after=0s",
            "expire_after",
            "The duration '0s' is 0:00:00; it must be from 1 second to 36,500 days.",
        ),
    ],
)
@pytest.mark.parametrize("use", [open_store, open_async_store, check_url])
def test_an_invalid_option_is_named_with_advice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[str], object],
    url: str,
    option: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument) as raised:
        use(url)
    assert str(raised.value) == f"The option {option} in the store's URL is not valid: {sentence}"
    assert list(tmp_path.iterdir()) == []


def test_checking_a_url_opens_nothing(tmp_path: Path) -> None:
    check_url(f"sqlite:///{tmp_path}/chatledger.db?expire_after=30d")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="could not be opened"):
        open_store(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize(
    ("query", "argument", "lifetime"),
    [
        ("", None, None),
        ("?expire_after=30d", None, timedelta(days=30)),
        ("", timedelta(hours=1), timedelta(hours=1)),
        ("?expire_after=90s", timedelta(hours=1), timedelta(seconds=90)),
    ],
    ids=["neither", "in the URL", "as argument", "both: the URL wins"],
)
def test_the_lifetime_comes_from_the_url_or_else_from_the_argument(
    query: str, argument: timedelta | None, lifetime: timedelta | None
) -> None:
    with open_store(f"sqlite:///:memory:{query}", expire_after=argument) as store:
        made = store.create()
    assert made.expires_at == (lifetime and made.updated_at + lifetime)


@pytest.mark.anyio
async def test_an_async_store_has_the_lifetime_of_its_url_or_argument() -> None:
    hour = timedelta(hours=1)
    async with open_async_store("sqlite:///:memory:?expire_after=1h") as store:
        made = await store.create()
        assert made.expires_at == made.updated_at + hour
    async with open_async_store("sqlite:///:memory:", expire_after=hour) as store:
        made = await store.create()
        assert made.expires_at == made.updated_at + hour


# DynamoDB -----------------------------------------------------------------------------------------


@pytest.fixture
def table_url(monkeypatch: pytest.MonkeyPatch, dynamodb_local: DynamoDBLocal) -> Iterator[str]:
    """The URL of a table in DynamoDB Local; the environment has credentials for it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "*")
    table = f"Trips_by.url-{new_id()}"
    client = dynamodb_local.client()
    create_table(client, table)
    yield f"dynamodb://{table}?region={REGION}&endpoint={dynamodb_local.endpoint}"
    client.delete_table(TableName=table)
    client.close()


@pytest.mark.anyio
async def test_sync_and_async_stores_open_the_same_table(table_url: str) -> None:
    with open_store(table_url) as store:
        appended = store.append("greeting", HELLO)
        async with open_async_store(table_url) as same:
            assert (await same.get("greeting")).revision == appended.revision


@pytest.mark.anyio
async def test_a_dynamodb_store_has_the_lifetime_of_its_url_or_argument(table_url: str) -> None:
    hour = timedelta(hours=1)
    with open_store(f"{table_url}&expire_after=1h") as store:
        made = store.create()
        assert made.expires_at == made.updated_at + hour
    async with open_async_store(table_url, expire_after=hour) as async_store:
        made = await async_store.create()
        assert made.expires_at == made.updated_at + hour


@pytest.mark.parametrize(("query", "halved"), [("", 1), ("&consistent=false", 2)])
def test_the_url_can_ask_for_eventually_consistent_reads(
    table_url: str, query: str, halved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    consistent_reads = []

    def record_call(call: Call) -> dict[str, Any]:
        consistent_reads.append(call.params["ConsistentRead"])
        return {"Items": []}

    with open_store(f"{table_url}{query}") as store:
        monkeypatch.setattr(store._calls, "perform", record_call)  # type: ignore[attr-defined]
        with pytest.raises(NotFound):
            store.tail("greeting", 1)
    assert consistent_reads == [halved == 1]


@pytest.mark.anyio
@pytest.mark.usefixtures("table_url")
async def test_the_url_sets_how_long_a_failing_call_is_retried() -> None:
    began = monotonic()
    with FakeEndpoint(lambda *_: Reply.error("ThrottlingException")) as server:
        url = f"dynamodb://conversations?region={REGION}&endpoint={server.endpoint}&patience=1s"
        with open_store(url) as store, pytest.raises(StoreUnavailable, match="in time"):
            store.get("trip")
        async with open_async_store(url) as async_store:
            with pytest.raises(StoreUnavailable, match="in time"):
                await async_store.get("trip")
    assert len(server.operations) > 2
    assert monotonic() - began < 15, "the default is 20 seconds for each"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "seconds"), [("", 2.0), ("&cleanup=0s", 0.0), ("&cleanup=5s", 5.0)]
)
async def test_the_url_sets_how_long_a_write_may_free_storage(
    table_url: str, query: str, seconds: float
) -> None:
    with open_store(table_url + query) as store:
        assert store._table.cleanup_seconds == seconds  # type: ignore[attr-defined]
    async with open_async_store(table_url + query) as async_store:
        assert async_store._table.cleanup_seconds == seconds  # type: ignore[attr-defined]


def test_a_store_closes_a_client_that_it_created(table_url: str) -> None:
    store = open_store(table_url)
    store.append("greeting", HELLO)
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match=r"was closed; open it again\.$"):
        store.get("greeting")


def test_a_store_does_not_close_a_client_that_it_was_given(
    table_url: str, dynamodb_local: DynamoDBLocal
) -> None:
    client = dynamodb_local.client()
    table = table_url.removeprefix("dynamodb://").partition("?")[0]
    for _ in range(2):
        with DynamoDBStore(client, table) as store:
            store.append("greeting", HELLO)
    assert client.scan(TableName=table)["Count"] > 0
    client.close()


USE_AFTER_FORK = """
import os, sys
from chatledger import Message, open_store

store = open_store(sys.argv[1])
store.append("talk", [Message.user("parent")])
child = os.fork()
if not child:
    for n in range(20):
        store.append("talk", [Message.user("child")])
    os._exit(0)
for n in range(20):
    store.append("talk", [Message.user("parent")])
assert os.waitpid(child, 0)[1] == 0
texts = [message.text for message in store.tail("talk", 100).messages]
print(texts.count("parent"), texts.count("child"))
store.close()
"""


def test_a_dynamodb_store_can_be_used_in_a_forked_child(table_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", USE_AFTER_FORK, table_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["21", "20"], done.stderr


@pytest.mark.anyio
async def test_the_error_says_how_to_set_a_missing_region(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    sentence = (
        "No AWS region is configured; add region=, such as region=eu-west-1, or set "
        "AWS_DEFAULT_REGION."
    )
    with pytest.raises(InvalidArgument) as raised:
        open_store("dynamodb://trips")
    assert str(raised.value) == sentence
    async with open_async_store("dynamodb://trips") as store:
        with pytest.raises(InvalidArgument) as raised:
            await store.get("greeting")
    assert str(raised.value) == sentence


INSTALL_ASYNC = "-m pip install 'boto3>=1.40' 'aiohttp>=3.11'"
OPEN_WITHOUT_PACKAGE = """
import sys
sys.modules[sys.argv[2]] = None  # as if it were not installed
from chatledger import InvalidArgument, open_async_store, open_store
try:
    {"sync": open_store, "async": open_async_store}[sys.argv[1]]("dynamodb://trips?region=eu-west-1")
except InvalidArgument as refused:
    print(refused)
"""


@pytest.mark.parametrize(
    ("kind", "module", "command"),
    [
        ("sync", "boto3", "-m pip install 'boto3>=1.40'"),
        ("sync", "botocore", "-m pip install 'boto3>=1.40'"),
        ("async", "boto3", INSTALL_ASYNC),
        ("async", "aiohttp", INSTALL_ASYNC),
        ("sync", "aiohttp", None),
    ],
)
def test_the_error_says_how_to_install_a_missing_package(
    kind: str, module: str, command: str | None
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN_WITHOUT_PACKAGE, kind, module],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    if command is None:
        assert done.stdout == ""
    else:
        assert done.stdout == (
            f"A store in DynamoDB needs {module}; install it with {sys.executable} {command}.\n"
        )


def test_checking_the_url_of_a_table_imports_no_optional_package() -> None:
    code = (
        "import sys; from chatledger.stores.urls import check_url; "
        "check_url('dynamodb://trips?region=eu-west-1&expire_after=30d&consistent=true"
        "&endpoint=http://127.0.0.1:8000'); print('botocore' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


# Durations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1s", timedelta(seconds=1)),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("030d", timedelta(days=30)),
        (" 30d ", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, time: timedelta) -> None:
    assert parse_duration(text) == time
    assert parse_duration(format_duration(time)) == time


@pytest.mark.parametrize("text", ["1s", "61s", "90m", "1h", "25h", "30d", "14d"])
def test_a_duration_is_written_in_its_largest_unit(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "30", "d", "30 d", "-1d", "1.5h", "30D", "30days", "1h30m", "٣d", "0s", "36501d"]
    + [f"{10**digits}{unit}" for digits in (7, 8, 9, 20) for unit in "dw"],
)
def test_anything_else_is_not_a_duration(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"write a number|must be from 1 second"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///chatledger.db", "sqlite:///chatledger.db"),
        ("sqlite:///a%40b.db?expire_after=30d", "sqlite:///a%40b.db?expire_after=30d"),
        ("dynamodb://table?region=eu-west-1", "dynamodb://table?region=eu-west-1"),
        (
            "dynamodb://table?endpoint=http://ann:secret@127.0.0.1:8000/p?key=secret&patience=3s",
            "dynamodb://table?endpoint=http://127.0.0.1:8000/p&patience=3s",
        ),
        (
            "dynamodb://table?endpoint=https%3A%2F%2Fann%3Asecret%40db.example",
            "dynamodb://table?endpoint=https://db.example",
        ),
    ],
)
def test_a_url_can_be_shown_without_the_secrets_of_its_endpoint(url: str, shown: str) -> None:
    check_url(url)
    assert without_secrets(url) == shown
