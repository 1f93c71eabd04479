"""The project in serverless/: its imports, settings, log and ``chalice local``."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from chatledger.errors import ModelThrottled
from chatledger.http.chalice import TIME_LIMIT
from chatledger.models.offline import OfflineModel
from chatledger.stores.urls import check_url
from tests.http.client import (
    MARKER,
    expect_error,
    new_user,
    open_client,
    read_conversation,
    send_message,
    success_body,
)
from tests.http.tokens import bearer, claims, key_server, token
from tests.serverless.chalice_local import ChaliceLocal
from tests.serverless.gateway import SERVERLESS, Gateway, app_factory
from tests.serving import environment

HEAVY = {
    *("langchain", "langchain_core", "langgraph", "fastapi", "starlette", "uvicorn", "aiohttp"),
    *("boto3", "botocore", "httpx", "joserfc", "typer", "pydantic", "asyncio"),
}
TURN = """
from app import app
event = {
    "requestContext": {"httpMethod": "POST", "resourcePath": "/chat"},
    "headers": {"content-type": "application/json", "host": "localhost"},
    "pathParameters": None,
    "multiValueQueryStringParameters": None,
    "stageVariables": None,
    "body": '{"message": "Hi"}',
}
answer = app(event, None)
assert answer["statusCode"] == 200, answer
"""
LOADED = "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"


def run(code: str, folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` in a new interpreter that can import the project's modules."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SERVERLESS)!r})\n{code}"],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("code", ["import app", TURN], ids=["at startup", "with a turn"])
def test_it_imports_nothing_that_it_does_not_use(tmp_path: Path, code: str) -> None:
    completed = run(code + LOADED, tmp_path)
    assert completed.stderr == ""
    loaded = set(completed.stdout.split())
    assert {"chatledger", "chalice"} <= loaded
    assert loaded & HEAVY == set()


def test_on_aws_it_imports_boto3_and_nothing_for_async_code(tmp_path: Path) -> None:
    code = """
import app
from chalicelib import chatbot
from chatledger.settings import read_settings
try:
    settings = read_settings()
    chatbot.open_chats(settings, chatbot.open_models(settings))
except Exception as error:  # there is no such table
    print(type(error).__name__)
import boto3
"""
    variables = {
        "CHATLEDGER_STORE": "dynamodb://conversations?region=eu-west-1",
        "CHATLEDGER_MODEL": "bedrock:amazon.nova-lite-v1:0",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    completed = run(code + LOADED, tmp_path, **variables)
    assert completed.stderr == ""
    loaded = set(completed.stdout.split())
    assert loaded & HEAVY == {"boto3", "botocore"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHATLEDGER_STORE", "nowhere"),
        ("CHATLEDGER_MODEL", "telepathy"),
        ("CHATLEDGER_TIME_LIMIT", "soon"),
        ("CHATLEDGER_AUTH", "jwt"),
    ],
)
def test_an_invalid_setting_prevents_the_start_and_is_named(
    tmp_path: Path, variable: str, value: str
) -> None:
    completed = run("import app", tmp_path, **{variable: value})
    assert completed.returncode != 0
    assert re.search(r"InvalidArgument: CHATLEDGER_\w+ is (not valid|missing)", completed.stderr)


ON_AWS = {"AWS_LAMBDA_FUNCTION_NAME": "chatledger-prod"}


@pytest.mark.parametrize("variables", [ON_AWS, {"CHATLEDGER_HOST": "0.0.0.0"}], ids=str)
def test_it_is_open_to_others_only_by_decision(tmp_path: Path, variables: dict[str, str]) -> None:
    refused = run("import app", tmp_path, **variables)
    assert refused.returncode != 0
    (sentence,) = re.findall(r"InvalidArgument: (.*)", refused.stderr)
    assert "CHATLEDGER_AUTH" in sentence
    assert "CHATLEDGER_ALLOW_UNAUTHENTICATED=true" in sentence
    decision = {"CHATLEDGER_ALLOW_UNAUTHENTICATED": "true"}
    assert run("import app", tmp_path, **variables, **decision).returncode == 0
    with key_server() as issuer:
        assert run("import app", tmp_path, **variables, **issuer.settings).returncode == 0


def test_each_stage_has_a_table_and_a_policy_of_its_own() -> None:
    config = json.loads((SERVERLESS / ".chalice" / "config.json").read_text())
    assert config["autogen_policy"] is False
    assert set(config["stages"]) == {"dev", "prod"}
    stores = {
        name: stage["environment_variables"]["CHATLEDGER_STORE"]
        for name, stage in config["stages"].items()
    }
    for url in stores.values():
        check_url(url)
    assert len(set(stores.values())) == len(stores)
    # Otherwise Lambda would end the function before the turn ends.
    assert config["lambda_timeout"] > TIME_LIMIT.total_seconds() + 2


def test_a_model_error_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def throttle(*arguments: object, **named: object) -> Iterator[str]:
        raise ModelThrottled("Too many tokens a minute: raise the quota.", retry_after=7)

    monkeypatch.setattr(OfflineModel, "stream_sync", throttle)
    store = f"sqlite:///{tmp_path / 'r.db'}"
    with app_factory(CHATLEDGER_STORE=store) as new_app, Gateway(new_app).client() as client:
        answer = client.post("/chat", json={"message": MARKER, "user_id": new_user()})
        conversation_id = answer.json()["conversation_id"]
        error = expect_error(answer, 429, conversation_id=conversation_id)
        assert error["code"] == "model_throttled"
        assert answer.headers["Retry-After"] == "7"
    assert "raise the quota" in caplog.text
    assert MARKER not in caplog.text
    assert logging.getLogger("chatledger").handlers == []


def test_it_reads_the_settings_of_the_other_server(tmp_path: Path) -> None:
    variables = {
        "CHATLEDGER_STORE": f"sqlite:///{tmp_path / 'r.db'}",
        "CHATLEDGER_OFFLINE_PACE": "0.2",
        "CHATLEDGER_TIME_LIMIT": "1s",
        "CHATLEDGER_WINDOW": "1",
    }
    with app_factory(**variables) as new_app, Gateway(new_app).client() as client:
        user = new_user()
        body = {"message": "Hi, I am Bob", "user_id": user}
        answer = success_body(client.post("/chat", json=body))
        assert answer["stop_reason"] == "timed_out"
    variables |= {"CHATLEDGER_OFFLINE_PACE": "0", "CHATLEDGER_TIME_LIMIT": "9s"}
    with app_factory(**variables) as new_app, Gateway(new_app).client() as client:
        body = {"message": "What is my name?", "conversation_id": answer["conversation_id"]}
        assert "Bob" not in success_body(client.post("/chat", json=body))["response"]


@pytest.mark.parametrize("variable", ["", "off", "2m", "9s"])
def test_a_turn_may_take_no_longer_than_api_gateway_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    given = []

    def register(*arguments: object, time_limit: timedelta, **options: object) -> None:
        given.append(time_limit)

    monkeypatch.setattr("chatledger.http.chalice.register", register)
    store = f"sqlite:///{tmp_path / 'r.db'}"
    with app_factory(CHATLEDGER_STORE=store, CHATLEDGER_TIME_LIMIT=variable) as new_app:
        new_app()
    assert given == [timedelta(seconds=9) if variable == "9s" else TIME_LIMIT]


def test_it_accepts_the_tokens_of_the_other_server(tmp_path: Path) -> None:
    with key_server() as issuer:
        variables = {"CHATLEDGER_STORE": f"sqlite:///{tmp_path / 'r.db'}", **issuer.settings}
        with app_factory(**variables) as new_app, Gateway(new_app).client() as client:
            expect_error(client.post("/chat", json={"message": MARKER}), 401)
            success_body(client.get("/health"))
            client.headers["Authorization"] = bearer(token(claims("alice")))
            conversation_id = send_message(client, "Hi")["conversation_id"]
            assert read_conversation(client, conversation_id)["user_id"] == "alice"
            client.headers["Authorization"] = bearer(token(claims("eve")))
            expect_error(client.get(f"/conversations/{conversation_id}"), 404)


# chalice local ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaliceLocal]:
    server = ChaliceLocal(tmp_path_factory.mktemp("chalice"), CHATLEDGER_OFFLINE_PACE="0")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def url(server: ChaliceLocal) -> str:
    return server.url


def test_conversations_outlive_the_process(server: ChaliceLocal) -> None:
    with open_client(server.url) as client:
        conversation_id = send_message(client, "Hi, I am Bob", user_id="bob")["conversation_id"]
    server.restart()
    with open_client(server.url) as client:
        assert len(read_conversation(client, conversation_id)["messages"]) == 2
        answer = send_message(
            client, "What is my name?", user_id="bob", conversation_id=conversation_id
        )
        assert "Bob" in answer["response"]


def test_requests_for_another_host_name_are_rejected(server: ChaliceLocal) -> None:
    # The page's host may resolve to 127.0.0.1 (DNS rebinding), but the Host header names the page.
    with open_client(server.url) as client:
        names = ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example", "")
        for host in (*names, "127.0.0.1:evil"):
            for path in ("/health", "/conversations?user_id=bob", "/nowhere"):
                answer = client.get(path, headers={"Host": host})
                assert expect_error(answer, 400)["code"] == "unknown_host"
        for host in ("localhost", f"LOCALHOST:{server.port}", "[::1]:80"):
            success_body(client.get("/health", headers={"Host": host}))


def test_the_log_holds_no_message_text(server: ChaliceLocal) -> None:
    with open_client(server.url) as client:
        send_message(client, MARKER, user_id="bob")
        client.post("/chat", content=f'{{"message": "{MARKER}'.encode())
    assert "POST /chat" in server.log()
    assert MARKER not in server.log()


def test_chalice_local_differs_from_api_gateway_as_documented(server: ChaliceLocal) -> None:
    """docs/serverless.md lists both differences; this test fails when Chalice removes one."""
    with open_client(server.url) as client:
        below = client.get("/chat/nowhere")
        assert (below.status_code, below.json()) == (
            403,
            {"message": "Missing Authentication Token"},
        )
        headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
        body = {"message": "Hi", "user_id": new_user()}
        assert client.post("/chat", json=body, headers=headers).status_code == 200
