"""``chatledger serve`` as a program: settings, output and startup errors."""

import signal
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

import chatledger
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.http.client import (
    conversation_ids,
    expect_error,
    list_conversations,
    open_client,
    send_message,
    wait_until,
)
from tests.serving import (
    SERVE,
    STOP_SECONDS,
    Server,
    StartServer,
    environment,
    free_port,
    started_server,
)


def startup_error(folder: Path, *arguments: str, **variables: str) -> str:
    """Return the one line that ``chatledger serve`` prints when it fails to start."""
    environment_variables = {"CHATLEDGER_PORT": str(free_port())} | variables
    done = subprocess.run(
        [*SERVE, *arguments],
        cwd=folder,
        env=environment(**environment_variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STOP_SECONDS,
        check=False,
    )
    assert done.returncode not in (0, -signal.SIGTERM), done
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.endswith((".", "?")), "the error must be a sentence"
    return line


def test_the_server_does_not_start_without_an_aws_region(tmp_path: Path) -> None:
    nowhere = {"AWS_CONFIG_FILE": "none", "AWS_EC2_METADATA_DISABLED": "true"}
    url = "dynamodb://conversations?endpoint=http://127.0.0.1:9"
    assert "No AWS region" in startup_error(tmp_path, CHATLEDGER_STORE=url, **nowhere)


def test_the_server_does_not_start_without_its_table(
    tmp_path: Path, dynamodb_local: DynamoDBLocal
) -> None:
    credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY}
    url = f"dynamodb://nowhere?region={REGION}&endpoint={dynamodb_local.endpoint}"
    assert "create_table" in startup_error(tmp_path, CHATLEDGER_STORE=url, **credentials)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHATLEDGER_PORT", "eighty"),
        ("CHATLEDGER_PORT", "-1"),
        ("CHATLEDGER_PORT", "70000"),
        ("CHATLEDGER_MAX_CONNECTIONS", "many"),
        ("CHATLEDGER_MAX_CONNECTIONS", "0"),
        ("CHATLEDGER_WINDOW", "many"),
        ("CHATLEDGER_WINDOW", "0"),
        ("CHATLEDGER_WINDOW", "1000000"),
        ("CHATLEDGER_WINDOW_TOKENS", "0"),
        ("CHATLEDGER_MAX_TOKENS", "none"),
        ("CHATLEDGER_MAX_TOKENS", "null"),
        ("CHATLEDGER_TIME_LIMIT", "never"),
        ("CHATLEDGER_TURNS_AT_ONCE", "0"),
        ("CHATLEDGER_ALL_TURNS_AT_ONCE", "-1"),
        ("CHATLEDGER_TURNS_A_MINUTE", "201"),
        ("CHATLEDGER_TOKENS_A_DAY", "1M"),
        ("CHATLEDGER_BYTES_A_DAY", "5MB"),
        ("CHATLEDGER_CONVERSATIONS", "0"),
        ("CHATLEDGER_EXPIRE_AFTER", "soon"),
        ("CHATLEDGER_EXPIRE_AFTER", "-1d"),
        ("CHATLEDGER_EXPIRE_AFTER", "0d"),
        ("CHATLEDGER_STORE", "chatledger.db"),
        ("CHATLEDGER_STORE", "mysql://localhost/chatledger"),
        ("CHATLEDGER_STORE", "sqlite://"),
        ("CHATLEDGER_STORE", "sqlite:///chatledger.db?expire_after=soon"),
        ("CHATLEDGER_MODEL", "telepathy"),
        ("CHATLEDGER_ALLOW_ORIGIN", "chat.example"),
        ("CHATLEDGER_ALLOW_ORIGIN", "https://chat.example/page"),
        ("CHATLEDGER_ALLOW_ORIGIN", "https://Chat.example"),
        ("CHATLEDGER_ALLOW_ORIGIN", "https://chat.example:443"),
        ("CHATLEDGER_ALLOW_ORIGIN", "https://例.example"),
        ("CHATLEDGER_SYSTEM_PROMPT", "\udcff"),
        ("CHATLEDGER_PORT", "\udcff"),
        ("CHATLEDGER_HOST", "not a host"),
        ("CHATLEDGER_OFFLINE_PACE", "slowly"),
        ("CHATLEDGER_OFFLINE_PACE", "-1"),
        ("CHATLEDGER_OFFLINE_PACE", "nan"),
    ],
)
def test_the_server_refuses_an_invalid_setting_and_names_it(
    tmp_path: Path, name: str, value: str
) -> None:
    assert name in startup_error(tmp_path, **{name: value})
    assert list(tmp_path.iterdir()) == [], "settings must be checked before anything is created"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("CHATLEDGER_STROE", "did you mean CHATLEDGER_STORE?"),
        ("CHATLEDGER_JWKS_URL", "did you mean CHATLEDGER_JWT_JWKS_URL?"),
        ("CHATLEDGER_COLOUR", "unset it."),
    ],
)
def test_the_server_refuses_an_unknown_setting_and_names_the_nearest(
    tmp_path: Path, name: str, advice: str
) -> None:
    assert startup_error(tmp_path, **{name: "x"}) == f"{name} is not a setting; {advice}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["CHATLEDGER_STROE", "CHATLEDGER_TEST_DYNAMODB", "CHATLEDGER_PYTHON"]
)
def test_empty_variables_and_those_of_the_projects_tests_are_no_settings(
    tmp_path: Path, name: str
) -> None:
    value = "" if name == "CHATLEDGER_STROE" else "3.13"
    with started_server(tmp_path, CHATLEDGER_PORT="0", **{name: value}) as (_, address):
        assert address.startswith("http://")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "0", "192.0.2.1", "127.example.org", "127.0.0.1.example.org"]
)
def test_only_loopback_is_served_without_authentication(tmp_path: Path, host: str) -> None:
    line = startup_error(tmp_path, CHATLEDGER_HOST=host)
    assert "CHATLEDGER_HOST" in line
    assert "--allow-unauthenticated" in line


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(["--allow-unauthenticated"], {}), ([], {"CHATLEDGER_ALLOW_UNAUTHENTICATED": "true"})],
)
def test_any_address_is_served_with_the_flag_or_its_variable(
    tmp_path: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    # No machine has this address (RFC 5737), so the test opens no public port: it fails, but not
    # because the flag is missing.
    line = startup_error(tmp_path, *arguments, CHATLEDGER_HOST="192.0.2.1", **variables)
    assert "192.0.2.1" in line
    assert "--allow-unauthenticated" not in line


@pytest.mark.parametrize("decision", [{}, {"CHATLEDGER_ALLOW_UNAUTHENTICATED": "true"}], ids=str)
def test_without_sign_in_the_pages_of_all_sites_are_never_allowed(
    tmp_path: Path, decision: dict[str, str]
) -> None:
    line = startup_error(tmp_path, CHATLEDGER_ALLOW_ORIGIN="*", **decision)
    assert "CHATLEDGER_ALLOW_ORIGIN" in line
    assert "CHATLEDGER_AUTH" in line


def test_without_sign_in_the_site_whose_pages_are_allowed_is_named_at_the_start(
    start_server: StartServer,
) -> None:
    server = start_server(CHATLEDGER_ALLOW_ORIGIN="https://chat.example")
    (warning,) = [line for line in server.log().splitlines() if "chat.example" in line]
    assert "CHATLEDGER_AUTH" in warning
    server.kill()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_loopback_is_served_under_any_of_its_names(start_server: StartServer, host: str) -> None:
    server = start_server(CHATLEDGER_HOST=host)
    assert f"http://{host}:{server.port}" in server.log()
    server.kill()


def test_the_error_names_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = startup_error(tmp_path, CHATLEDGER_PORT=port)
    assert port in line
    assert "CHATLEDGER_PORT" in line
    assert "Errno" not in line


def test_the_server_prints_its_address(server: Server) -> None:
    assert server.url in server.log()


def test_the_server_says_what_it_runs_with(start_server: StartServer) -> None:
    server = start_server(
        CHATLEDGER_WINDOW="7", CHATLEDGER_EXPIRE_AFTER="30d", CHATLEDGER_MODELS="offline"
    )
    first, second = server.log().splitlines()[:2]
    assert first == f"Chatledger is running at {server.url} (Ctrl-C stops it)"
    for fact in (
        f"version {chatledger.__version__}",
        f"store sqlite:///{server.folder / 'chatledger.db'}",
        "models offline",
        "window 7 messages",
        "sign in none",
        "lease 10s",
        "time limit 2m",
        "turns a minute off",
        "expire after 30d",
        "longest message 32,000 characters",
    ):
        assert fact in second
    server.kill()


def test_port_0_picks_a_free_port(tmp_path: Path) -> None:
    with (
        started_server(tmp_path, CHATLEDGER_PORT="0") as (_, address),
        open_client(address) as client,
    ):
        assert client.get("/health").status_code == 200


def test_the_model_sees_only_the_window(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_WINDOW="2")
    with open_client(server.url) as client:
        conversation_id = send_message(client, "Hi, I am Bob", user_id="bob")["conversation_id"]
        bob = {"user_id": "bob", "conversation_id": conversation_id}
        send_message(client, "It rains", **bob)
        assert "Bob" not in send_message(client, "What is my name?", **bob)["response"]
    server.kill()


def test_the_model_sees_no_more_tokens_than_the_window_may_have(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_WINDOW_TOKENS="30")
    with open_client(server.url) as client:
        conversation_id = send_message(client, "Hi, I am Bob", user_id="bob")["conversation_id"]
        bob = {"user_id": "bob", "conversation_id": conversation_id}
        assert "Bob" not in send_message(client, "What is my name?", **bob)["response"]
    server.kill()


def test_a_conversation_expires_without_activity(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_EXPIRE_AFTER="1s")
    with open_client(server.url) as client:
        conversation_id = send_message(client, "Hi, I am Bob", user_id="bob")["conversation_id"]
        bob = {"user_id": "bob", "conversation_id": conversation_id}
        wait_until(
            lambda: client.get(f"/conversations/{conversation_id}").status_code == 404 or None
        )
        assert conversation_ids(list_conversations(client, "bob")) == []
        assert "Bob" not in send_message(client, "What is my name?", **bob)["response"]
    server.kill()


def test_requests_for_another_host_name_are_rejected(server: Server) -> None:
    # The page's host may resolve to 127.0.0.1 (DNS rebinding), but the Host header names the page.
    with open_client(server.url) as client:
        names = ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example")
        for host in (*names, "127.0.0.1:evil"):
            expect_error(client.get("/conversations?user_id=bob", headers={"Host": host}), 400, 403)
        allowed = client.options(
            "/conversations/nobody",
            headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"},
        )
        assert "Access-Control-Allow-Origin" not in allowed.headers


# The store ----------------------------------------------------------------------------------------


def test_the_error_names_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    line = startup_error(tmp_path, CHATLEDGER_STORE="sqlite:///letter.txt")
    assert "letter.txt" in line


def test_another_programs_database_is_named_and_left_unchanged(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "songs.db")) as db:
        db.execute("CREATE TABLE songs (title TEXT)")
    before = (tmp_path / "songs.db").read_bytes()
    assert "songs.db" in startup_error(tmp_path, CHATLEDGER_STORE="sqlite:///songs.db")
    assert (tmp_path / "songs.db").read_bytes() == before


def test_the_error_names_a_missing_folder(tmp_path: Path) -> None:
    assert "nowhere" in startup_error(tmp_path, CHATLEDGER_STORE="sqlite:///nowhere/chatledger.db")
