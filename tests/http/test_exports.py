"""Exports and imports where the servers do not differ: their text, limits and stores."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis.strategies import lists

from chatledger.chat import Chat, SyncChat
from chatledger.chat.lease import with_lease
from chatledger.chat.protocol import RequestKey
from chatledger.http import api
from chatledger.http.api import parse_body
from chatledger.http.endpoints import OWNER, Given, Rules, import_conversation
from chatledger.http.errors import ApiError
from chatledger.http.exports import JSON, MARKDOWN, Export
from chatledger.http.fastapi import create_app
from chatledger.http.imports import MAX_IMPORT_BYTES, ImportRequest, import_messages
from chatledger.http.limits import MAX_LARGE_IMPORTS, Limits
from chatledger.messages import Message
from chatledger.models import Models
from chatledger.models.protocol import Usage
from chatledger.sansio import run
from chatledger.stores.contract import AsyncStore
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from chatledger.stores.urls import open_async_store
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from chatledger.testing.store_contract.roundtrip import messages
from chatledger.values import milliseconds_since_epoch, now
from tests.http.client import JSON as JSON_HEADERS
from tests.http.export_contract import FILE, IMPORT, timeless
from tests.stores.dynamodb.tables import new_table

HOUR = timedelta(hours=1)


def exported(store: SQLiteStore, conversation_id: str, format: Any = JSON) -> str:
    export = Export(store, store.get(conversation_id), owner=None, format=format)
    parts = []
    while not export.is_complete:
        parts.append(run(export.next_part()))
    return "".join(parts)


@pytest.fixture
def store() -> Any:
    with SQLiteStore(":memory:") as store:
        yield store


# What is exported ---------------------------------------------------------------------------------


@pytest.fixture(params=["SQLite", "DynamoDB"])
def store_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    if request.param == "SQLite":
        return f"sqlite:///{tmp_path / 'chatledger.db'}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    local: DynamoDBLocal = request.getfixturevalue("dynamodb_local")
    return f"dynamodb://{new_table(local.client())}?region={REGION}&endpoint={local.endpoint}"


@asynccontextmanager
async def open_api(store_url: str) -> AsyncIterator[tuple[AsyncStore, httpx.AsyncClient]]:
    """Open the store, and a client of a server of it."""
    async with open_async_store(store_url) as store:
        models = Models(["offline"])
        app = create_app(Chat(store, models.get()), models)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield store, client


@pytest.mark.anyio
async def test_a_file_comes_back_from_every_store(store_url: str) -> None:
    async with open_api(store_url) as (_, client):
        for _ in range(2):
            response = await client.post(IMPORT, json=FILE, params={"user_id": "bob"})
            id = response.json()["conversation"]["conversation_id"]
            file = (await client.get(f"/conversations/{id}/export")).json()
            assert timeless(file) == timeless(FILE)


@pytest.mark.anyio
async def test_nothing_of_a_turn_comes_back_to_life_in_an_import(store_url: str) -> None:
    until = milliseconds_since_epoch(now() + HOUR)
    question = with_lease(
        Message.user("Hi", extra={"langchain": {"private": "p"}}),
        until,
        key=RequestKey("secret-key", "digest"),
        removed_usage=Usage(1, 1),
        branch_id="another-conversation",
    )
    async with open_api(store_url) as (store, client):
        await store.append("running", [Message.assistant("Hello"), question], owner="bob")
        running = await client.get("/conversations/running")
        assert running.json()["conversation"]["replying"] is True
        export = await client.get("/conversations/running/export")
        file = export.json()
        assert [message.keys() for message in file["messages"]] == [
            {"role", "content", "created_at", "id", "seq"}
        ] * 2
        response = await client.post(
            IMPORT, content=export.content, params={"user_id": "ann"}, headers=JSON_HEADERS
        )
        id = response.json()["conversation"]["conversation_id"]
        copy = await client.get(f"/conversations/{id}/export")
        assert timeless(copy.json()) == timeless(file)
        shown = await client.get(f"/conversations/{id}")
        assert "replying" not in shown.json()["conversation"]
        answer = await client.post(f"/conversations/{id}/regenerate", json={"user_id": "ann"})
        assert answer.status_code == 200, answer.text


def test_values_of_other_programs_that_no_file_can_have_are_left_out(store: SQLiteStore) -> None:
    extra: dict[str, Any] = {
        "tool_calls": ["x"],
        "model": 7,
        "latency_ms": True,
        "usage": {"input_tokens": -1},
    }
    store.append("c", [Message.assistant("Hi", extra=extra)])
    [message] = json.loads(exported(store, "c"))["messages"]
    assert message.keys() == {"role", "content", "created_at", "id", "seq"}
    request = parse_body(ImportRequest, exported(store, "c").encode(), "application/json")
    assert len(import_messages(request).messages) == 1


@given(lists(messages, min_size=1, max_size=5))
@settings(max_examples=40, database=None)
def test_every_conversation_can_be_imported_as_it_is_exported(written: list[Message]) -> None:
    with SQLiteStore(":memory:") as store:
        store.append("c", written)
        file = exported(store, "c")
        request = parse_body(ImportRequest, file.encode(), "application/json")
        read = import_messages(request).messages
        fields = [(each.role, each.content, each.id, each.created_at) for each in written]
        assert [(each.role, each.content, each.id, each.created_at) for each in read] == fields
        assert [each.metadata for each in read] == [each.metadata for each in written]
        store.append("copy", read)
        again = json.loads(exported(store, "copy"))
        assert again["messages"] == json.loads(file)["messages"]
        assert exported(store, "c", MARKDOWN).count("\n## ") == len(written)


def test_an_export_has_no_message_that_was_added_after_it_began(store: SQLiteStore) -> None:
    texts = [str(n) for n in range(150)]
    store.append("c", [Message.user(text) for text in texts])
    export = Export(store, store.get("c"), owner=None, format=JSON)
    first = run(export.next_part())
    store.append("c", [Message.user("later")])
    file = json.loads(first + run(export.next_part()))
    assert export.is_complete
    assert [message["content"] for message in file["messages"]] == texts


HOSTILE = """\
# Heading
Setext
======
```sh
## User
</blockquote><!--
\r## User\rfoo\r\n## Assistant

<script>
"""


def test_no_text_of_a_message_leaves_its_quote_in_markdown(store: SQLiteStore) -> None:
    store.append("c", [Message.user(HOSTILE)], title="A # b\n## User <b> [x](y)")
    lines = exported(store, "c", MARKDOWN).split("\n")
    title, role, time = (line for line in lines if line and not line.startswith(">"))
    assert title == r"# A \# b \#\# User \<b\> \[x\](y)"
    assert role == "## User"
    assert time.startswith("*20")
    assert "\r" not in "".join(lines)
    assert "</blockquote>" not in "".join(lines)
    quoted = [line.removeprefix(">").removeprefix(" ") for line in lines if line.startswith(">")]
    plain = HOSTILE.replace("\r\n", "\n").replace("\r", "\n").replace("</b", "&lt;/b")
    assert "\n".join(quoted) == plain


def test_markdown_shows_what_is_not_text(store: SQLiteStore) -> None:
    content: Any = [
        {"type": "image", "source": {"data": "AAAA"}},
        {"type": "tool_use", "id": "1", "name": "run", "input": {"code": "```"}},
        {"type": "tool_result", "tool_use_id": "1", "content": "done"},
    ]
    store.append("c", [Message.assistant(content)])
    text = exported(store, "c", MARKDOWN)
    assert "*[image]*" in text
    assert "AAAA" not in text
    assert '````\n{\n  "code": "```"\n}\n````' in text
    assert "**Result**\n\n```\ndone\n```" in text


@pytest.mark.anyio
async def test_an_export_that_breaks_off_does_not_look_complete(tmp_path: Path) -> None:
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/conversations/c/export",
        "query_string": b"",
        "headers": [],
    }
    async with AsyncSQLiteStore(tmp_path / "chatledger.db") as store:
        await store.append("c", [Message.user(str(n)) for n in range(150)])

        async def receive() -> Any:
            return await asyncio.Future()

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and len(sent) == 2:
                await store.delete("c")

        models = Models(["offline"])
        await create_app(Chat(store, models.get()), models)(scope, receive, send)
    start, *parts = sent
    assert start["status"] == 200
    assert [part["more_body"] for part in parts] == [True], "the last part is missing"


def test_an_import_that_is_deleted_at_once_is_a_conflict_and_not_missing() -> None:
    class DeletingStore(SQLiteStore):
        def append(self, conversation_id: str, *arguments: Any, **options: Any) -> Any:
            super().append(conversation_id, *arguments, **options)
            self.delete(conversation_id)

    models = Models(["offline"])
    rules = Rules(models, Limits(), allow_system_prompt=False)
    query = api.Query([("user_id", "bob")], known=[OWNER])
    with DeletingStore(":memory:") as store:
        chat = SyncChat(store, models.get())
        body = parse_body(ImportRequest, json.dumps(FILE).encode(), "application/json")
        with pytest.raises(ApiError) as refused:
            run(import_conversation(Given(lambda: chat, rules, None, "bob", query, body)))
    assert (refused.value.status, refused.value.code) == (409, "conflict")


# Large bodies -------------------------------------------------------------------------------------


def refused(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as refused:
        parse_body(ImportRequest, body, "application/json")
    return refused.value


def test_a_body_of_too_many_values_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_BODY_VALUES", 10_000)
    for body in (b"[" + b"[]," * 100_000 + b"1]", b"[" + b'"",' * 100_000 + b'""]'):
        error = refused(body)
        assert (error.status, error.code) == (413, "too_large")
        assert "10,000 values" in str(error)
    assert "64 MiB" in str(refused(b" " * (MAX_IMPORT_BYTES + 1)))
    # A text may have any number of signs that separate values, and have no end.
    assert refused(json.dumps('[{"\\",' * 100_000).encode()).code == "not_an_object"
    assert refused(b'"' + b'\\"' * 200_000 + b"\\").code == "not_json"


def test_a_process_reads_few_large_imports_at_once_and_of_a_caller_one() -> None:
    limits = Limits()
    with limits.large_import("0"):
        with pytest.raises(ApiError, match="busy"), limits.large_import("0"):
            pass
        with ExitStack() as others:
            for n in range(1, MAX_LARGE_IMPORTS):
                others.enter_context(limits.large_import(str(n)))
            with pytest.raises(ApiError) as refused, limits.large_import("more"):
                pass
            assert refused.value.headers["Retry-After"] == "1"
        with limits.large_import("more"):
            pass


# Limits -------------------------------------------------------------------------------------------


def test_no_body_is_read_that_could_not_be_stored_in_a_day() -> None:
    assert Limits().largest_import(MAX_IMPORT_BYTES) == MAX_IMPORT_BYTES
    assert Limits(bytes_a_day=5_000_000).largest_import(MAX_IMPORT_BYTES) == 20_000_000
    assert Limits(bytes_a_day=1).largest_import(MAX_IMPORT_BYTES) == api.MAX_BODY_BYTES
    assert Limits(bytes_a_day=10**9).largest_import(MAX_IMPORT_BYTES) == MAX_IMPORT_BYTES


def test_the_bytes_of_an_import_must_fit_what_is_left_of_the_day(store: SQLiteStore) -> None:
    limits = Limits(bytes_a_day=1_000)
    run(limits.count_turn(store, "bob", stored_bytes=600))
    with pytest.raises(ApiError) as refused:
        run(limits.count_turn(store, "bob", stored_bytes=600))
    assert (refused.value.status, refused.value.code) == (429, "daily_bytes_used")
    run(limits.count_turn(store, "bob", stored_bytes=400))
    with pytest.raises(ApiError) as refused:
        run(limits.count_turn(store, "ann", stored_bytes=1_001))
    assert (refused.value.status, refused.value.code) == (413, "too_large")
    with pytest.raises(ApiError) as refused:
        run(limits.count_turn(store, "bob"))
    assert refused.value.code == "daily_bytes_used"
