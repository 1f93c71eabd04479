"""A client of the HTTP API that asserts the exact form of every response."""

import json
import re
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx

from chatledger.http.api import (
    CreateRequest,
    EditRequest,
    ForkRequest,
    RegenerateRequest,
    RequestBody,
    StopRequest,
    UpdateRequest,
)
from chatledger.http.endpoints import (
    ENDPOINTS,
    EXPORT_PATH,
    IMPORT_PATH,
    REPLY_PATH,
    TURN_ENDPOINTS,
)
from chatledger.http.imports import ImportRequest
from tests.http.description import Description, described_events

SECONDS = 20.0
"""Seconds after which anything counts as hanging."""
MARKER = "quetzal-7431"
"""Text of users' messages; it must never appear in an error or a log."""
GETS_SHORT_REPLY = "Hi, I am Bob. How often have I written?"
"""A message to which the offline model has a reply of 14 pieces, instead of 45."""
JSON = {"Content-Type": "application/json"}

Fields = dict[str, Any]
Event = tuple[str, Fields]
Value = TypeVar("Value")


# Shared: otherwise each client would load all CA certificates, which takes 30 ms.
_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def open_client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=SECONDS, trust_env=False, verify=_TLS)


@contextmanager
def open_checking_client(url: str) -> Iterator[httpx.Client]:
    """Open a client that asserts that the server's ``/openapi.json`` describes each response."""
    with open_client(url) as client:
        check_responses(client, read_description(client))
        yield client


def read_description(client: httpx.Client) -> Description:
    """Return the server's ``/openapi.json``; tests that share a server may share it."""
    return Description(success_body(client.get("/openapi.json")))


def check_responses(client: httpx.Client, description: Description) -> None:
    """Assert from now on that the description describes each response."""
    client.event_hooks = {"response": [description.check_response]}


def new_user() -> str:
    """Return the id of a user that no other test has."""
    return f"user {uuid4()}"


def conversation_path(conversation_id: str) -> str:
    """Return the path of a conversation with any id."""
    return f"/conversations/{_encoded(conversation_id)}"


def _encoded(conversation_id: str) -> str:
    encoded = quote(conversation_id, safe="", errors="surrogatepass")
    # Clients remove "." and ".." segments from a path, unless the dots are encoded.
    return encoded.replace(".", "%2E")


# The routes -----------------------------------------------------------------------------------


ID = "{conversation_id}"
SEQ = "{seq}"
_BODIES: dict[type[RequestBody], Fields] = {
    CreateRequest: {"title": MARKER},
    ImportRequest: {"format": "chatledger-conversation", "version": 1, "messages": []},
    UpdateRequest: {"title": MARKER},
    ForkRequest: {},
    StopRequest: {},
    RegenerateRequest: {},
    EditRequest: {"message": MARKER},
}
_ENDPOINTS = {
    f"{endpoint.method} {endpoint.path}": None if endpoint.body is None else _BODIES[endpoint.body]
    for endpoint in ENDPOINTS
}
CHAT_ROUTES: dict[str, Fields | None] = {
    "POST /chat": {"message": MARKER},
    "POST /chat/stream": {"message": MARKER},
}
TURN_ROUTES: dict[str, Fields | None] = CHAT_ROUTES | {
    f"{endpoint.method} {endpoint.path}": _BODIES[endpoint.body]
    for endpoint in TURN_ENDPOINTS
    if ID in endpoint.path
}
IMPORT = f"POST {IMPORT_PATH}"
PRIVATE_ROUTES = TURN_ROUTES | {f"GET {REPLY_PATH}": None, f"GET {EXPORT_PATH}": None} | _ENDPOINTS
"""The routes that need sign-in, each with a valid body; the last ones delete conversations."""
REQUIRED_QUERIES = {"GET /search": {"q": MARKER}}
"""The query that a route must have, apart from the user."""
CONVERSATION_ROUTES = {
    route: {"message": MARKER, "conversation_id": ID} for route in CHAT_ROUTES
} | {route: body for route, body in PRIVATE_ROUTES.items() if ID in route}
"""The routes that access one conversation, each with a valid body."""
PUBLIC_ROUTES = {
    *("GET /", "HEAD /", "GET /health", "HEAD /health"),
    *("GET /sign-in", "HEAD /sign-in"),
    *("GET /live", "HEAD /live", "GET /ready", "HEAD /ready"),
    *("GET /openapi.json", "HEAD /openapi.json", "GET /docs", "HEAD /docs", "/page"),
}


def request_route(
    client: httpx.Client,
    route: str,
    body: Fields | None,
    conversation_id: str = "nobody's",
    **query: str,
) -> httpx.Response:
    """Request ``route``; ``query`` becomes part of the body if that names the user."""
    method, path = route.split(" ")
    path = path.replace(ID, _encoded(conversation_id)).replace(SEQ, "2")
    if body is None:
        # With params, even without any, httpx would rewrite the query in the path.
        return client.request(method, path, params=query or None)
    if route == IMPORT:
        return client.request(method, path, json=body, params=query or None)
    fields = {name: conversation_id if value == ID else value for name, value in body.items()}
    return client.request(method, path, json=fields | query)


def use_every_route(client: httpx.Client, conversation_id: str, *, user_id: str) -> None:
    """Use each private route for the user's conversation, which the last route deletes."""
    for route, body in (PRIVATE_ROUTES | CONVERSATION_ROUTES).items():
        query = {"user_id": user_id} | REQUIRED_QUERIES.get(route, {})
        response = request_route(client, route, body, conversation_id, **query)
        assert response.status_code in (200, 201, 501), (
            response.text
        )  # 501 if the server cannot stream


def send_message(client: httpx.Client, message: str, **fields: Any) -> Fields:
    """Return the response of ``POST /chat``."""
    answer = success_body(client.post("/chat", json={"message": message} | fields))
    assert answer.keys() == {"response", "conversation_id"}
    assert isinstance(answer["response"], str)
    assert answer["response"].strip()
    assert answer["conversation_id"] is None or isinstance(answer["conversation_id"], str)
    return answer


def create_conversation(client: httpx.Client, **fields: Any) -> str:
    """Create a conversation with ``POST /conversations`` and return its id."""
    answer = success_body(client.post("/conversations", json=fields))
    assert answer.keys() == {"conversation_id"}
    conversation_id = answer["conversation_id"]
    assert isinstance(conversation_id, str)
    assert conversation_id
    return conversation_id


def read_conversation(client: httpx.Client, conversation_id: str, **params: Any) -> Fields:
    """Return the conversation from ``GET /conversations/{id}``."""
    answer = success_body(client.get(conversation_path(conversation_id), params=params))
    assert answer.keys() == {"conversation"}
    conversation: Fields = answer["conversation"]
    known = {"conversation_id", "user_id", "title", "created_at", "updated_at"}
    # ``next`` is there only if there are earlier messages.
    assert conversation.keys() - {"next", "replying"} == known | {"messages", "metadata"}
    assert conversation["conversation_id"] == conversation_id
    assert isinstance(conversation["user_id"], str)
    assert conversation["title"] is None or isinstance(conversation["title"], str)
    assert parse_time(conversation["created_at"]) <= parse_time(conversation["updated_at"])
    messages = conversation["messages"]
    for message in messages:
        known = {"role", "content", "timestamp", "id", "seq"}
        if message["role"] == "assistant":
            known |= {"model", "stop_reason"}
        assert message.keys() - {"usage", "branch_id"} == known
        assert message["role"] in ("user", "assistant")
        assert isinstance(message["content"], str)
        assert isinstance(message["id"], str)
        assert type(message["seq"]) is int
    seqs = [message["seq"] for message in messages]
    assert seqs == sorted(set(seqs)), "messages come oldest first"
    # Messages are ordered by seq. Their timestamps need not be in order: of two concurrent turns
    # the one that was created first may be stored second.
    assert all(parse_time(message["timestamp"]) for message in messages)
    assert len({message["id"] for message in messages}) == len(messages)
    assert conversation["metadata"].keys() == {"message_count"}
    count = conversation["metadata"]["message_count"]
    if "next" in conversation:
        assert type(conversation["next"]) is int
        assert count > len(messages)
    else:
        assert count == len(messages) or params.keys() & {"before", "after"}
    return conversation


def transcript(conversation: Fields) -> list[tuple[str, str]]:
    """Return the roles and texts of a conversation's messages."""
    return [(message["role"], message["content"]) for message in conversation["messages"]]


def list_conversations(client: httpx.Client, user_id: str, **params: Any) -> Fields:
    """Return the response of ``GET /conversations``."""
    answer = success_body(client.get("/conversations", params={"user_id": user_id} | params))
    assert answer.keys() == {"conversations", "cursor"}
    assert answer["cursor"] is None or isinstance(answer["cursor"], str)
    known = {"conversation_id", "title", "created_at", "updated_at", "message_count", "metadata"}
    for conversation in answer["conversations"]:
        assert conversation.keys() == known
        assert isinstance(conversation["conversation_id"], str)
        assert conversation["title"] is None or isinstance(conversation["title"], str)
        assert parse_time(conversation["created_at"]) <= parse_time(conversation["updated_at"])
        assert type(conversation["message_count"]) is int
    times = [parse_time(conversation["updated_at"]) for conversation in answer["conversations"]]
    assert times == sorted(times, reverse=True), "newest activity comes first"
    return answer


def search(client: httpx.Client, user_id: str, q: str, **params: Any) -> Fields:
    """Return the response of ``GET /search``."""
    return success_body(client.get("/search", params={"user_id": user_id, "q": q} | params))


def conversation_ids(listing: Fields) -> list[str]:
    return [conversation["conversation_id"] for conversation in listing["conversations"]]


def delete_conversation(client: httpx.Client, conversation_id: str, **params: str) -> None:
    answer = success_body(client.delete(conversation_path(conversation_id), params=params))
    assert answer == {"message": "Conversation deleted successfully"}


def open_stream(client: httpx.Client, **fields: Any) -> AbstractContextManager[httpx.Response]:
    """Open the response of ``POST /chat/stream``."""
    return client.stream("POST", "/chat/stream", json=fields)


def read_events(response: httpx.Response) -> Generator[Event, None, None]:
    """Yield each event as soon as it arrives."""
    assert response.status_code == 200, response.read().decode()
    text = ""
    for part in response.iter_text():
        text = (text + part).replace("\r\n", "\n")
        *complete, text = text.split("\n\n")
        for block in complete:
            yield from parse_events(f"{block}\n\n")
    assert text == "", "the stream ends in the middle of an event"


def parse_events(text: str) -> Iterator[Event]:
    # Only \n ends a line here: the text of a piece may contain other line separators.
    for block in text.split("\n\n")[:-1]:
        lines = [line.partition(":") for line in block.split("\n")]
        fields = {name: value.removeprefix(" ") for name, _, value in lines if name}
        if fields:
            assert fields.keys() - {"id"} == {"event", "data"}
            data = json.loads(fields["data"])
            described_events().check_event(fields["event"], data)
            yield fields["event"], data


def read_reply(stream: Iterable[Event]) -> tuple[str | None, str]:
    """Return the conversation's id and the reply's text from a complete stream."""
    (start, begun), *pieces, (done, finished) = stream
    assert start == "start"
    assert begun.keys() == {"conversation_id", "reply_id", "seq", "offset"}
    assert (begun["reply_id"] is None) is (begun["seq"] is None)
    assert begun["offset"] == 0
    assert pieces
    for name, piece in pieces:
        assert name == "piece"
        assert piece.keys() == {"text"}
        assert piece["text"], "a piece must not be empty"
    assert done == "done"
    assert finished.keys() == {"stop_reason", "usage"}
    assert isinstance(finished["stop_reason"], str)
    assert finished["usage"].keys() == {"input_tokens", "output_tokens"}
    assert all(type(tokens) is int and tokens >= 0 for tokens in finished["usage"].values())
    return begun["conversation_id"], "".join(piece["text"] for _, piece in pieces)


# Checks of any response -----------------------------------------------------------------


def success_body(response: httpx.Response) -> Fields:
    assert response.status_code in (200, 201), f"{response.status_code}: {response.text}"
    return json_body(response)


def expect_error(
    response: httpx.Response, *statuses: int, conversation_id: str | None = None
) -> Fields:
    """Assert an error with one of ``statuses`` that leaks nothing; return its body."""
    assert response.status_code in statuses, f"{response.status_code}: {response.text}"
    return checked_error(json_body(response), conversation_id=conversation_id)


def checked_error(body: Fields, *, conversation_id: str | None = None) -> Fields:
    """Return ``body`` after asserting that it is the body of an error.

    It must name the conversation ``conversation_id``, or none: only an error of a turn that has
    stored the message names one.
    """
    named = {} if conversation_id is None else {"conversation_id": conversation_id}
    assert body == {"error": body["error"], "code": body["code"]} | named
    assert isinstance(body["error"], str)
    assert re.fullmatch(r"\S+( \S+)+[.?]", body["error"]), "a sentence for people"
    assert isinstance(body["code"], str)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", body["code"]), "snake_case for programs"
    assert MARKER not in str(body), "an error repeats nothing of what was sent"
    assert not re.search(r"Traceback|Error\b|Exception|pydantic|\.py\b", body["error"])
    return body


def expect_no_server_error(response: httpx.Response) -> None:
    """Assert a response in the API's format that is not a server error."""
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        expect_error(response, response.status_code)
    else:
        success_body(response)


def json_body(response: httpx.Response) -> Fields:
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    assert kind == "application/json", f"{response.status_code}: {response.text}"
    body = response.json()
    assert isinstance(body, dict)
    return body


def parse_time(text: object) -> datetime:
    """Parse a time in ISO 8601 with a time zone."""
    assert isinstance(text, str)
    time = datetime.fromisoformat(text)
    assert time.tzinfo is not None, f"{text!r} has no zone"
    return time


def wait_until(look: Callable[[], Value | None]) -> Value:
    """Call ``look`` until its result is not None, and return the result."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if (found := look()) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing within {SECONDS:.0f} seconds")
