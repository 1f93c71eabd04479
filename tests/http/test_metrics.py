"""``/metrics``: what it counts, who may read it, and that no label comes from a client."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chatledger import ModelThrottled, open_async_store
from chatledger.chat import Chat
from chatledger.http.fastapi import create_app
from chatledger.http.metrics import Metrics
from chatledger.models import Models
from chatledger.stores.operations import StoreCall
from tests.chat.scripted_models import ScriptedModel
from tests.http.bad_input import MAX_BODY_BYTES
from tests.http.client import (
    JSON,
    MARKER,
    conversation_path,
    open_client,
    open_stream,
    read_events,
    send_message,
    wait_until,
)
from tests.http.tokens import AUDIENCE, ISSUER
from tests.serving import StartServer

PAGE = Path(__file__).parents[2] / "docs" / "running.md"

Numbers = dict[str, float]


def numbers_in(text: str) -> Numbers:
    """Return each series by its name and labels, as in ``turns_total{outcome=completed}``."""
    numbers = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("chatledger_")
            numbers[name + (f"{{{labels}}}" if labels else "")] = sample.value
    return numbers


def read(client: httpx.Client) -> Numbers:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return numbers_in(response.text)


@pytest.fixture
def client(start_server: StartServer) -> Iterator[httpx.Client]:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.05")
    with open_client(server.url) as client:
        yield client
    server.kill()


def test_turns_requests_errors_and_the_store_are_counted(client: httpx.Client) -> None:
    id = send_message(client, "Hi", user_id="bob")["conversation_id"]
    send_message(client, "Hi again", user_id="bob", conversation_id=id)
    client.get(conversation_path(id))
    for _ in range(3):
        client.get(f"/nowhere/{MARKER}?user_id={MARKER}")
    client.request(MARKER, "/chat")
    client.post("/chat", content=b" " * (MAX_BODY_BYTES + 1), headers=JSON)
    text = client.get("/metrics").text
    assert MARKER not in text
    assert id not in text
    assert "bob" not in text
    numbers = numbers_in(text)
    expected = {
        "http_requests_total{method=POST,route=/chat,status=200}": 2,
        "http_requests_total{method=POST,route=/chat,status=413}": 1,
        "http_requests_total{method=OTHER,route=/chat,status=405}": 1,
        "http_requests_total{method=GET,route=/conversations/{conversation_id},status=200}": 1,
        "http_requests_total{method=GET,route=unknown,status=404}": 3,
        "http_request_seconds_count{method=POST,route=/chat}": 3,
        "errors_total{code=no_such_route}": 3,
        "errors_total{code=too_large}": 1,
        "refusals_total{limit=body_bytes}": 1,
        "turns_total{outcome=completed}": 2,
        "turn_seconds_count": 2,
        "first_piece_seconds_count": 2,
        "open_streams": 0,
    }
    assert {name: numbers.get(name) for name in expected} == expected
    assert numbers["tokens_total{direction=input}"] > 0
    assert numbers["tokens_total{direction=output}"] > 0
    assert numbers["store_calls_total{operation=Append,outcome=ok}"] == 4
    assert numbers["store_call_seconds_count{operation=Append}"] == 4
    assert 0 < numbers["first_piece_seconds_sum"] < numbers["turn_seconds_sum"]
    assert numbers["process_resident_memory_bytes"] > 0


def test_a_refusal_is_counted_by_its_limit(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_CONVERSATIONS="1", CHATLEDGER_OFFLINE_PACE="0")
    with open_client(server.url) as client:
        send_message(client, "Hi", user_id="bob")
        for _ in range(2):
            client.post("/chat", json={"message": "Hi", "user_id": "bob"})
        numbers = read(client)
    assert numbers["refusals_total{limit=conversations_a_day}"] == 2
    assert numbers["errors_total{code=daily_conversations_used}"] == 2


def test_head_works_and_other_methods_are_named(client: httpx.Client) -> None:
    assert client.head("/metrics").status_code == 200
    for path in ("/metrics", "/page/page.js"):
        assert client.post(path).headers["Allow"] == "GET, HEAD"


def test_a_stream_is_open_until_its_client_leaves(client: httpx.Client) -> None:
    fields = {"message": "Hi, I am Bob", "user_id": "bob", "on_disconnect": "stop"}
    with open_stream(client, **fields) as response:
        stream = read_events(response)
        next(stream)
        next(stream)
        assert read(client)["open_streams"] == 1
    wait_until(lambda: read(client)["open_streams"] == 0 or None)
    assert wait_until(lambda: read(client).get("turns_total{outcome=stopped}")) == 1


# Turns, with a scripted model ---------------------------------------------------------------------


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def counted_client(model: Any) -> AsyncIterator[httpx.AsyncClient]:
    store = open_async_store("sqlite:///:memory:")
    models = Models(["offline"], open=lambda _: model)
    app = create_app(Chat(store, model), models, metrics=Metrics())
    transport = httpx.ASGITransport(app=app)
    async with store, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
@pytest.mark.parametrize("pieces", [[], ["Hello"]])
async def test_a_turn_whose_model_fails_is_counted_with_its_error(
    path: str, pieces: list[str]
) -> None:
    async with counted_client(ScriptedModel(*pieces, ModelThrottled("Slow down."))) as client:
        await client.post(path, json={"message": "Hi", "user_id": "bob"})
        numbers = numbers_in((await client.get("/metrics")).text)
    assert numbers["turns_total{outcome=failed}"] == 1
    assert numbers["errors_total{code=model_throttled}"] == 1
    assert numbers["first_piece_seconds_count"] == len(pieces)


# Who may read it ----------------------------------------------------------------------------------

SIGN_IN = {
    "CHATLEDGER_AUTH": "jwt",
    "CHATLEDGER_JWT_ISSUER": ISSUER,
    "CHATLEDGER_JWT_AUDIENCE": AUDIENCE,
}


def test_with_sign_in_there_are_no_metrics_unless_they_are_public(
    start_server: StartServer,
) -> None:
    for setting, status in (("local", 404), ("public", 200)):
        server = start_server(**SIGN_IN, CHATLEDGER_METRICS=setting)
        with open_client(server.url) as client:
            assert client.get("/metrics").status_code == status
        server.kill()


# The store and the docs ---------------------------------------------------------------------------


def test_calls_of_a_store_are_counted_by_outcome_attempt_and_units() -> None:
    metrics = Metrics()
    call = StoreCall(operation="PutItem", outcome="throttled", seconds=0.1, error="Throttling")
    metrics.record_store_call(call)
    call = StoreCall(operation="PutItem", outcome="ok", seconds=0.1, attempt=2, units=2.5)
    metrics.record_store_call(call)
    numbers = numbers_in(metrics.text().decode())
    assert numbers["store_calls_total{operation=PutItem,outcome=throttled}"] == 1
    assert numbers["store_calls_total{operation=PutItem,outcome=ok}"] == 1
    assert numbers["store_retries_total{operation=PutItem}"] == 1
    assert numbers["store_units_total{operation=PutItem}"] == 2.5


def test_the_docs_list_every_metric() -> None:
    text = Metrics().text().decode()
    existing = set(re.findall(r"^# TYPE (chatledger_\w+) ", text, re.MULTILINE))
    listed = set(re.findall(r"^\| `(chatledger_\w+)", PAGE.read_text(), re.MULTILINE))
    assert listed == existing
