"""A server whose store fails: it reports the error and leaks no message."""

import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.http.client import (
    JSON,
    MARKER,
    checked_error,
    expect_error,
    new_user,
    open_client,
    open_stream,
    read_conversation,
    read_events,
    read_reply,
    send_message,
    wait_until,
)
from tests.serving import Server, StartServer


def open_database(server: Server) -> closing[sqlite3.Connection]:
    """Open the server's database, to damage it."""
    return closing(sqlite3.connect(server.folder / "chatledger.db", isolation_level=None))


def test_every_route_returns_503_while_the_store_is_unavailable(start_server: StartServer) -> None:
    server = start_server()
    with open_client(server.url) as client, open_database(server) as db:
        conversation_id = send_message(client, "Hi", user_id="bob")["conversation_id"]
        # Any failure of the store will do; here a table is renamed for a moment.
        db.execute("ALTER TABLE conversations RENAME TO away")
        expect_error(client.get("/health"), 503)
        chat = {"message": MARKER, "user_id": "bob"}
        expect_error(client.post("/chat", json=chat), 503)
        expect_error(client.post("/chat/stream", json=chat), 503)
        expect_error(client.post("/conversations", json={"user_id": "bob"}), 503)
        expect_error(client.get("/conversations", params={"user_id": "bob"}), 503)
        expect_error(client.get(f"/conversations/{conversation_id}"), 503)
        expect_error(client.delete(f"/conversations/{conversation_id}"), 503)
        db.execute("ALTER TABLE away RENAME TO conversations")
        assert client.get("/health").status_code == 200
        send_message(client, "Hi", user_id="bob", conversation_id=conversation_id)
    assert MARKER not in server.log()
    server.kill()


def test_a_stream_that_cannot_be_saved_ends_with_an_error(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.1")
    with (
        open_client(server.url) as client,
        open_database(server) as db,
        open_stream(client, message=f"Hi, I am {MARKER}", user_id="bob") as response,
    ):
        stream = read_events(response)
        conversation_id = next(stream)[1]["conversation_id"]
        assert next(stream)[0] == "piece"
        db.execute("ALTER TABLE conversations RENAME TO away")
        *pieces, (last, body) = stream
        assert {name for name, _ in pieces} <= {"piece"}
        assert last == "error"
        error = checked_error(body, conversation_id=conversation_id)
        assert error["code"] == "store_unavailable"
    assert MARKER not in server.log()
    server.kill()


def test_the_log_says_that_a_reply_whose_client_has_left_could_not_be_saved(
    start_server: StartServer,
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.1")
    with open_client(server.url) as client, open_database(server) as db:
        fields = {"message": f"Hi, I am {MARKER}", "user_id": "bob", "on_disconnect": "stop"}
        with open_stream(client, **fields) as response:
            stream = read_events(response)
            assert [next(stream)[0], next(stream)[0]] == ["start", "piece"]
            db.execute("ALTER TABLE conversations RENAME TO away")
        wait_until(lambda: "a turn failed: StoreUnavailable" in server.log() or None)
    assert MARKER not in server.log()
    server.kill()


def test_an_unexpected_failure_is_a_normal_error(start_server: StartServer) -> None:
    server = start_server()
    with open_client(server.url) as client, open_database(server) as db:
        conversation_id = send_message(client, "Hi", user_id="bob")["conversation_id"]
        db.execute("UPDATE messages SET body = ?", (f'{{"role": "{MARKER}',))
        chat = {"message": MARKER, "user_id": "bob", "conversation_id": conversation_id}
        expect_error(client.get(f"/conversations/{conversation_id}"), 500, 503)
        expect_error(client.post("/chat", json=chat), 500, 503)
        expect_error(client.post("/chat/stream", json=chat), 500, 503)
        # The log tells the operator, without quoting messages.
        failures = [line for line in server.log().splitlines() if " failed: " in line]
        assert len(failures) == 3
        assert MARKER not in server.log()
    server.kill()


def test_the_log_quotes_no_message(server: Server) -> None:
    with open_client(server.url) as client:
        fields = {"user_id": new_user(), "system_prompt": f"{MARKER}!"}
        conversation_id = send_message(client, f"Hi, I am {MARKER}", **fields)["conversation_id"]
        fields |= {"message": "What is my name?", "conversation_id": conversation_id}
        with open_stream(client, **fields) as response:
            _, reply = read_reply(read_events(response))
        assert MARKER in reply
        for body in (b'{"message": "%s' % MARKER.encode(), b'"%s"' % MARKER.encode()):
            expect_error(client.post("/chat", content=body, headers=JSON), 400, 422)
        expect_error(
            client.post("/chat", json={"message": MARKER, "save_history": MARKER}), 400, 422
        )
    assert MARKER not in server.log()


def test_a_file_removed_under_the_server_is_reported_and_can_be_restored(
    start_server: StartServer,
) -> None:
    server = start_server(CHATLEDGER_LOG_LEVEL="warning")
    path = server.folder / "chatledger.db"
    with open_client(server.url) as client:
        conversation_id = send_message(client, "Hi, I am Bob", user_id="bob")["conversation_id"]
        with open_database(server) as db:
            db.execute("VACUUM INTO ?", (str(server.folder / "backup.db"),))
        path.unlink()
        before = server.log()
        expect_error(client.get("/health"), 503)
        expect_error(client.post("/chat", json={"message": MARKER, "user_id": "bob"}), 503)
        lines = server.log()[len(before) :].splitlines()
        assert len(lines) == 2
        assert all("was removed or replaced while the store was open" in line for line in lines)
        assert not path.exists()

        (server.folder / "backup.db").rename(path)
        fields = {"user_id": "bob", "conversation_id": conversation_id}
        assert "Bob" in send_message(client, "What is my name?", **fields)["response"]
    server.restart()
    with open_client(server.url) as client:
        assert len(read_conversation(client, conversation_id)["messages"]) == 4
    server.kill()


SERVE_ON_A_FULL_DISK = """
import resource, sqlite3, sys
from chatledger.cli import main

connect = sqlite3.connect

def connect_to_small_file(*arguments, **options):
    db = connect(*arguments, **options)
    db.execute("PRAGMA max_page_count = 60")
    return db

if sys.argv[1] == "full disk":
    sqlite3.connect = connect_to_small_file
else:  # the system lets no file grow beyond this
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
sys.argv = ["chatledger", "serve"]
main()
"""


def test_a_file_replaced_by_another_programs_is_named_in_one_line(
    start_server: StartServer,
) -> None:
    server = start_server(CHATLEDGER_LOG_LEVEL="warning")
    path = server.folder / "chatledger.db"
    with open_client(server.url) as client:
        send_message(client, "Hi, I am Bob", user_id="bob")
        other = server.folder / "other"
        other.write_text("This is not a database. " * 1_000)
        other.rename(path)
        before = server.log()
        expect_error(client.get("/health"), 500)
        (line,) = server.log()[len(before) :].splitlines()
        assert "is not an SQLite database; name another file" in line


@pytest.mark.parametrize(
    ("failure", "code", "sentence", "line"),
    [
        (
            "full disk",
            "disk_full",
            "The conversation could not be stored, because the server's disk is full; .*",
            r"DiskFull: The file '.*' cannot grow: the disk is full\. Nothing was written; .*",
        ),
        (
            "I/O error",
            "store_unavailable",
            "The conversation store is not available; try again later\\.",
            r"StoreUnavailable: The file '.*' could not be used: disk I/O error\.",
        ),
    ],
    ids=["full disk", "I/O error"],
)
def test_clients_and_the_operator_are_told_why_nothing_can_be_stored(
    tmp_path: Path, failure: str, code: str, sentence: str, line: str
) -> None:
    server = Server(tmp_path, CHATLEDGER_LOG_LEVEL="warning")
    server.command = [sys.executable, "-c", SERVE_ON_A_FULL_DISK, failure]
    try:
        server.start()
        body = {"message": f"{MARKER} " * 1_000, "user_id": "bob"}
        with open_client(server.url) as client:
            for _ in range(60):
                before = server.log()
                response = client.post("/chat", json=body)
                if response.status_code != 200:
                    break
            named = response.json().get("conversation_id")
            error = expect_error(response, 503, conversation_id=named)
        assert error["code"] == code
        assert re.fullmatch(sentence, error["error"])
        assert re.fullmatch(
            rf".* ERROR .*(POST '/chat'|a turn) failed: {line}\n", server.log()[len(before) :]
        )
    finally:
        server.kill()
