"""A server whose store fails: it reports the error and leaks no message."""

import sqlite3
from contextlib import closing

from tests.http.client import (
    JSON,
    MARKER,
    checked_error,
    expect_error,
    new_user,
    open_client,
    open_stream,
    read_events,
    read_reply,
    send_message,
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
        assert next(stream)[0] == "start"
        assert next(stream)[0] == "piece"
        db.execute("ALTER TABLE conversations RENAME TO away")
        *pieces, (last, body) = stream
        assert {name for name, _ in pieces} <= {"piece"}
        assert last == "error"
        assert checked_error(body)["code"] == "store_unavailable"
    assert MARKER not in server.log()
    server.kill()


def test_an_unexpected_failure_is_a_normal_error(start_server: StartServer) -> None:
    server = start_server()
    with open_client(server.url) as client, open_database(server) as db:
        conversation_id = send_message(client, "Hi", user_id="bob")["conversation_id"]
        db.execute("UPDATE messages SET body = ?", (f'{{"role": "{MARKER}',))
        before = server.log()
        chat = {"message": MARKER, "user_id": "bob", "conversation_id": conversation_id}
        expect_error(client.get(f"/conversations/{conversation_id}"), 500, 503)
        expect_error(client.post("/chat", json=chat), 500, 503)
        expect_error(client.post("/chat/stream", json=chat), 500, 503)
        # The log tells the operator, without quoting messages.
        assert len(server.log()) > len(before)
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
