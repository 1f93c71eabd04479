"""Fixtures: each test holds ``Chat`` over SQLite and DynamoDB, and ``SyncChat`` over SQLite.

Tests of what only ``Chat`` has, such as cancellation, are marked ``chat_only``.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest

from chatledger.chat import Chat
from chatledger.models.protocol import Model
from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.urls import open_async_store, open_store
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from chatledger.values import now
from tests.chat.talk import Talk
from tests.chat.threaded_chat import LoopThread, ThreadedChat
from tests.chat.watched_store import FakeTime
from tests.stores.dynamodb.tables import clear_table, new_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chat_only: the test does not hold for SyncChat")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = filter(_is_wanted, items)


def _is_wanted(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is None or callspec.params.get("new_chat") != "SyncChat":
        return True
    if item.get_closest_marker("chat_only"):
        return False
    # The store contract holds sync stores like async ones, so one of them is enough here.
    return bool(callspec.params.get("url") != "dynamodb")


class Table(NamedTuple):
    client: "DynamoDBClient"
    name: str
    endpoint: str


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chatledger.db"


@pytest.fixture(scope="session")
def table(dynamodb_local: DynamoDBLocal) -> Iterator["Table"]:
    client = dynamodb_local.client()
    yield Table(client, new_table(client), dynamodb_local.endpoint)
    client.close()


@pytest.fixture(params=["sqlite", "dynamodb"])
def url(
    request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of an empty store for one test."""
    if request.param == "sqlite":
        yield f"sqlite:///{path}"
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    table: Table = request.getfixturevalue("table")
    yield f"dynamodb://{table.name}?region={REGION}&endpoint={table.endpoint}"
    # Emptying the table is faster than creating a new one for each test.
    clear_table(table.client, table.name)


@pytest.fixture
async def store(url: str) -> AsyncIterator[AsyncStore]:
    """A store whose clock is not compared: the turns of a test share one, so leases end with it."""
    async with open_async_store(url, clock=lambda: now()) as store:
        yield store


@pytest.fixture
async def reopened(url: str) -> AsyncIterator[AsyncStore]:
    """The same store, opened again as by a restarted process."""
    async with open_async_store(url, clock=lambda: now()) as store:
        yield store


@pytest.fixture(params=["Chat", "SyncChat"])
async def new_chat(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Chat]]:
    loop = LoopThread()

    def new(
        store: AsyncStore, model: Model, *, time: FakeTime | None = None, **options: Any
    ) -> object:
        chat: Any
        if request.param == "Chat":
            timed = chat = Chat(store, model, **options)
        else:
            chat = ThreadedChat(store, model, loop, **options)
            timed = chat.chat
        if time is not None:
            timed._options = replace(
                timed._options, lease=timedelta(minutes=1), clock=time.clock, timer=time.timer
            )
        return chat

    yield cast(Callable[..., Chat], new)
    await loop.close()


@pytest.fixture
def talk(store: AsyncStore, new_chat: Callable[..., Chat]) -> Talk:
    return Talk(store, new_chat)


@pytest.fixture
async def sqlite(path: Path, new_chat: Callable[..., Chat]) -> AsyncIterator[Talk]:
    """A ``talk`` over SQLite alone, for tests that do not depend on the kind of the store."""
    async with open_async_store(f"sqlite:///{path}") as store:
        yield Talk(store, new_chat)


@pytest.fixture
def sync_store(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store
