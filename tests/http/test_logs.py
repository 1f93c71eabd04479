"""The log of ``chatledger serve``: a line for each request, and lines that tell of one request."""

import json
import logging
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

import httpx
import pytest

from chatledger.http.logs import JSONFormatter, TextFormatter
from chatledger.http.requests import REQUEST_ID
from tests.http.bad_input import named_params
from tests.http.client import (
    MARKER,
    conversation_path,
    new_user,
    open_client,
    open_stream,
    read_events,
    send_message,
    wait_until,
)
from tests.serving import Server, StartServer

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 [A-Z]+ [\w.]+ \[(\S+)\] (.*)")
SITE = "https://chat.example"


@pytest.fixture(scope="module")
def text_server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0", CHATLEDGER_ALLOW_ORIGIN=SITE)


@pytest.fixture(scope="module")
def json_server(start_server: StartServer) -> Server:
    return start_server(
        CHATLEDGER_OFFLINE_PACE="0", CHATLEDGER_LOG_FORMAT="json", CHATLEDGER_LOG_LEVEL="debug"
    )


@pytest.fixture
def url(text_server: Server) -> str:
    return text_server.url


def line_of(server: Server, response: httpx.Response) -> str:
    """Return the one line about the request that has the response's id."""
    id = response.headers[REQUEST_ID]
    # The line is written once the response has been sent.
    wait_until(lambda: f"[{id}]" in server.log() or None)
    (line,) = [line for line in server.log().splitlines() if f"[{id}]" in line]
    return line


def json_lines_of(server: Server, response: httpx.Response) -> list[dict[str, Any]]:
    id = response.headers[REQUEST_ID]
    wait_until(lambda: id in server.log() or None)
    lines = [json.loads(line) for line in server.log().splitlines()]
    return [line for line in lines if line.get("request_id") == id]


def test_each_request_has_a_line_with_its_route_status_time_and_conversation(
    client: httpx.Client, text_server: Server
) -> None:
    id = send_message(client, "Hi", user_id=new_user())["conversation_id"]
    line = line_of(text_server, client.get(conversation_path(id)))
    parsed = LINE.fullmatch(line)
    assert parsed is not None
    assert "INFO chatledger.access" in line
    expected = rf'GET /conversations/{{conversation_id}} 200 \d+\.\d ms conversation_id="{id}"'
    assert re.fullmatch(expected, parsed[2])


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
def test_a_turn_that_starts_a_conversation_names_it_in_its_line(
    client: httpx.Client, text_server: Server, path: str
) -> None:
    user = new_user()
    response = client.post(path, json={"message": MARKER, "user_id": user})
    (listed,) = client.get("/conversations", params={"user_id": user}).json()["conversations"]
    line = line_of(text_server, response)
    assert f" POST {path} 200 " in line
    assert listed["conversation_id"] in line


def test_a_new_conversation_is_named_too(client: httpx.Client, text_server: Server) -> None:
    response = client.post("/conversations", json={"user_id": new_user()})
    assert response.json()["conversation_id"] in line_of(text_server, response)


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/nowhere/secret?token=secret", "GET unknown 404"),
        ("PUT", "/chat?token=secret", "PUT /chat 405"),
        ("OPTIONS", "/conversations/nobody", "OPTIONS /conversations/{conversation_id} 405"),
        ("GET", "/conversations?token=secret", "GET /conversations 422"),
    ],
)
def test_a_line_has_the_route_and_never_the_path_or_the_query(
    client: httpx.Client, text_server: Server, method: str, path: str, route: str
) -> None:
    line = line_of(text_server, client.request(method, path))
    assert f" {route} " in line
    assert "secret" not in line


def test_no_line_names_a_user_or_quotes_a_message_a_title_or_a_token(
    client: httpx.Client, text_server: Server
) -> None:
    user, marker = f"user-{MARKER}", {"Authorization": f"Bearer {MARKER}"}
    client.post("/conversations", json={"user_id": user, "title": MARKER}, headers=marker)
    client.get("/conversations", params={"user_id": user})
    response = client.post("/chat", json={"message": MARKER, "user_id": user})
    line_of(text_server, response)
    assert MARKER not in text_server.log()


def test_a_request_that_is_rejected_before_its_route_has_its_route_in_the_line(
    client: httpx.Client, text_server: Server
) -> None:
    line = line_of(text_server, client.post("/chat", headers={"Host": "evil.example"}))
    assert " POST /chat 400 " in line
    assert line.endswith(" error=unknown_host")


# Request ids --------------------------------------------------------------------------------------


def test_a_request_keeps_its_id(client: httpx.Client, text_server: Server) -> None:
    response = client.get("/conversations", headers={REQUEST_ID: "proxy-1.a_B"})
    assert response.headers[REQUEST_ID] == "proxy-1.a_B"
    assert line_of(text_server, response)


@pytest.mark.parametrize(
    "ids",
    named_params(
        {
            "none": [],
            "empty": [""],
            "a blank": ["a b"],
            "a bracket": ["a] forged"],
            "not ASCII": ["é"],
            "too long": ["a" * 65],
            "two": ["a", "b"],
        }
    ),
)
def test_a_request_without_a_usable_id_gets_a_new_one(client: httpx.Client, ids: list[str]) -> None:
    headers = [(REQUEST_ID.encode(), id.encode()) for id in ids]
    first, second = (client.get("/conversations", headers=headers) for _ in range(2))
    for response in (first, second):
        assert re.fullmatch(r"[0-9a-f-]{36}", response.headers[REQUEST_ID])
    assert first.headers[REQUEST_ID] != second.headers[REQUEST_ID]


def test_every_kind_of_response_has_an_id(client: httpx.Client) -> None:
    asked = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    for response in (
        client.get("/", headers={"Accept": "text/html"}),
        client.get("/page/page.js"),
        client.get("/nowhere"),
        client.post("/chat", content=b"{"),
        client.get("/health", headers={"Host": "evil.example"}),
        client.options("/chat", headers=asked),
        client.post("/chat/stream", json={"message": "Hi"}),
    ):
        assert response.headers[REQUEST_ID]


def test_pages_of_an_allowed_site_may_read_the_id(client: httpx.Client) -> None:
    response = client.get("/health", headers={"Origin": SITE})
    assert REQUEST_ID in response.headers["Access-Control-Expose-Headers"]


def test_the_line_of_an_error_has_the_id_of_the_request(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.1")
    database = sqlite3.connect(server.folder / "chatledger.db", isolation_level=None)
    with open_client(server.url) as client, closing(database) as db:
        with open_stream(client, message="Hi, I am Bob", user_id="bob") as response:
            stream = read_events(response)
            next(stream)
            db.execute("ALTER TABLE conversations RENAME TO away")
            *_, (last, _) = stream
        assert last == "error"
        wait_until(lambda: " POST /chat/stream " in server.log() or None)
    lines = [line for line in server.log().splitlines() if response.headers[REQUEST_ID] in line]
    error, access = lines
    assert " ERROR chatledger.http " in error
    assert "a turn failed: StoreUnavailable: The file " in error
    assert access.endswith(" error=store_unavailable")
    server.kill()


# Forms and levels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["a\nb", "a\r\nb", "a\x1b[31mb", "a\u2028b\x85c", 'a"b'])
def test_an_id_with_line_breaks_cannot_forge_a_line(
    client: httpx.Client, text_server: Server, json_server: Server, id: str
) -> None:
    line = line_of(text_server, client.get(conversation_path(id)))
    assert json.loads(line.partition("conversation_id=")[2].partition(" error=")[0]) == id
    assert line.isprintable()
    with open_client(json_server.url) as other:
        (fields,) = json_lines_of(json_server, other.get(conversation_path(id)))
    assert fields["conversation_id"] == id


def test_a_client_that_breaks_off_its_request_leaves_no_line(
    client: httpx.Client, text_server: Server
) -> None:
    before = len(text_server.log().splitlines())
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", text_server.port)) as broken:
            broken.sendall(
                b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 30\r\n\r\n{"
            )
    line_of(text_server, client.get("/conversations?user_id=bob"))
    assert len(text_server.log().splitlines()) == before + 1


def test_a_json_log_has_an_object_in_every_line(json_server: Server) -> None:
    with open_client(json_server.url) as client:
        (health,) = json_lines_of(json_server, client.get("/health"))
        (missing,) = json_lines_of(json_server, client.get("/conversations/nobody"))
    first = json.loads(json_server.log().splitlines()[0])
    assert json_server.url in first["message"]
    assert first["store"] == f"sqlite:///{json_server.folder / 'chatledger.db'}"
    assert (health["level"], health["route"], health["status"]) == ("debug", "/health", 200)
    expected = {
        "level": "info",
        "logger": "chatledger.access",
        "method": "GET",
        "route": "/conversations/{conversation_id}",
        "status": 404,
        "conversation_id": "nobody",
        "error": "not_found",
    }
    assert expected.items() <= missing.items()
    assert 0 <= missing["milliseconds"] < 60_000
    assert missing["time"].endswith("+00:00")


def test_probes_and_files_of_the_page_are_not_logged_by_default(
    client: httpx.Client, text_server: Server
) -> None:
    quiet = [client.get(path) for path in ("/health", "/page/page.js")]
    line_of(text_server, client.get("/"))
    for response in quiet:
        assert response.headers[REQUEST_ID] not in text_server.log()


def test_a_higher_level_leaves_the_requests_out(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0", CHATLEDGER_LOG_LEVEL="warning")
    with open_client(server.url) as client:
        send_message(client, "Hi", user_id="bob")
    assert server.stop() == 0
    assert server.url in server.log()
    assert "chatledger.access" not in server.log()


CONFIGURED = """
import logging
from chatledger.http.logs import configure_logging

configure_logging(form="text", level="debug")
for name in ("chatledger.some", "botocore"):
    logging.getLogger(name).setLevel("DEBUG")
    logging.getLogger(name).debug("details")
    logging.getLogger(name).warning("trouble")
"""


def test_other_packages_log_no_details() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [line.split(" ", 1)[1] for line in done.stderr.splitlines()]
    assert lines == [
        "DEBUG chatledger.some [-] details",
        "WARNING chatledger.some [-] trouble",
        "WARNING botocore [-] trouble",
    ]


@pytest.mark.parametrize("form", [TextFormatter(), JSONFormatter()])
def test_the_text_of_an_error_is_left_out(form: logging.Formatter) -> None:
    try:
        raise ValueError(MARKER)
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "lost", (), error)
    text = form.format(record)
    assert "lost: ValueError" in text
    assert "test_logs.py" in text
    assert MARKER not in text


def test_only_records_begin_at_the_margin() -> None:
    forged = "a\n2026-01-01T00:00:00.000+00:00 INFO chatledger.access [-] forged\rb\x1bc"
    record = logging.LogRecord("some", logging.WARNING, "", 0, "%s", (forged,), None)
    first, second = TextFormatter().format(record).splitlines()
    assert LINE.fullmatch(first)
    assert second.startswith("    2026")
    assert second.strip().isprintable()
