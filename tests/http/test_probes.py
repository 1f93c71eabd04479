"""``/live``, ``/ready`` and ``/health``: what an orchestrator asks, and how often the store is."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import httpx
import pytest

from chatledger import AsyncStore, open_async_store
from chatledger.chat import Chat
from chatledger.http import readiness
from chatledger.http.fastapi import create_app
from chatledger.models import Models
from chatledger.testing.dynamodb_local import KEY, REGION
from tests.http.client import MARKER, expect_error, open_client, success_body
from tests.serving import Server, StartServer
from tests.stores.dynamodb.fake_endpoint import NO_REPLY, FakeEndpoint, Outcome, Reply, reply_to_all

DELETED = Reply.of()


@asynccontextmanager
async def app_client(store: AsyncStore) -> AsyncIterator[httpx.AsyncClient]:
    models = Models(["offline"])
    transport = httpx.ASGITransport(app=create_app(Chat(store, models.get()), models))
    async with store, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)


def store_at(endpoint: FakeEndpoint) -> AsyncStore:
    return open_async_store(f"dynamodb://table?region={REGION}&endpoint={endpoint.endpoint}")


@pytest.mark.parametrize("path", ["/live", "/ready"])
def test_a_server_that_works_is_live_and_ready(server: Server, path: str) -> None:
    with open_client(server.url) as client:
        assert success_body(client.get(path)) == {"status": path.strip("/")}
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")


def test_a_server_whose_file_was_removed_is_live_but_not_ready(start_server: StartServer) -> None:
    server = start_server()
    file = server.folder / "chatledger.db"
    file.rename(server.folder / "moved.db")
    with open_client(server.url) as client:
        response = client.get("/ready")
        body = expect_error(response, 503)
        assert body["code"] == "store_unavailable"
        assert str(server.folder) not in body["error"]
        assert int(response.headers["Retry-After"]) > 0
        assert client.get("/live").status_code == 200
    (line,) = [line for line in server.log().splitlines() if "not ready" in line]
    assert str(file) in line
    assert response.headers["X-Request-ID"] in line
    server.kill()


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_a_store_that_does_not_answer_gives_a_quick_503(path: str) -> None:
    with FakeEndpoint(reply_to_all(NO_REPLY)) as endpoint:
        async with app_client(store_at(endpoint)) as client:
            started = monotonic()
            assert expect_error(await client.get(path), 503)["code"] == "store_unavailable"
            # Without a limit of its own it would take the store's patience, 20 seconds.
            assert monotonic() - started < 10


@pytest.mark.anyio
async def test_many_probes_make_one_request_to_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "VALID_SECONDS", 60.0)
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 20.0)  # the first call reads large files
    with FakeEndpoint(reply_to_all(DELETED)) as endpoint:
        async with app_client(store_at(endpoint)) as client:
            for _ in range(2):
                responses = await asyncio.gather(*(client.get("/ready") for _ in range(20)))
                assert {response.status_code for response in responses} == {200}
        assert endpoint.operations == ["DeleteItem"]


@pytest.mark.anyio
async def test_a_server_is_ready_again_when_its_store_is(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = [Reply.error("ResourceNotFoundException"), DELETED]

    def respond(operation: str, body: bytes) -> Outcome:
        return replies.pop(0)

    monkeypatch.setattr(readiness, "VALID_SECONDS", -1.0)
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 20.0)  # the first call reads large files
    with FakeEndpoint(respond) as endpoint:
        async with app_client(store_at(endpoint)) as client:
            body = expect_error(await client.get("/ready"), 503)
            assert "is missing or" in body["error"]
            assert (await client.get("/ready")).status_code == 200


@pytest.mark.anyio
async def test_an_unexpected_error_of_a_store_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_async_store("sqlite:///:memory:")

    async def fail() -> None:
        raise ValueError(MARKER)

    monkeypatch.setattr(store, "check_writable", fail)
    async with app_client(store) as client:
        with caplog.at_level(logging.WARNING):
            expect_error(await client.get("/ready"), 503)
    assert "The check of the store failed: ValueError" in caplog.text
    assert MARKER not in caplog.text
