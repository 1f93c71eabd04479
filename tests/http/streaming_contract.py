"""HTTP contract of servers that stream: ``POST /chat/stream``."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from hypothesis import given

from tests.http.bad_input import (
    BAD_CHAT,
    BAD_CONTENT_TYPES,
    BODIES,
    MALFORMED,
    MAX_BODY_BYTES,
    any_input,
    body_with,
    named_params,
)
from tests.http.client import (
    GETS_SHORT_REPLY,
    JSON,
    MARKER,
    Fields,
    conversation_ids,
    conversation_path,
    expect_error,
    expect_no_server_error,
    json_body,
    list_conversations,
    new_user,
    open_client,
    open_stream,
    parse_events,
    read_conversation,
    read_events,
    read_reply,
    send_message,
    success_body,
    transcript,
    wait_until,
)

FRAMES = named_params(
    {
        "blank lines": "one\n\ntwo\r\n\r\nthree\r\rfour",
        "other ends of lines": "a\u2028b\x85c\x0bd",
        "an event": "event: done\ndata: {}\n\n",
        "long characters": "🧠👩‍👩‍👧",
    }
)


class StreamingContract:
    """Tests for servers that stream.

    They need the fixtures ``url`` and ``slow_url``: the model of the slow server pauses for about
    0.2 seconds before each piece, so that a client can disconnect during a reply.
    """

    @pytest.fixture
    def slow(self, slow_url: str) -> Iterator[httpx.Client]:
        with open_client(slow_url) as client:
            yield client

    def test_a_stream_has_a_start_pieces_and_an_end(self, client: httpx.Client) -> None:
        user = new_user()
        with open_stream(client, message="Hi, I am Bob", user_id=user) as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            assert response.headers["Cache-Control"] == "no-store"
            # Otherwise nginx would buffer the pieces.
            assert response.headers["X-Accel-Buffering"] == "no"
            conversation_id, text = read_reply(read_events(response))
        assert conversation_id is not None
        conversation = read_conversation(client, conversation_id)
        assert conversation["user_id"] == user
        assert transcript(conversation) == [("user", "Hi, I am Bob"), ("assistant", text)]

    def test_a_streamed_reply_is_the_same_as_a_complete_one(self, client: httpx.Client) -> None:
        for message in ("Hi, I am Bob", "What is my name?"):
            with open_stream(client, message=message) as response:
                conversation_id, text = read_reply(read_events(response))
            assert conversation_id is None
            assert text == send_message(client, message)["response"]

    def test_a_stream_continues_a_conversation(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        fields = {
            "message": "What is my name?",
            "user_id": user,
            "conversation_id": conversation_id,
        }
        with open_stream(client, **fields) as response:
            same, text = read_reply(read_events(response))
        assert same == conversation_id
        assert "Bob" in text
        assert transcript(read_conversation(client, conversation_id))[2:] == [
            ("user", fields["message"]),
            ("assistant", text),
        ]

    def test_a_stream_creates_a_conversation_with_the_given_id(self, client: httpx.Client) -> None:
        user, given = new_user(), f"a/b #{uuid4()} 🧠"
        with open_stream(client, message="Hi", user_id=user, conversation_id=given) as response:
            conversation_id, _ = read_reply(read_events(response))
        assert conversation_id == given
        assert conversation_ids(list_conversations(client, user)) == [given]

    @pytest.mark.parametrize("message", FRAMES)
    def test_text_that_looks_like_an_event_does_not_break_the_stream(
        self, client: httpx.Client, message: str
    ) -> None:
        user = new_user()
        conversation_id = send_message(client, message, user_id=user)["conversation_id"]
        fields = {"message": "What did I tell you first?", "user_id": user}
        with open_stream(client, **fields, conversation_id=conversation_id) as response:
            _, text = read_reply(read_events(response))
        assert transcript(read_conversation(client, conversation_id))[-1] == ("assistant", text)

    def test_a_stream_without_history_stores_nothing(self, client: httpx.Client) -> None:
        user = new_user()
        with open_stream(client, message="Hi", user_id=user, save_history=False) as response:
            conversation_id, _ = read_reply(read_events(response))
        assert conversation_id is None
        assert conversation_ids(list_conversations(client, user)) == []

    def test_a_stream_without_a_user_has_an_anonymous_owner(self, client: httpx.Client) -> None:
        with open_stream(client, message="Hi", save_history=True) as response:
            conversation_id, _ = read_reply(read_events(response))
        assert conversation_id is not None
        assert read_conversation(client, conversation_id)["user_id"].startswith("anonymous-")

    def test_a_repeated_stream_request_gets_the_same_reply(self, client: httpx.Client) -> None:
        headers = {"Idempotency-Key": str(uuid4())}
        body = {"message": "Hi, I am Bob", "user_id": new_user()}
        told = []
        for _ in range(2):
            with client.stream("POST", "/chat/stream", json=body, headers=headers) as response:
                told.append(read_reply(read_events(response)))
        assert told[0] == told[1]

    # One turn at a time ---------------------------------------------------------------------------

    @pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
    def test_another_turn_is_rejected_while_a_reply_is_being_written(
        self, slow: httpx.Client, path: str
    ) -> None:
        user = new_user()
        with open_stream(slow, message="Hi, I am Bob", user_id=user) as response:
            stream = read_events(response)
            conversation_id = next(stream)[1]["conversation_id"]
            body = {"message": MARKER, "user_id": user, "conversation_id": conversation_id}
            answer = slow.post(path, json=body)
            assert expect_error(answer, 409)["code"] == "turn_in_progress"
            assert 1 <= int(answer.headers["Retry-After"]) <= 2
            assert next(stream)[0] == "piece"
            success_body(slow.post(f"{conversation_path(conversation_id)}/stop", json={}))
            *_, (last, _) = stream
            assert last == "done"
        assert [role for role, _ in transcript(read_conversation(slow, conversation_id))] == [
            "user",
            "assistant",
        ]

    # Errors before the stream starts --------------------------------------------------------------

    @pytest.mark.parametrize("body", MALFORMED)
    def test_a_malformed_body_starts_no_stream(self, client: httpx.Client, body: bytes) -> None:
        expect_same_error_as_chat(client, body)

    @pytest.mark.parametrize("fields", BAD_CHAT)
    def test_an_invalid_field_starts_no_stream(self, client: httpx.Client, fields: Fields) -> None:
        user = new_user()
        expect_same_error_as_chat(client, body_with({"message": MARKER, "user_id": user} | fields))
        assert conversation_ids(list_conversations(client, user)) == []

    @pytest.mark.parametrize("headers", BAD_CONTENT_TYPES)
    def test_a_body_without_the_json_content_type_starts_no_stream(
        self, client: httpx.Client, headers: dict[str, str]
    ) -> None:
        expect_same_error_as_chat(client, body_with({"message": MARKER}), headers)

    def test_a_body_over_256_kib_starts_no_stream(self, client: httpx.Client) -> None:
        expect_same_error_as_chat(client, body_with({"message": MARKER}) + b" " * MAX_BODY_BYTES)

    def test_an_unknown_conversation_without_a_user_starts_no_stream(
        self, client: httpx.Client
    ) -> None:
        body = {"message": MARKER, "conversation_id": str(uuid4())}
        expect_same_error_as_chat(client, body_with(body))

    def test_another_users_conversation_starts_no_stream(self, client: httpx.Client) -> None:
        conversation_id = send_message(client, "Hi", user_id=new_user())["conversation_id"]
        before = read_conversation(client, conversation_id)
        body = {"message": MARKER, "user_id": new_user(), "conversation_id": conversation_id}
        expect_error(client.post("/chat/stream", json=body), 404)
        assert read_conversation(client, conversation_id) == before

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    def test_a_stream_needs_a_post_request(self, client: httpx.Client, method: str) -> None:
        expect_error(client.request(method, "/chat/stream"), 405)

    @given(body=BODIES)
    @any_input
    def test_no_body_causes_a_server_error_in_a_stream(
        self, client: httpx.Client, body: bytes
    ) -> None:
        response = client.post("/chat/stream", content=body, headers=JSON)
        if response.status_code == 200:
            read_reply(parse_events(response.text))
        else:
            expect_no_server_error(response)

    # Clients that disconnect ----------------------------------------------------------------------

    def test_the_reply_so_far_is_saved_when_a_client_that_asked_for_it_disconnects(
        self, client: httpx.Client, slow: httpx.Client
    ) -> None:
        message = "Hi, I am Bob and I would like to hear all that you can do"
        reply = send_message(client, message, user_id=new_user())["response"]
        user = new_user()
        with open_stream(slow, message=message, user_id=user, on_disconnect="stop") as response:
            stream = read_events(response)
            conversation_id = next(stream)[1]["conversation_id"]
            heard = next(stream)[1]["text"]
            assert heard != reply, "the reply must have several pieces"

        def saved_reply() -> Fields | None:
            messages: list[Fields] = read_conversation(slow, conversation_id)["messages"]
            return messages[1] if len(messages) > 1 else None

        stopped = wait_until(saved_reply)
        assert stopped["role"] == "assistant"
        assert stopped["stop_reason"] == "stopped"
        assert stopped["content"].startswith(heard)
        assert reply.startswith(stopped["content"])
        assert stopped["content"] != reply, "the reply must be interrupted"

        answer = send_message(
            slow, "What is my name?", user_id=user, conversation_id=conversation_id
        )
        assert "Bob" in answer["response"]
        roles = [role for role, _ in transcript(read_conversation(slow, conversation_id))]
        assert roles == ["user", "assistant", "user", "assistant"]

    def test_a_client_that_disconnects_before_the_first_piece_blocks_nothing(
        self, slow: httpx.Client
    ) -> None:
        user = new_user()
        with open_stream(slow, message=GETS_SHORT_REPLY, user_id=user) as response:
            conversation_id = next(read_events(response))[1]["conversation_id"]

        def answer() -> Fields | None:
            fields = {
                "message": "What is my name?",
                "user_id": user,
                "conversation_id": conversation_id,
            }
            response = slow.post("/chat", json=fields)
            # Until the server notices the disconnect, the first turn may still be running.
            return json_body(response) if response.status_code != 409 else None

        assert "Bob" in wait_until(answer)["response"]
        conversation = transcript(read_conversation(slow, conversation_id))
        assert conversation[0] == ("user", GETS_SHORT_REPLY)
        assert conversation[-1][0] == "assistant"


def expect_same_error_as_chat(
    client: httpx.Client, body: bytes, headers: dict[str, str] | None = None
) -> None:
    """Assert that a stream request gets the same error as the same request to ``/chat``."""
    headers = JSON if headers is None else headers
    stream = client.post("/chat/stream", content=body, headers=headers)
    chat = client.post("/chat", content=body, headers=headers)
    assert expect_error(stream, 400, 413, 422) == expect_error(chat, 400, 413, 422)
    assert stream.status_code == chat.status_code
