"""A client of the HTTP API that takes no answer but one of the exact shape."""

import json
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx

SECONDS = 20.0
"""How long anything may take before it counts as hanging."""
MARKER = "quetzal-7431"
"""What users say in these tests: it must never come back in an error, nor stand in a log."""
JSON = {"Content-Type": "application/json"}

Fields = dict[str, Any]
Event = tuple[str, Fields]
Value = TypeVar("Value")


# Made once: each client would load the certificates of all the world for itself, in 30 ms.
_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def connected(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=SECONDS, trust_env=False, verify=_TLS)


def someone() -> str:
    """A user whom no other test knows."""
    return f"user {uuid4()}"


def at(conversation_id: str) -> str:
    """The path of a conversation, whatever its id."""
    encoded = quote(conversation_id, safe="", errors="surrogatepass")
    # Clients take "." and ".." out of a path; the points encoded, they are an id like any other.
    return "/conversations/" + encoded.replace(".", "%2E")


# The routes -----------------------------------------------------------------------------------


def said(client: httpx.Client, message: str, **fields: Any) -> Fields:
    """What ``POST /chat`` answers."""
    answer = answer_of(client.post("/chat", json={"message": message} | fields))
    assert answer.keys() == {"response", "conversation_id"}
    assert isinstance(answer["response"], str)
    assert answer["response"].strip()
    assert answer["conversation_id"] is None or isinstance(answer["conversation_id"], str)
    return answer


def created(client: httpx.Client, **fields: Any) -> str:
    """The id that ``POST /conversations`` answers with."""
    answer = answer_of(client.post("/conversations", json=fields))
    assert answer.keys() == {"conversation_id"}
    conversation_id = answer["conversation_id"]
    assert isinstance(conversation_id, str)
    assert conversation_id
    return conversation_id


def shown(client: httpx.Client, conversation_id: str, **params: Any) -> Fields:
    """What ``GET /conversations/{id}`` shows."""
    answer = answer_of(client.get(at(conversation_id), params=params))
    assert answer.keys() == {"conversation"}
    conversation: Fields = answer["conversation"]
    known = {"conversation_id", "user_id", "title", "created_at", "updated_at"}
    # ``next`` is there where earlier messages are: it asks for them, as ``before``.
    assert conversation.keys() - {"next"} == known | {"messages", "metadata"}
    assert conversation["conversation_id"] == conversation_id
    assert isinstance(conversation["user_id"], str)
    assert conversation["title"] is None or isinstance(conversation["title"], str)
    assert moment(conversation["created_at"]) <= moment(conversation["updated_at"])
    messages = conversation["messages"]
    for message in messages:
        # ``stop_reason`` marks a reply that did not come to its own end; no other has it.
        assert message.keys() - {"stop_reason"} == {"role", "content", "timestamp", "id", "seq"}
        assert message["role"] in ("user", "assistant")
        assert isinstance(message["content"], str)
        assert isinstance(message["id"], str)
        assert type(message["seq"]) is int
    seqs = [message["seq"] for message in messages]
    assert seqs == sorted(set(seqs)), "messages come oldest first"
    # Their order is that of their seqs. A message's time is when it was made: of two turns at once
    # the one that was made first may be stored second.
    assert all(moment(message["timestamp"]) for message in messages)
    assert len({message["id"] for message in messages}) == len(messages)
    assert conversation["metadata"].keys() == {"message_count"}
    count = conversation["metadata"]["message_count"]
    if "next" in conversation:
        assert type(conversation["next"]) is int
        assert count > len(messages)
    else:
        assert count == len(messages) or "before" in params
    return conversation


def talk(conversation: Fields) -> list[tuple[str, str]]:
    """Who said what."""
    return [(message["role"], message["content"]) for message in conversation["messages"]]


def listed(client: httpx.Client, user_id: str, **params: Any) -> Fields:
    """What ``GET /conversations`` answers."""
    answer = answer_of(client.get("/conversations", params={"user_id": user_id} | params))
    assert answer.keys() == {"conversations", "cursor"}
    assert answer["cursor"] is None or isinstance(answer["cursor"], str)
    known = {"conversation_id", "title", "created_at", "updated_at", "message_count"}
    for conversation in answer["conversations"]:
        assert conversation.keys() == known
        assert isinstance(conversation["conversation_id"], str)
        assert conversation["title"] is None or isinstance(conversation["title"], str)
        assert moment(conversation["created_at"]) <= moment(conversation["updated_at"])
        assert type(conversation["message_count"]) is int
    times = [moment(conversation["updated_at"]) for conversation in answer["conversations"]]
    assert times == sorted(times, reverse=True), "newest activity comes first"
    return answer


def ids(listing: Fields) -> list[str]:
    return [conversation["conversation_id"] for conversation in listing["conversations"]]


def deleted(client: httpx.Client, conversation_id: str, **params: str) -> None:
    answer = answer_of(client.delete(at(conversation_id), params=params))
    assert answer == {"message": "Conversation deleted successfully"}


def streamed(client: httpx.Client, **fields: Any) -> AbstractContextManager[httpx.Response]:
    """The response to ``POST /chat/stream``, while it comes in."""
    return client.stream("POST", "/chat/stream", json=fields)


def events(response: httpx.Response) -> Iterator[Event]:
    """Each event as soon as it is there."""
    assert response.status_code == 200, response.read().decode()
    text = ""
    for part in response.iter_text():
        text = (text + part).replace("\r\n", "\n")
        *complete, text = text.split("\n\n")
        for block in complete:
            yield from events_of(f"{block}\n\n")
    assert text == "", "the stream ends in the middle of an event"


def events_of(text: str) -> Iterator[Event]:
    # Only \n ends a line here: other separators of lines may stand in the text of a piece.
    for block in text.split("\n\n")[:-1]:
        lines = [line.partition(":") for line in block.split("\n")]
        fields = {name: value.removeprefix(" ") for name, _, value in lines if name}
        if fields:
            assert fields.keys() == {"event", "data"}
            yield fields["event"], json.loads(fields["data"])


def whole(stream: Iterable[Event]) -> tuple[str | None, str]:
    """The conversation's id and the reply's text, of a stream that came to its end."""
    (start, begun), *pieces, (done, finished) = stream
    assert start == "start"
    assert begun.keys() == {"conversation_id"}
    assert pieces
    for name, piece in pieces:
        assert name == "piece"
        assert piece.keys() == {"text"}
        assert piece["text"], "a piece that says nothing"
    assert done == "done"
    assert finished.keys() == {"stop_reason", "usage"}
    assert isinstance(finished["stop_reason"], str)
    assert finished["usage"].keys() == {"input_tokens", "output_tokens"}
    assert all(type(tokens) is int and tokens >= 0 for tokens in finished["usage"].values())
    return begun["conversation_id"], "".join(piece["text"] for _, piece in pieces)


# What must hold of any answer -----------------------------------------------------------------


def answer_of(response: httpx.Response) -> Fields:
    assert response.status_code in (200, 201), f"{response.status_code}: {response.text}"
    return body_of(response)


def refused(response: httpx.Response, *statuses: int) -> Fields:
    """Assert one of ``statuses`` in the shape of an error, with nothing of ours or theirs in it."""
    assert response.status_code in statuses, f"{response.status_code}: {response.text}"
    return error_in(body_of(response))


def error_in(body: Fields) -> Fields:
    """``body``, which must have the shape of an error."""
    assert body.keys() == {"error", "code"}
    assert isinstance(body["error"], str)
    assert re.fullmatch(r"\S+( \S+)+\.", body["error"]), "a sentence for people"
    assert isinstance(body["code"], str)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", body["code"]), "snake_case for programs"
    assert MARKER not in str(body), "an error repeats nothing of what was sent"
    assert not re.search(r"Traceback|Error\b|Exception|pydantic|\.py\b", body["error"])
    return body


def survived(response: httpx.Response) -> None:
    """Assert that the server kept its countenance: JSON, of an error's shape where it is one."""
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        refused(response, response.status_code)
    else:
        answer_of(response)


def body_of(response: httpx.Response) -> Fields:
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    assert kind == "application/json", f"{response.status_code}: {response.text}"
    body = response.json()
    assert isinstance(body, dict)
    return body


def moment(text: object) -> datetime:
    """The time that ISO 8601 text with a zone says."""
    assert isinstance(text, str)
    time = datetime.fromisoformat(text)
    assert time.tzinfo is not None, f"{text!r} has no zone"
    return time


def eventually(look: Callable[[], Value | None]) -> Value:
    """The first answer of ``look`` that is not None."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if (found := look()) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing came within {SECONDS:.0f} seconds")
