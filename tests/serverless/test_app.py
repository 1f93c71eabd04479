"""The project in serverless/: what it loads, reads and says."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatledger.errors import ModelThrottled
from chatledger.http.chalice import TIME_LIMIT
from chatledger.models.offline import OfflineModel
from chatledger.stores.urls import check_url
from tests.http.client import MARKER, answer_of, connected, refused, said, shown, someone
from tests.http.tokens import bearer, claims, key_server, token
from tests.serverless.chalice_local import ChaliceLocal
from tests.serverless.gateway import SERVERLESS, Gateway, deployed
from tests.serving import environment

HEAVY = {
    *("langchain", "langchain_core", "langgraph", "fastapi", "starlette", "uvicorn", "aiohttp"),
    *("aiodynamo", "boto3", "botocore", "httpx", "joserfc", "typer", "pydantic", "asyncio"),
}
TURN = """
from app import app
event = {
    "requestContext": {"httpMethod": "POST", "resourcePath": "/chat"},
    "headers": {"content-type": "application/json"},
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
    """What a fresh interpreter in the project makes of ``code``."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SERVERLESS)!r})\n{code}"],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("code", ["import app", TURN], ids=["a start", "a turn"])
def test_it_loads_nothing_that_it_does_not_use(tmp_path: Path, code: str) -> None:
    done = run(code + LOADED, tmp_path)
    assert done.stderr == ""
    loaded = set(done.stdout.split())
    assert {"chatledger", "chalice"} <= loaded
    assert loaded & HEAVY == set()


def test_on_aws_it_loads_boto3_and_nothing_for_async_code(tmp_path: Path) -> None:
    code = """
import app
from chalicelib import chatbot
from chatledger.settings import read_settings
try:
    settings = read_settings()
    chatbot.open_chats(settings, chatbot.open_models(settings))
except Exception as error:  # nothing answers there
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
    done = run(code + LOADED, tmp_path, **variables)
    assert done.stderr == ""
    loaded = set(done.stdout.split())
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
def test_a_wrong_setting_ends_the_start_and_names_the_variable(
    tmp_path: Path, variable: str, value: str
) -> None:
    done = run("import app", tmp_path, **{variable: value})
    assert done.returncode != 0
    assert re.search(r"InvalidArgument: CHATLEDGER_\w+ is (wrong|missing)", done.stderr)


def test_each_stage_has_a_table_of_its_own_and_no_policy_that_chalice_guesses() -> None:
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
    # Else the function would be ended before the turn is.
    assert config["lambda_timeout"] > TIME_LIMIT.total_seconds() + 2


def test_a_models_warning_is_seen_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def throttled(*arguments: object, **named: object) -> Iterator[str]:
        raise ModelThrottled("Too many tokens a minute: raise the quota.", retry_after=7)

    monkeypatch.setattr(OfflineModel, "stream_sync", throttled)
    store = f"sqlite:///{tmp_path / 'r.db'}"
    with deployed(CHATLEDGER_STORE=store) as make, Gateway(make).client() as client:
        answer = client.post("/chat", json={"message": MARKER, "user_id": someone()})
        assert refused(answer, 429)["code"] == "model_throttled"
        assert answer.headers["Retry-After"] == "7"
    assert "raise the quota" in caplog.text
    assert MARKER not in caplog.text
    assert logging.getLogger("chatledger").handlers == []


def test_its_settings_are_those_of_the_other_server(tmp_path: Path) -> None:
    variables = {
        "CHATLEDGER_STORE": f"sqlite:///{tmp_path / 'r.db'}",
        "CHATLEDGER_OFFLINE_PACE": "0.2",
        "CHATLEDGER_TIME_LIMIT": "1s",
        "CHATLEDGER_WINDOW": "1",
    }
    with deployed(**variables) as make, Gateway(make).client() as client:
        user = someone()
        body = {"message": "Hi, I am Bob", "user_id": user}
        answer = answer_of(client.post("/chat", json=body))
        assert answer["stop_reason"] == "timed_out"
    variables |= {"CHATLEDGER_OFFLINE_PACE": "0", "CHATLEDGER_TIME_LIMIT": "9s"}
    with deployed(**variables) as make, Gateway(make).client() as client:
        body = {"message": "What is my name?", "conversation_id": answer["conversation_id"]}
        assert "Bob" not in answer_of(client.post("/chat", json=body))["response"]


def test_users_sign_in_with_the_tokens_of_the_other_server(tmp_path: Path) -> None:
    with key_server() as issuer:
        variables = {"CHATLEDGER_STORE": f"sqlite:///{tmp_path / 'r.db'}", **issuer.settings}
        with deployed(**variables) as make, Gateway(make).client() as client:
            refused(client.post("/chat", json={"message": MARKER}), 401)
            answer_of(client.get("/health"))
            client.headers["Authorization"] = bearer(token(claims("alice")))
            place = said(client, "Hi")["conversation_id"]
            assert shown(client, place)["user_id"] == "alice"
            client.headers["Authorization"] = bearer(token(claims("eve")))
            refused(client.get(f"/conversations/{place}"), 404)


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
    with connected(server.url) as client:
        place = said(client, "Hi, I am Bob", user_id="bob")["conversation_id"]
    server.restart()
    with connected(server.url) as client:
        assert len(shown(client, place)["messages"]) == 2
        answer = said(client, "What is my name?", user_id="bob", conversation_id=place)
        assert "Bob" in answer["response"]


def test_its_log_holds_no_word_that_was_said(server: ChaliceLocal) -> None:
    with connected(server.url) as client:
        said(client, MARKER, user_id="bob")
        client.post("/chat", content=f'{{"message": "{MARKER}'.encode())
    assert "POST /chat" in server.log()
    assert MARKER not in server.log()


def test_chalice_local_answers_itself_where_it_knows_no_route(server: ChaliceLocal) -> None:
    """Two differences from API Gateway that docs/serverless.md names; this notices their end."""
    with connected(server.url) as client:
        below = client.get("/chat/nowhere")
        assert (below.status_code, below.json()) == (
            403,
            {"message": "Missing Authentication Token"},
        )
        headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
        body = {"message": "Hi", "user_id": someone()}
        assert client.post("/chat", json=body, headers=headers).status_code == 200
