"""``chatledger serve`` as a program: its settings, what it prints, and what it refuses."""

import signal
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.http.client import connected, eventually, ids, listed, refused, said
from tests.serving import END, SERVE, Server, StartServer, announced, environment, free_port


def ended(folder: Path, *arguments: str, **variables: str) -> str:
    """The one line that ``chatledger serve`` prints when it ends by itself, as it should."""
    given = {"CHATLEDGER_PORT": str(free_port())} | variables
    done = subprocess.run(
        [*SERVE, *arguments],
        cwd=folder,
        env=environment(**given),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=END,
        check=False,
    )
    assert done.returncode not in (0, -signal.SIGTERM), done
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.endswith("."), "a sentence"
    return line


def test_a_table_in_no_region_ends_it_with_a_sentence(tmp_path: Path) -> None:
    nowhere = {"AWS_CONFIG_FILE": "none", "AWS_EC2_METADATA_DISABLED": "true"}
    url = "dynamodb://conversations?endpoint=http://127.0.0.1:9"
    assert "No AWS region" in ended(tmp_path, CHATLEDGER_STORE=url, **nowhere)


def test_a_table_that_is_not_there_ends_it_with_a_sentence(
    tmp_path: Path, dynamodb_local: DynamoDBLocal
) -> None:
    credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY}
    url = f"dynamodb://nowhere?region={REGION}&endpoint={dynamodb_local.endpoint}"
    assert "create_table" in ended(tmp_path, CHATLEDGER_STORE=url, **credentials)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHATLEDGER_PORT", "eighty"),
        ("CHATLEDGER_PORT", "-1"),
        ("CHATLEDGER_PORT", "70000"),
        ("CHATLEDGER_WINDOW", "many"),
        ("CHATLEDGER_WINDOW", "0"),
        ("CHATLEDGER_WINDOW", "1000000"),
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
def test_a_wrong_setting_ends_it_with_a_sentence_that_names_it(
    tmp_path: Path, name: str, value: str
) -> None:
    assert name in ended(tmp_path, **{name: value})
    assert list(tmp_path.iterdir()) == [], "it looked at its settings only after it had begun"


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "0", "192.0.2.1", "127.example.org", "127.0.0.1.example.org"]
)
def test_no_address_but_loopback_is_served_without_authentication(
    tmp_path: Path, host: str
) -> None:
    line = ended(tmp_path, CHATLEDGER_HOST=host)
    assert "CHATLEDGER_HOST" in line
    assert "--allow-unauthenticated" in line


def test_any_address_is_served_without_authentication_if_told_twice(tmp_path: Path) -> None:
    # An address that no machine has (RFC 5737), so that nothing listens to the world here: it
    # fails, but no longer for want of the flag.
    line = ended(tmp_path, "--allow-unauthenticated", CHATLEDGER_HOST="192.0.2.1")
    assert "192.0.2.1" in line
    assert "--allow-unauthenticated" not in line


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_loopback_is_served_by_any_of_its_names(start_server: StartServer, host: str) -> None:
    server = start_server(CHATLEDGER_HOST=host)
    assert f"http://{host}:{server.port}" in server.log()
    server.kill()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = ended(tmp_path, CHATLEDGER_PORT=port)
    assert port in line
    assert "CHATLEDGER_PORT" in line
    assert "Errno" not in line


def test_it_prints_its_address(server: Server) -> None:
    assert server.url in server.log()


def test_port_0_is_any_that_is_free(tmp_path: Path) -> None:
    with announced(tmp_path, CHATLEDGER_PORT="0") as (_, address), connected(address) as client:
        assert client.get("/health").status_code == 200


def test_the_window_is_what_the_model_sees(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_WINDOW="2")
    with connected(server.url) as client:
        place = said(client, "Hi, I am Bob", user_id="bob")["conversation_id"]
        bob = {"user_id": "bob", "conversation_id": place}
        said(client, "It rains", **bob)
        assert "Bob" not in said(client, "What is my name?", **bob)["response"]
    server.kill()


def test_a_conversation_expires_when_nothing_is_said_in_it(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_EXPIRE_AFTER="1s")
    with connected(server.url) as client:
        place = said(client, "Hi, I am Bob", user_id="bob")["conversation_id"]
        bob = {"user_id": "bob", "conversation_id": place}
        eventually(lambda: client.get(f"/conversations/{place}").status_code == 404 or None)
        assert ids(listed(client, "bob")) == []
        assert "Bob" not in said(client, "What is my name?", **bob)["response"]
    server.kill()


def test_a_page_of_another_name_cannot_read_along(server: Server) -> None:
    # Its name may resolve to 127.0.0.1 (DNS rebinding); the browser still says whose page it is.
    with connected(server.url) as client:
        for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example"):
            refused(client.get("/conversations?user_id=bob", headers={"Host": host}), 400, 403)
        allowed = client.options(
            "/conversations/nobody",
            headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"},
        )
        assert "Access-Control-Allow-Origin" not in allowed.headers


# The store ----------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    line = ended(tmp_path, CHATLEDGER_STORE="sqlite:///letter.txt")
    assert "letter.txt" in line


def test_a_database_of_another_program_is_named_and_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "songs.db")) as db:
        db.execute("CREATE TABLE songs (title TEXT)")
    before = (tmp_path / "songs.db").read_bytes()
    assert "songs.db" in ended(tmp_path, CHATLEDGER_STORE="sqlite:///songs.db")
    assert (tmp_path / "songs.db").read_bytes() == before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere" in ended(tmp_path, CHATLEDGER_STORE="sqlite:///nowhere/chatledger.db")
