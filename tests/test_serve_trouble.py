"""A server whose store fails, or what nobody foresaw: it says so, and nothing of what was said."""

import sqlite3
from contextlib import closing

from tests.http.client import (
    JSON,
    MARKER,
    connected,
    error_in,
    events,
    refused,
    said,
    someone,
    streamed,
    whole,
)
from tests.serving import Server, StartServer


def file_of(server: Server) -> closing[sqlite3.Connection]:
    """The server's file, to make trouble in."""
    return closing(sqlite3.connect(server.folder / "chatledger.db", isolation_level=None))


def test_it_says_so_while_the_store_does_not_answer(start_server: StartServer) -> None:
    server = start_server()
    with connected(server.url) as client, file_of(server) as db:
        place = said(client, "Hi", user_id="bob")["conversation_id"]
        # Any failure of the store does: here its tables are away for a while.
        db.execute("ALTER TABLE conversations RENAME TO away")
        refused(client.get("/health"), 503)
        chat = {"message": MARKER, "user_id": "bob"}
        refused(client.post("/chat", json=chat), 503)
        refused(client.post("/chat/stream", json=chat), 503)
        refused(client.post("/conversations", json={"user_id": "bob"}), 503)
        refused(client.get("/conversations", params={"user_id": "bob"}), 503)
        refused(client.get(f"/conversations/{place}"), 503)
        refused(client.delete(f"/conversations/{place}"), 503)
        db.execute("ALTER TABLE away RENAME TO conversations")
        assert client.get("/health").status_code == 200
        said(client, "Hi", user_id="bob", conversation_id=place)
    assert MARKER not in server.log()
    server.kill()


def test_a_stream_that_cannot_be_kept_says_so(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.1")
    with (
        connected(server.url) as client,
        file_of(server) as db,
        streamed(client, message=f"Hi, I am {MARKER}", user_id="bob") as response,
    ):
        stream = events(response)
        assert next(stream)[0] == "start"
        assert next(stream)[0] == "piece"
        db.execute("ALTER TABLE conversations RENAME TO away")
        *pieces, (last, body) = stream
        assert {name for name, _ in pieces} <= {"piece"}
        assert last == "error"
        assert error_in(body)["code"] == "store_unavailable"
    assert MARKER not in server.log()
    server.kill()


def test_what_nobody_foresaw_is_an_error_like_any_other(start_server: StartServer) -> None:
    server = start_server()
    with connected(server.url) as client, file_of(server) as db:
        place = said(client, "Hi", user_id="bob")["conversation_id"]
        db.execute("UPDATE messages SET body = ?", (f'{{"role": "{MARKER}',))
        before = server.log()
        chat = {"message": MARKER, "user_id": "bob", "conversation_id": place}
        refused(client.get(f"/conversations/{place}"), 500, 503)
        refused(client.post("/chat", json=chat), 500, 503)
        refused(client.post("/chat/stream", json=chat), 500, 503)
        # Whoever runs it is told, but not what was said.
        assert len(server.log()) > len(before)
        assert MARKER not in server.log()
    server.kill()


def test_no_word_of_a_conversation_is_in_the_log(server: Server) -> None:
    with connected(server.url) as client:
        fields = {"user_id": someone(), "system_prompt": f"{MARKER}!"}
        place = said(client, f"Hi, I am {MARKER}", **fields)["conversation_id"]
        fields |= {"message": "What is my name?", "conversation_id": place}
        with streamed(client, **fields) as response:
            _, reply = whole(events(response))
        assert MARKER in reply
        for body in (b'{"message": "%s' % MARKER.encode(), b'"%s"' % MARKER.encode()):
            refused(client.post("/chat", content=body, headers=JSON), 400, 422)
        refused(client.post("/chat", json={"message": MARKER, "save_history": MARKER}), 400, 422)
    assert MARKER not in server.log()
