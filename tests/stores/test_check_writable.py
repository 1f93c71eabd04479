"""``check_writable`` of every store: it raises what a write would raise, and changes nothing."""

import asyncio
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatledger import AsyncStore, Message, Store, StoreUnavailable, open_async_store, open_store
from chatledger.errors import TableMissing
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.stores.dynamodb.tables import new_table
from tests.testing.test_own_store import AsyncTimedStore, TimedStore


@pytest.fixture
def table(dynamodb_local: DynamoDBLocal, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    client = dynamodb_local.client()
    yield new_table(client)
    client.close()


@pytest.fixture(params=["sqlite", "dynamodb", "memory"])
def url(
    request: pytest.FixtureRequest, tmp_path: Path, table: str, dynamodb_local: DynamoDBLocal
) -> str:
    options = f"region={REGION}&endpoint={dynamodb_local.endpoint}"
    return {
        "sqlite": f"sqlite:///{tmp_path / 'chatledger.db'}",
        "memory": "sqlite:///:memory:",
        "dynamodb": f"dynamodb://{table}?{options}",
    }[request.param]


def check(store: Store | AsyncStore) -> None:
    """Call ``check_writable`` of a store of either kind, and close an async one."""
    if isinstance(store, Store):
        store.check_writable()
        return

    async def run(store: AsyncStore) -> None:
        async with store:
            await store.check_writable()

    asyncio.run(run(store))


def test_a_store_that_works_passes_and_stays_as_it_is(url: str) -> None:
    with open_store(url) as store:
        store.append("trip", [Message.user("hello")])
        before = store.tail("trip"), list(store.iter_conversations())
        check(store)
        check(open_async_store(url))
        assert (store.tail("trip"), list(store.iter_conversations())) == before


def test_no_item_is_left_in_a_table(dynamodb_local: DynamoDBLocal, table: str) -> None:
    client = dynamodb_local.client()
    check(DynamoDBStore(client, table))
    assert client.scan(TableName=table)["Items"] == []
    client.close()


def test_a_missing_table_is_named(dynamodb_local: DynamoDBLocal, table: str) -> None:
    url = f"dynamodb://nowhere?region={REGION}&endpoint={dynamodb_local.endpoint}"
    with open_store(url) as store, pytest.raises(TableMissing, match="nowhere"):
        check(store)
    with pytest.raises(TableMissing, match="nowhere"):
        check(open_async_store(url))


@pytest.mark.parametrize("open", [open_store, open_async_store])
def test_a_removed_file_does_not_pass(open: object, tmp_path: Path) -> None:
    path = tmp_path / "chatledger.db"
    assert callable(open)
    store = open(f"sqlite:///{path}")
    path.unlink()
    with pytest.raises(StoreUnavailable, match="was removed or replaced"):
        check(store)


FULL = """
import resource, sys
from chatledger import Message, StoreUnavailable, open_store

with open_store(sys.argv[1]) as store:
    store.append("talk", [Message.user("." * 10_000)])
    # The system lets no file grow beyond this, as if the disk were full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    try:
        store.check_writable()
    except StoreUnavailable:
        print("full")
    assert store.get("talk").message_count == 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.check_writable()
"""


def test_a_full_disk_does_not_pass_until_there_is_space(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'chatledger.db'}"
    command = [sys.executable, "-c", FULL, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("full\n", "")


def test_a_store_of_ones_own_inherits_a_check(tmp_path: Path) -> None:
    path = tmp_path / "chatledger.db"
    own = TimedStore(open_store(f"sqlite:///{path}"))
    own_async = AsyncTimedStore(open_async_store(f"sqlite:///{path}"))
    assert not inspect.iscoroutinefunction(own.check_writable)
    own.check_writable()
    asyncio.run(own_async.check_writable())
    os.unlink(path)
    with pytest.raises(StoreUnavailable):
        own.check_writable()
    with pytest.raises(StoreUnavailable):
        check(own_async)
    own.close()
