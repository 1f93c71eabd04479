"""One URL names a store."""

import re
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
from chatledger.messages import new_id
from chatledger.stores.dynamodb import DynamoDBStore, create_table
from chatledger.stores.dynamodb.calls import Call
from chatledger.stores.urls import check_url, duration
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.stores.dynamodb.fake_endpoint import Answering, Reply

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


def test_a_store_keeps_its_file_whatever_folder_the_process_goes_to(
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
def test_a_name_of_any_characters_is_written_as_in_every_url(tmp_path: Path, name: str) -> None:
    with open_store(f"sqlite:///{tmp_path}/{quote(name)}"):
        assert (tmp_path / name).is_file()


def test_memory_is_each_stores_own_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///:memory:") as one, open_store("sqlite:///:memory:") as other:
        one.create("mine")
        other.create("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
async def test_an_async_store_has_the_same_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chatledger.db"
    with open_store(url) as store:
        appended = store.append("greeting", HELLO)
    async with open_async_store(url) as same:
        assert (await same.get("greeting")).revision == appended.revision


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


WHERE = "write sqlite:///PATH, such as sqlite:///chatledger.db, or dynamodb://TABLE."
TABLE = (
    "names no table; write dynamodb://TABLE with 3 to 255 letters, digits, dots, dashes and "
    "underscores."
)
KNOWN = "region, endpoint, expire_after, consistent and patience are known."
SLASHES = (
    "names no file; write sqlite:///chatledger.db (three slashes) for one in the working directory, "
    "sqlite:////var/lib/chatledger.db (four) for any other."
)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", f"The store '' is of no known kind; {WHERE}"),
        ("chatledger.db", f"The store 'chatledger.db' is of no known kind; {WHERE}"),
        ("postgres://host/db", f"The store 'postgres://host/db' is of no known kind; {WHERE}"),
        ("sqlite:", f"The store 'sqlite:' {SLASHES}"),
        ("sqlite:///", f"The store 'sqlite:///' {SLASHES}"),
        ("sqlite://chatledger.db", f"The store 'sqlite://chatledger.db' {SLASHES}"),
        ("sqlite://host/chatledger.db", f"The store 'sqlite://host/chatledger.db' {SLASHES}"),
        ("sqlite:///a.db#b", f"The store 'sqlite:///a.db#b' {SLASHES}"),
        ("sqlite:///a%00.db", f"The store 'sqlite:///a%00.db' {SLASHES}"),
        ("sqlite://[a.db", "The store 'sqlite://[a.db' is no URL: Invalid IPv6 URL."),
        (
            "sqlite:///a.db?mode=ro",
            "The store 'sqlite:///a.db?mode=ro' has 'mode'; only expire_after is known.",
        ),
        ("sqlite:///a?a=1", "The store 'sqlite:///a?a=1' has 'a'; only expire_after is known."),
        ("dynamodb:", f"The store 'dynamodb:' {TABLE}"),
        ("dynamodb://", f"The store 'dynamodb://' {TABLE}"),
        ("dynamodb:///trips", f"The store 'dynamodb:///trips' {TABLE}"),
        ("dynamodb://ab", f"The store 'dynamodb://ab' {TABLE}"),
        ("dynamodb://tr%69ps", f"The store 'dynamodb://tr%69ps' {TABLE}"),
        ("dynamodb://bob@trips", f"The store 'dynamodb://bob@trips' {TABLE}"),
        ("dynamodb://trips:80", f"The store 'dynamodb://trips:80' {TABLE}"),
        ("dynamodb://trips/items", f"The store 'dynamodb://trips/items' {TABLE}"),
        ("dynamodb://trips#items", f"The store 'dynamodb://trips#items' {TABLE}"),
        ("dynamodb://trips?a=1", f"The store 'dynamodb://trips?a=1' has 'a'; {KNOWN}"),
        ("dynamodb://trips?region=", "'' is no AWS region; write one such as eu-west-1."),
        (
            "dynamodb://trips?region=Ireland",
            "'Ireland' is no AWS region; write one such as eu-west-1.",
        ),
        (
            "dynamodb://trips?endpoint=127.0.0.1:8000",
            "The endpoint '127.0.0.1:8000' is no address; write one such as http://127.0.0.1:8000.",
        ),
        (
            "dynamodb://trips?endpoint=http://[::1",
            "The endpoint 'http://[::1' is no address; write one such as http://127.0.0.1:8000.",
        ),
        (
            "dynamodb://trips?endpoint=http://a:99999",
            "The endpoint 'http://a:99999' is no address; write one such as http://127.0.0.1:8000.",
        ),
        (
            "dynamodb://trips?endpoint=http:///",
            "The endpoint 'http:///' is no address; write one such as http://127.0.0.1:8000.",
        ),
        ("dynamodb://trips?consistent=yes", "'yes' is neither true nor false."),
        (
            "dynamodb://trips?expire_after=0s",
            "The time '0s' is 0:00:00; it must be a second to 36,500 days.",
        ),
        (
            "sqlite:///a.db?expire_after=month",
            "'month' is no time; write a number and s, m, h, d or w: 30d.",
        ),
        ("sqlite:///a.db?expire_after", "'' is no time; write a number and s, m, h, d or w: 30d."),
        (
            "sqlite:///a.db?expire_after=0s",
            "The time '0s' is 0:00:00; it must be a second to 36,500 days.",
        ),
    ],
)
@pytest.mark.parametrize("use", [open_store, open_async_store, check_url])
def test_a_url_that_names_no_store_is_refused_with_what_to_write(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[str], object],
    url: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument) as refused:
        use(url)
    assert str(refused.value) == sentence
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
    ids=["neither", "in the URL", "as argument", "both: the URL says"],
)
def test_how_long_conversations_live_is_said_by_the_url_or_the_argument(
    query: str, argument: timedelta | None, lifetime: timedelta | None
) -> None:
    with open_store(f"sqlite:///:memory:{query}", expire_after=argument) as store:
        made = store.create()
    assert made.expires_at == (lifetime and made.updated_at + lifetime)


@pytest.mark.anyio
async def test_an_async_store_takes_the_lifetime_too() -> None:
    hour = timedelta(hours=1)
    async with open_async_store("sqlite:///:memory:?expire_after=1h") as store:
        made = await store.create()
        assert made.expires_at == made.updated_at + hour
    async with open_async_store("sqlite:///:memory:", expire_after=hour) as store:
        made = await store.create()
        assert made.expires_at == made.updated_at + hour


# DynamoDB -----------------------------------------------------------------------------------------


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, dynamodb_local: DynamoDBLocal) -> Iterator[str]:
    """A URL of a table in DynamoDB Local, for which the environment has credentials."""
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
async def test_a_table_is_the_same_for_sync_and_async_code(there: str) -> None:
    with open_store(there) as store:
        appended = store.append("greeting", HELLO)
        async with open_async_store(there) as same:
            assert (await same.get("greeting")).revision == appended.revision


@pytest.mark.anyio
async def test_a_table_has_the_lifetime_of_its_url(there: str) -> None:
    hour = timedelta(hours=1)
    with open_store(f"{there}&expire_after=1h") as store:
        made = store.create()
        assert made.expires_at == made.updated_at + hour
    async with open_async_store(there, expire_after=hour) as async_store:
        made = await async_store.create()
        assert made.expires_at == made.updated_at + hour


@pytest.mark.parametrize(("query", "halved"), [("", 1), ("&consistent=false", 2)])
def test_reads_that_may_miss_the_latest_writes_are_asked_for_in_the_url(
    there: str, query: str, halved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(call: Call) -> dict[str, Any]:
        asked.append(call.params["ConsistentRead"])
        return {"Items": []}

    with open_store(f"{there}{query}") as store:
        monkeypatch.setattr(store._calls, "perform", note)  # type: ignore[attr-defined]
        with pytest.raises(NotFound):
            store.tail("greeting", 1)
    assert asked == [halved == 1]


@pytest.mark.anyio
@pytest.mark.usefixtures("there")
async def test_a_url_says_for_how_long_a_call_is_tried_again() -> None:
    began = monotonic()
    with Answering(lambda *_: Reply.error("ThrottlingException")) as server:
        url = f"dynamodb://conversations?region={REGION}&endpoint={server.endpoint}&patience=1s"
        with open_store(url) as store, pytest.raises(StoreUnavailable, match="in time"):
            store.get("trip")
        async with open_async_store(url) as async_store:
            with pytest.raises(StoreUnavailable, match="in time"):
                await async_store.get("trip")
    assert len(server.seen) > 2
    assert monotonic() - began < 15, "20 seconds each, unless it is told otherwise"


def test_a_store_closes_the_client_that_it_made(there: str) -> None:
    store = open_store(there)
    store.append("greeting", HELLO)
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match=r"was closed; open it again\.$"):
        store.get("greeting")


def test_a_store_leaves_the_client_open_that_it_was_given(
    there: str, dynamodb_local: DynamoDBLocal
) -> None:
    client = dynamodb_local.client()
    table = there.removeprefix("dynamodb://").partition("?")[0]
    for _ in range(2):
        with DynamoDBStore(client, table) as store:
            store.append("greeting", HELLO)
    assert client.scan(TableName=table)["Count"] > 0
    client.close()


FORKS = """
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


def test_a_store_may_be_used_in_a_forked_child(there: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS, there],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["21", "20"], done.stderr


@pytest.mark.anyio
async def test_without_a_region_it_is_said_where_to_write_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    sentence = "No AWS region is named; write region=eu-west-1, say, or set AWS_DEFAULT_REGION."
    with pytest.raises(InvalidArgument) as refused:
        open_store("dynamodb://trips")
    assert str(refused.value) == sentence
    async with open_async_store("dynamodb://trips") as store:
        with pytest.raises(InvalidArgument) as refused:
            await store.get("greeting")
    assert str(refused.value) == sentence


ABSENT = """
import sys
sys.modules[sys.argv[2]] = None  # as if it were not installed
from chatledger import InvalidArgument, open_async_store, open_store
try:
    {"sync": open_store, "async": open_async_store}[sys.argv[1]]("dynamodb://trips?region=eu-west-1")
except InvalidArgument as refused:
    print(refused)
"""


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        ("sync", "boto3", "dynamodb"),
        ("sync", "botocore", "dynamodb"),
        ("async", "boto3", "async"),
        ("async", "aiodynamo", "async"),
        ("async", "aiohttp", "async"),
        ("sync", "aiohttp", None),
    ],
)
def test_what_is_not_installed_is_named_with_how_to_install_it(
    kind: str, module: str, extra: str | None
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ABSENT, kind, module],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    if extra is None:
        assert done.stdout == ""
    else:
        assert re.fullmatch(
            rf"A store in DynamoDB needs {module}[\w.]*; install it with "
            rf"pip install 'chatledger\[{extra}\]'\.\n",
            done.stdout,
        )


def test_checking_the_url_of_a_table_needs_nothing_that_is_optional() -> None:
    code = (
        "import sys; from chatledger.stores.urls import check_url; "
        "check_url('dynamodb://trips?region=eu-west-1&expire_after=30d&consistent=true"
        "&endpoint=http://127.0.0.1:8000'); print('botocore' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


# Times --------------------------------------------------------------------------------------------


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
def test_a_time_is_a_number_and_a_unit(text: str, time: timedelta) -> None:
    assert duration(text) == time


@pytest.mark.parametrize(
    "text",
    ["", "30", "d", "30 d", "-1d", "1.5h", "30D", "30days", "1h30m", "٣d", "0s", "36501d"]
    + [f"{10**digits}{unit}" for digits in (7, 8, 9, 20) for unit in "dw"],
)
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"write a number|must be a second"):
        duration(text)
